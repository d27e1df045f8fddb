// One backing descriptor per inode, opened on demand and bounded in number: the clock closes what has not been used
// since it last came round. A descriptor of an open or nameless inode stays until that ends.
// Every path is walked by descriptor and single names, O_NOFOLLOW: nothing in the upper directory leads out of it.
// Invariant: closing happens in `trim` only, which operations call once at their start, so that descriptors got
// during one operation stay good for all of it.
import { Errno, FsError } from "../base/errno.js";
import { closeFd, O_DIRECTORY, O_NOFOLLOW, O_PATH, O_RDONLY, O_RDWR, openAt } from "../sys/files.js";
import { check } from "../sys/libc.js";
import { S_IFDIR, S_IFREG } from "../sys/stat.js";
import { backingType, type Node } from "./inode-table.js";

export class BackingFds {
  private readonly ring: Node[] = [];
  /** How many are kept beside those in use. */
  readonly capacity: number;
  private hand = 0;

  /** `capacity` bounds what is kept beside open files. */
  constructor(capacity: number) {
    this.capacity = capacity;
  }

  /** Descriptors open now. */
  get open(): number {
    return this.ring.length;
  }

  /** The descriptor of a directory, a file (read and write) or, by O_PATH, anything else. Throws FsError. */
  of(node: Node): number {
    if (node.fd >= 0) {
      node.recent = true;
      return node.fd;
    }
    const missing: Node[] = [];
    let at: Node | undefined = node;
    while (at !== undefined && at.fd < 0) {
      missing.push(at);
      at = at.parent;
    }
    if (at === undefined)
      throw new FsError(Errno.ESTALE, `nodeid ${node.id} has no place in the upper directory`);
    for (let next = missing.pop(); next !== undefined; next = missing.pop()) {
      this.hold(next, check(openBacking((next.parent as Node).fd, next), "open in the upper directory"));
    }
    return node.fd;
  }

  /** Takes over a descriptor opened elsewhere. */
  hold(node: Node, fd: number): void {
    this.close(node);
    node.fd = fd;
    node.recent = true;
    node.slot = this.ring.length;
    this.ring.push(node);
  }

  /** After a change of mode: a file that could only be read may now be written. What is open for both stays so. */
  widen(node: Node): void {
    if (node.fd < 0 || node.type !== S_IFREG || node.parent === undefined) return;
    const fd = openAt(this.of(node.parent), node.name, O_RDWR | O_NOFOLLOW);
    if (fd >= 0) this.hold(node, fd);
  }

  close(node: Node): void {
    if (node.fd < 0) return;
    closeFd(node.fd);
    node.fd = -1;
    this.removeAt(node.slot);
  }

  /** Closes descriptors until the bound is kept, or everything left is in use. */
  trim(): void {
    for (let steps = this.ring.length * 2; this.ring.length > this.capacity && steps > 0; steps--) {
      if (this.hand >= this.ring.length) this.hand = 0;
      const node = this.ring[this.hand] as Node;
      if (node.recent || node.opens > 0 || node.parent === undefined) {
        node.recent = false;
        this.hand++;
        continue;
      }
      closeFd(node.fd);
      node.fd = -1;
      this.removeAt(this.hand);
    }
  }

  private removeAt(index: number): void {
    const last = this.ring.pop() as Node;
    if (index >= this.ring.length) return;
    this.ring[index] = last;
    last.slot = index;
  }

  closeAll(): void {
    for (const node of this.ring) {
      closeFd(node.fd);
      node.fd = -1;
    }
    this.ring.length = 0;
  }
}

/** Opens the object `node` in its parent's directory. A descriptor or a negative errno. */
function openBacking(directoryFd: number, node: Node): number {
  const type = backingType(node);
  if (type === S_IFDIR) return openAt(directoryFd, node.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (type !== S_IFREG) return openAt(directoryFd, node.name, O_PATH | O_NOFOLLOW);
  const fd = openAt(directoryFd, node.name, O_RDWR | O_NOFOLLOW);
  return fd === -Errno.EACCES ? openAt(directoryFd, node.name, O_RDONLY | O_NOFOLLOW) : fd;
}
