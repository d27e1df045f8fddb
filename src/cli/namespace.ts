// mount(8) -N: the mount is to be made in another mount namespace. A process with threads cannot go there itself
// (setns(2)), so nsenter goes there and starts this program again.
import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import type { Called } from "./called-as.js";
import { ExitCode, Failure } from "./failure.js";

/** Runs the words in the namespace of a pid or a file and returns the exit code, in our own numbers. */
export function runInNamespace({ words, namespace }: Called): number {
  const file = /^\d+$/.test(namespace as string) ? `/proc/${namespace}/ns/mnt` : resolve(namespace as string);
  const command = [process.execPath, ...process.execArgv, process.argv[1] as string, ...words];
  const child = spawnSync("nsenter", [`--mount=${file}`, "--", ...command], {
    stdio: "inherit",
    env: { ...process.env, PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin" },
  });
  if (child.error !== undefined) throw new Failure(ExitCode.failure, `nsenter: ${child.error.message}`);
  return child.status ?? ExitCode.failure;
}
