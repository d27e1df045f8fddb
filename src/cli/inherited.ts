// Descriptors of whoever started a mount in the background: the mount must not hold their files, locks and pipes.
import { closeSync, fstatSync, readdirSync, readlinkSync } from "node:fs";

/**
 * Closes what this process was started with, from descriptor `from` on, as far as it cannot be Node's own: regular files,
 * and pipes of which only one end is here. To be called before anything is opened.
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
  for (const [fd, target] of targets) {
    if (fd < from) continue;
    const onePipeEnd = target.startsWith("pipe:") && all.filter((other) => other === target).length === 1;
    if (onePipeEnd || fstatSync(fd).isFile()) closeSync(fd);
  }
}
