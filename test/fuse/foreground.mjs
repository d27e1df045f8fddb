// Runs mountForeground of the package at argv[2] with the options at argv[3], as a command would.
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [, , dist, options] = process.argv;
const { mountForeground } = await import(pathToFileURL(join(dist, "daemon/mount.js")).href);
try {
  process.exitCode = await mountForeground(JSON.parse(options));
} catch (error) {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = error.exitCode ?? 1;
}
