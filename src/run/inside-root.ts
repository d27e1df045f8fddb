// Paths of a mounted image, resolved as a process whose root it is would resolve them: no symlink of it leads out.
import { lstatSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { RunFailure } from "./request.js";

const LINK_LIMIT = 40;

/** The path under `root` that `path` means inside; its last parts need not exist. The answer has no symlink in it. */
export function insideRoot(root: string, path: string): string {
  let at = root;
  const below: string[] = [];
  const rest = path.split("/").reverse();
  for (let links = 0; rest.length > 0; ) {
    const part = rest.pop() as string;
    if (part === "" || part === ".") continue;
    if (part === "..") {
      below.pop();
      at = join(root, ...below);
      continue;
    }
    const next = join(at, part);
    const stat = lstatSync(next, { throwIfNoEntry: false });
    if (stat?.isSymbolicLink() !== true) {
      below.push(part);
      at = next;
      continue;
    }
    if (++links > LINK_LIMIT) throw new RunFailure(`${path}: too many symlinks in the image`);
    const target = readlinkSync(next);
    if (target.startsWith("/")) {
      below.length = 0;
      at = root;
    }
    rest.push(...target.split("/").reverse());
  }
  return at;
}
