// A directory tree as the bytes of a layer: a canonical tar, made piece by piece as it is read. The sha256 of these
// bytes is the layer's diffID: equal trees, equal blobs. It is the tar that `imgfs extract` makes of the image again.
// Memory: two pieces, the names of the directories on the way down, and what hard links need.
import { readSync } from "node:fs";
import { displayName } from "../../base/bytes.js";
import { Errno } from "../../base/errno.js";
import { AT_FDCWD, closeFd, O_RDONLY, openAt, SEEK_DATA, SEEK_HOLE, seekFd } from "../../sys/files.js";
import { deviceMajor, deviceMinor } from "../../sys/stat.js";
import { looksLikeMarker } from "../path.js";
import { memberTypeOf, type TarMember } from "../tar/member.js";
import { dataPadding, encodeMember, endOfArchive } from "../tar/writer.js";
import { checkCall, type TreeObject, treeFault, walkTree } from "./walk.js";

const pieceSize = 512 << 10;

/** Sockets that are named in warnings; of more only the number is told. */
const maxNamed = 5;

/**
 * The tar of the tree at `root`, in pieces that stay what they are until the next is asked for. `warn` gets a line for
 * what is left out. Throws one-line Errors that name the object by its path in the tree.
 */
export function* treeTar(root: string, warn: (message: string) => void): Generator<Uint8Array, void> {
  const packer = new Packer();
  let sockets = 0;
  const skipped = (path: Buffer): void => {
    sockets++;
    if (sockets <= maxNamed) warn(`${displayName(path)}: a socket, left out: no image can hold one`);
  };
  for (const object of walkTree(root, skipped)) {
    const { stat } = object;
    const member = describe(object);
    if (member.type === "file" && stat.size > 0) yield* file(object, member, packer);
    else yield* packer.put(encodeMember(member));
  }
  if (sockets > maxNamed) warn(`${sockets - maxNamed} more sockets left out`);
  yield* packer.put(endOfArchive);
  yield* packer.flush();
}

const noBytes = Buffer.alloc(0);

function describe({ path, stat, xattrs, target, sameAs }: TreeObject): TarMember {
  const type = sameAs === undefined ? memberTypeOf(stat.mode) : "link";
  const name = path.length === 0 ? "./" : type === "directory" ? "/" : "";
  return {
    type,
    path: name === "" ? path : Buffer.concat([path, Buffer.from(name)]),
    target: sameAs ?? target ?? noBytes,
    mode: stat.mode & 0o7777,
    uid: stat.uid,
    gid: stat.gid,
    size: type === "file" ? stat.size : 0,
    mtimeSec: stat.mtimeSec,
    mtimeNsec: stat.mtimeNsec,
    devMajor: deviceMajor(stat.rdev),
    devMinor: deviceMinor(stat.rdev),
    xattrs,
    literal: looksLikeMarker(path),
  };
}

function* file(object: TreeObject, member: TarMember, packer: Packer): Generator<Uint8Array, void> {
  const { path, stat } = object;
  // By the descriptor, so that it is the inode that was looked at and no FIFO or device in its place.
  const self = Buffer.from(`/proc/self/fd/${object.fd}`);
  const fd = checkCall(openAt(AT_FDCWD, self, O_RDONLY), path, "open");
  try {
    const pieces = dataOf(fd, stat.size, path);
    const isWhole = pieces.length === 2 && pieces[0] === 0 && pieces[1] === stat.size;
    yield* packer.put(encodeMember(member, isWhole ? undefined : pieces));
    let stored = 0;
    for (let i = 0; i < pieces.length; i += 2) {
      yield* packer.copy(fd, pieces[i] as number, pieces[i + 1] as number, path);
      stored += pieces[i + 1] as number;
    }
    yield* packer.put(dataPadding(stored));
  } finally {
    closeFd(fd);
  }
}

/**
 * Offset and length of each stretch of data, and of the end of a file that ends in a hole; all of a file where the
 * filesystem knows no holes.
 */
function dataOf(fd: number, size: number, path: Buffer): number[] {
  const pieces: number[] = [];
  let end = 0;
  while (end < size) {
    const start = seekFd(fd, end, SEEK_DATA);
    if (start === -Errno.ENXIO || start >= size) break;
    if (start === -Errno.EINVAL || start === -Errno.EOPNOTSUPP) return [0, size];
    checkCall(start, path, "seek");
    end = Math.min(checkCall(seekFd(fd, start, SEEK_HOLE), path, "seek"), size);
    pieces.push(start, end - start);
  }
  if (end < size) pieces.push(size, 0);
  return pieces;
}

/** Gathers bytes into pieces of one size. */
class Packer {
  private readonly piece = Buffer.allocUnsafeSlow(pieceSize);
  private filled = 0;

  *put(bytes: Buffer): Generator<Uint8Array, void> {
    for (let at = 0; at < bytes.length; ) {
      const taken = bytes.copy(this.piece, this.filled, at);
      this.filled += taken;
      at += taken;
      if (this.filled === pieceSize) yield* this.flush();
    }
  }

  /** Reads a stretch of a file; that it ends early means that it has changed. */
  *copy(fd: number, offset: number, length: number, path: Buffer): Generator<Uint8Array, void> {
    for (let done = 0; done < length; ) {
      const want = Math.min(length - done, pieceSize - this.filled);
      let got: number;
      try {
        got = readSync(fd, this.piece, this.filled, want, offset + done);
      } catch (cause) {
        throw treeFault(path, `read: ${(cause as NodeJS.ErrnoException).code}`);
      }
      if (got === 0) throw treeFault(path, "it became shorter while it was being read");
      this.filled += got;
      done += got;
      if (this.filled === pieceSize) yield* this.flush();
    }
  }

  *flush(): Generator<Uint8Array, void> {
    const { filled } = this;
    this.filled = 0;
    if (filled > 0) yield this.piece.subarray(0, filled);
  }
}
