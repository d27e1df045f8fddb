// The members of a tar archive on disk by name, with the range of bytes each one occupies, so that layers are read
// straight from the archive, at random and in parallel. tar-stream decodes the headers; it is fed zeros in place of
// bodies, so an archive of any size is indexed by reading its headers only.
import { open } from "node:fs/promises";
import { posix } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { extract, type Header } from "tar-stream";

/** A member that holds bytes, or a symlink to one. */
interface Member {
  readonly offset: number;
  readonly size: number;
  /** Target of a symlink or hard link, as a member's name. */
  readonly target: string | undefined;
}

/** The range of a member's bytes in the archive. */
export interface MemberRange {
  readonly offset: number;
  readonly size: number;
}

export type ArchiveIndex = ReadonlyMap<string, Member>;

const maxMembers = 1 << 16;
const maxLinks = 16;
const block = 512;
const zeros = new Uint8Array(1 << 20);

/**
 * Indexes the archive at `path`. Throws a one-line Error naming it when it is not a tar, is compressed, or ends
 * before a member does.
 */
export async function indexArchive(path: string): Promise<ArchiveIndex> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const members = new Map<string, Member>();
    const parser = extract();
    let bodyEnd = 0;
    let failure: Error | undefined;
    parser.on("error", (cause: Error) => {
      failure = cause;
    });
    parser.on("entry", (header: Header & { byteOffset?: number }, body, next) => {
      const offset = header.byteOffset as number;
      const length = header.type === "file" || header.type === "contiguous-file" ? (header.size ?? 0) : 0;
      bodyEnd = header.type === "directory" ? offset : offset + (header.size ?? 0);
      members.set(memberName(header.name), { offset, size: length, target: targetOf(header) });
      body.on("end", next);
      body.resume();
    });
    for (let position = 0; position < size && failure === undefined; ) {
      let chunk: Uint8Array;
      if (bodyEnd > position) {
        if (bodyEnd > size) throw new Error("it ends inside a member");
        chunk = zeros.subarray(0, Math.min(bodyEnd - position, zeros.length));
      } else {
        chunk = new Uint8Array(block - (position % block));
        const { bytesRead } = await file.read(chunk, 0, chunk.length, position);
        if (bytesRead === 0) break;
        if (position === 0) rejectCompressed(chunk);
        chunk = chunk.subarray(0, bytesRead);
      }
      position += chunk.length;
      parser.write(chunk);
      // The parser works in microtasks: after one turn of the loop it has seen all that was written.
      await nextTurn();
      if (members.size > maxMembers) throw new Error(`more than ${maxMembers} members`);
    }
    parser.destroy();
    if (failure !== undefined) throw failure;
    return members;
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`${path}: not a readable tar archive: ${message.toLowerCase()}`);
  } finally {
    await file.close();
  }
}

/** The bytes of a member, through symlinks inside the archive; undefined when there is none of that name. */
export function findMember(index: ArchiveIndex, name: string): MemberRange | undefined {
  let at = memberName(name);
  for (let hops = 0; hops <= maxLinks; hops++) {
    const member = index.get(at);
    if (member === undefined || member.target === undefined) return member;
    at = member.target;
  }
  return undefined;
}

function memberName(name: string): string {
  return posix.normalize(`/${name}`).replace(/\/$/, "").slice(1);
}

function targetOf(header: Header): string | undefined {
  const target = header.linkname;
  if (target === undefined || target === null) return undefined;
  if (header.type === "symlink")
    return memberName(posix.join(posix.dirname(memberName(header.name)), target));
  return header.type === "link" ? memberName(target) : undefined;
}

function rejectCompressed(bytes: Uint8Array): void {
  const gzip = bytes[0] === 0x1f && bytes[1] === 0x8b;
  const zstd = bytes[0] === 0x28 && bytes[1] === 0xb5 && bytes[2] === 0x2f && bytes[3] === 0xfd;
  if (gzip || zstd) throw new Error(`it is compressed (${gzip ? "gzip" : "zstd"}): decompress it first`);
}
