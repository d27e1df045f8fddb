import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Real mounts and real child processes: generous, and never a measure of speed.
    testTimeout: 120_000,
    hookTimeout: 300_000,
    pool: "forks",
  },
});
