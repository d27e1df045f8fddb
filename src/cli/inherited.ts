// Descriptors of whoever started a mount in the background: the mount must not hold their files, locks and pipes.
import { closeSync, readdirSync, readlinkSync } from "node:fs";
import { url as debuggerAddress } from "node:inspector";

/** What Node opens for itself before a program starts; it makes sockets for a parent that is Node, and for a debugger. */
const nodesOwn = /^(anon_inode:|\/dev\/(null|random|urandom)$)/;

/**
 * Closes what this process was started with, from descriptor `from` on, as far as it cannot be Node's own: all but
 * anonymous inodes and pipes of which both ends are here. To be called before anything is opened.
 */
export function closeInherited(from: number): void {
  const targets = new Map<number, string>();
  for (const name of readdirSync("/proc/self/fd")) {
    try {
      targets.set(Number(name), readlinkSync(`/proc/self/fd/${name}`));
    } catch {
      // The listing's own descriptor, closed by now.
    }
  }
  const all = [...targets.values()];
  const hasSockets = process.channel !== undefined || debuggerAddress() !== undefined;
  for (const [fd, target] of targets) {
    if (fd < from || nodesOwn.test(target)) continue;
    if (target.startsWith("socket:") && hasSockets) continue;
    if (target.startsWith("pipe:") && all.filter((other) => other === target).length > 1) continue;
    closeSync(fd);
  }
}
