// The members of a tar archive on disk by name, with the range of bytes each one occupies, so that layers are read
// straight from the archive, at random and in parallel. tar-stream decodes the headers; it is fed zeros in place of
// bodies, so an archive of any size is indexed by reading its headers only.
// Invariants: a range lies inside the file; what is held in memory is bounded by the number of members.
import { open } from "node:fs/promises";
import { createRequire } from "node:module";
import { posix } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Header } from "tar-stream";
import { errnoText } from "../base/errno.js";
import { readRange } from "./blobs.js";
import { maxJsonBytes } from "./schema.js";
import type { FileBytes } from "./source.js";

/** A member that holds bytes, or a link to one. */
interface Member {
  readonly offset: number;
  readonly size: number;
  /** Target of a symlink or hard link, as a member's name. */
  readonly target: string | undefined;
}

/** The members of one archive; of several with one name the last counts, as if they had been unpacked. */
export interface ArchiveIndex {
  /** The archive as the user named it, for messages. */
  readonly name: string;
  /** The file that the ranges are in. */
  readonly path: string;
  readonly members: ReadonlyMap<string, Member>;
}

const maxMembers = 1 << 16;
const maxLinks = 16;
const block = 512;
const zeros = new Uint8Array(1 << 20);

/**
 * Indexes the archive at `path`. Throws a one-line Error naming it as `name` when it is not a tar, is compressed, or
 * ends before a member does.
 */
export async function indexArchive(path: string, name: string = path): Promise<ArchiveIndex> {
  const members = new Map<string, Member>();
  await scanArchive(path, name, (member, at) => {
    members.set(member, at);
    if (members.size > maxMembers) throw new Error(`more than ${maxMembers} members`);
    return false;
  });
  return { name, path, members };
}

/** Sees each member in turn; true says that it has seen enough. */
export type MemberVisitor = (name: string, member: Member) => boolean;

/** Goes through the members of the archive at `path` until `visit` has seen enough. Errors as indexArchive. */
export async function scanArchive(path: string, name: string, visit: MemberVisitor): Promise<void> {
  const scan = new Scan(visit);
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    if (size === 0) throw new Error("it is empty");
    let zeroBlocks = 0;
    for (let position = 0; position < size && !scan.enough && zeroBlocks < 2; ) {
      let chunk: Uint8Array;
      if (scan.bodyEnd > position) {
        if (scan.bodyEnd > size) throw new Error("it ends inside a member");
        chunk = zeros.subarray(0, Math.min(scan.bodyEnd - position, zeros.length));
      } else {
        const length = block - (position % block);
        chunk = new Uint8Array(length);
        const { bytesRead } = await file.read(chunk, 0, length, position);
        if (position === 0) rejectCompressed(chunk);
        if (bytesRead < length && length === block) throw new Error("it ends inside a header");
        if (bytesRead === 0) break;
        chunk = chunk.subarray(0, bytesRead);
        zeroBlocks = bytesRead === block && chunk.every((byte) => byte === 0) ? zeroBlocks + 1 : 0;
      }
      position += chunk.length;
      await scan.write(chunk);
    }
  } catch (cause) {
    throw unreadable(name, cause);
  } finally {
    scan.end();
    await file.close();
  }
}

/** The same for an archive that comes as a stream, which is read no further than `visit` wants. */
export async function scanStream(
  bytes: AsyncIterable<Uint8Array>,
  name: string,
  visit: MemberVisitor,
): Promise<void> {
  const scan = new Scan(visit);
  try {
    let length = 0;
    for await (const chunk of bytes) {
      length += chunk.length;
      // A copy: the parser may hold on to the rest of a chunk, which its maker uses again.
      await scan.write(Uint8Array.from(chunk));
      if (scan.enough) return;
    }
    if (length === 0) throw new Error("it is empty");
  } catch (cause) {
    throw unreadable(name, cause);
  } finally {
    scan.end();
  }
}

/** tar-stream's parser at work. */
class Scan {
  enough = false;
  /** Offset in the archive where the body of the last member ends. */
  bodyEnd = 0;
  private failure: unknown;
  // Loaded for an archive alone.
  private readonly parser = (
    createRequire(import.meta.url)("tar-stream") as typeof import("tar-stream")
  ).extract();

  constructor(visit: MemberVisitor) {
    this.parser.on("error", (cause: Error) => {
      this.failure ??= cause;
    });
    this.parser.on("entry", (header: Header & { byteOffset?: number }, body, next) => {
      try {
        const member = memberOf(header, header.byteOffset as number);
        const empty = header.type === "directory";
        this.bodyEnd = member.offset + (empty ? 0 : (header.size as number));
        this.enough ||= visit(memberName(header.name), member);
      } catch (cause) {
        this.failure ??= cause;
      }
      body.on("error", () => {});
      body.on("end", next);
      body.resume();
    });
  }

  /** Throws what the parser or the visitor has thrown. */
  async write(chunk: Uint8Array): Promise<void> {
    this.parser.write(chunk);
    // The parser works in microtasks: after one turn of the loop it has seen all that was written.
    await nextTurn();
    if (this.failure !== undefined) throw this.failure;
  }

  end(): void {
    this.parser.destroy();
  }
}

function unreadable(name: string, cause: unknown): Error {
  if (!(cause instanceof Error)) return new Error(`${name}: ${cause}`);
  const { code, message } = cause as NodeJS.ErrnoException;
  return new Error(
    `${name}: not a readable tar archive: ${code === undefined ? message.replace(/^[A-Z]/, (c) => c.toLowerCase()) : errnoText(code)}`,
  );
}

/** The bytes of a member, through links inside the archive; undefined when there is none of that name. */
export function findMember(index: ArchiveIndex, name: string): FileBytes | undefined {
  let at = memberName(name);
  for (let hops = 0; hops <= maxLinks; hops++) {
    const member = index.members.get(at);
    if (member === undefined) return undefined;
    if (member.target === undefined) {
      return { kind: "file", path: index.path, offset: member.offset, size: member.size };
    }
    at = member.target;
  }
  return undefined;
}

/** The bytes of a small member. `kind` is what the archive is not when it has none. */
export async function readMember(index: ArchiveIndex, name: string, kind: string): Promise<Uint8Array> {
  const range = findMember(index, name);
  if (range === undefined)
    throw new Error(`${index.name}: ${kind}: the archive has no ${JSON.stringify(name)}`);
  if (range.size > maxJsonBytes) {
    throw new Error(`${index.name}: ${name}: ${range.size} bytes, at most ${maxJsonBytes} are accepted`);
  }
  return readRange(range);
}

function memberName(name: string): string {
  return posix.normalize(`/${name}`).replace(/\/$/, "").slice(1);
}

function memberOf(header: Header, offset: number): Member {
  const { name, type, pax } = header;
  // A base-256 size of a kind that tar-stream does not know comes as null.
  const size: unknown = header.size;
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) {
    throw new Error(`member ${JSON.stringify(name)} has no valid size`);
  }
  if (pax !== null && pax !== undefined && Object.keys(pax).some((key) => key.startsWith("GNU.sparse."))) {
    throw new Error(`member ${JSON.stringify(name)} is stored as a sparse file`);
  }
  const isFile = type === "file" || type === "contiguous-file";
  return { offset, size: isFile ? size : 0, target: targetOf(header) };
}

function targetOf({ name, type, linkname }: Header): string | undefined {
  if (linkname === undefined || linkname === null) return undefined;
  if (type === "symlink") return memberName(posix.join(posix.dirname(memberName(name)), linkname));
  return type === "link" ? memberName(linkname) : undefined;
}

function rejectCompressed(bytes: Uint8Array): void {
  const gzip = bytes[0] === 0x1f && bytes[1] === 0x8b;
  const zstd = bytes[0] === 0x28 && bytes[1] === 0xb5 && bytes[2] === 0x2f && bytes[3] === 0xfd;
  if (gzip || zstd) throw new Error(`it is compressed (${gzip ? "gzip" : "zstd"}): decompress it first`);
}
