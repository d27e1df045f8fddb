// Stands for vitest in the fuzzing processes, which use the helpers of tests without being one.
export function afterAll(clean: () => void): void {
  process.on("exit", clean);
}
