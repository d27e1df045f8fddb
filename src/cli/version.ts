// The `version` command, and the version itself, which package.json holds.
import { arch, release } from "node:os";
import { version } from "../base/version.js";
import { printResult, table } from "./output.js";

export { version };

/** Major version of the on-disk format that this program reads and writes (src/imgfs/FORMAT.md). */
const format = 1;

export function printVersion(options: { readonly json?: boolean }): void {
  const facts = { version, format, node: process.versions.node, kernel: release(), arch: arch() };
  printResult(facts, options.json === true, () =>
    table([
      ["imgfs", version],
      ["format", String(format)],
      ["node", facts.node],
      ["kernel", facts.kernel],
      ["arch", facts.arch],
    ]),
  );
}
