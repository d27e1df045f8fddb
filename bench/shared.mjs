// What several benches need.
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

export const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];

/** Runs a command that must succeed; its stdout. */
export function run(command, args, input) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: "utf8", input });
  if (status !== 0)
    throw new Error(`${command} ${args.join(" ")}: ${error?.message ?? `${stdout}${stderr}`}`);
  return stdout;
}

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/**
 * Debian's docker-registry on loopback, without TLS, with `source` in it as `image`. Its files are in `work`; the caller kills
 * `registry`.
 */
export async function serveRegistry(work, source) {
  const host = `127.0.0.1:${await freePort()}`;
  const root = join(work, "registry");
  mkdirSync(root);
  const config = join(work, "registry.yml");
  writeFileSync(
    config,
    `version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: ${root}}}\nhttp: {addr: "${host}"}\n`,
  );
  const registry = spawn("docker-registry", ["serve", config], { stdio: "ignore" });
  registry.on("error", () => console.error("docker-registry cannot be run"));
  await sleep(1000);
  const image = `docker://${host}/bench/image:latest`;
  try {
    run("skopeo", ["copy", "-q", "--dest-tls-verify=false", source, image]);
  } catch (cause) {
    registry.kill("SIGKILL");
    throw cause;
  }
  return { registry, host, image };
}
