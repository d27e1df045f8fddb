// A byte-exact tar reader for layers: takes chunks as they come and calls a handler, synchronously, member by member.
// Names, link targets and attribute values are bytes; bodies are views of the chunks, never copied.
// Knows v7, ustar, PAX local and global headers, GNU long names, base-256, and all of GNU's sparse forms.
// Invariants: a member is reported only when all its headers have been checked; a file's body has exactly `size`
// bytes, holes included; memory is bounded by `maxExtension` and the sparse map; after an error nothing may follow.
import { blockSize, isZeroBlock, parseHeader, type RawHeader } from "./header.js";
import {
  type Extensions,
  type MemberPlan,
  memberName,
  paddedSize,
  planMember,
  type TarMember,
} from "./member.js";
import { parsePax } from "./pax.js";
import { type BodySink, checkSparse, OldSparse, readOldSparse, SparseBody, SparseText } from "./sparse.js";

/** Bytes of an extended header or a long name, and of all global records together: the bound of Go's archive/tar. */
const maxExtension = 1 << 20;

/** Takes what the reader finds. After a member of type file: any number of `body` and `hole`, then one `end`. */
export interface TarHandler extends BodySink {
  member(member: TarMember): void;
  end(): void;
}

const State = { collect: 0, body: 1, skip: 2, done: 3 } as const;
type State = (typeof State)[keyof typeof State];

type Extension = "name" | "link" | "local" | "global";

/** Headers that describe the member after them. Solaris wrote X where POSIX has x. */
const extensionTypes: Readonly<Record<string, Extension>> = {
  L: "name",
  K: "link",
  x: "local",
  X: "local",
  g: "global",
};

export class TarReader {
  private readonly handler: TarHandler;
  private readonly useHeader = (block: Uint8Array): void => this.header(block);
  private state: State = State.collect;
  /** Bytes of the archive consumed so far, padding counted as soon as it begins. */
  private position = 0;
  /** Where the first header of the current member begins. */
  private memberStart = 0;
  /** The current member for messages, when it has a name yet. */
  private name = "";

  // State collect: the next `wanted` bytes go to `use`, straight from the chunk where they lie in one piece.
  private wanted = blockSize;
  private use = this.useHeader;
  private partial: Buffer | undefined;
  private filled = 0;

  // States body and skip: bytes to go; the file that is being read.
  private left = 0;
  private padding = 0;
  private sparse: SparseBody | undefined;

  private sawZeroBlock = false;
  private extensions: Extensions | undefined;
  private global: Map<string, Buffer> | undefined;

  constructor(handler: TarHandler) {
    this.handler = handler;
  }

  /** Takes the next bytes of the archive, which are not used after the call. Throws an Error that says where. */
  write(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length; ) {
      if (this.state === State.done) return;
      if (this.state === State.collect) {
        at = this.collect(chunk, at);
        continue;
      }
      const take = Math.min(this.left, chunk.length - at);
      this.left -= take;
      if (this.state === State.body) this.body(chunk, at, at + take);
      else if (this.left === 0) this.nextHeader();
      at += take;
    }
  }

  /**
   * Says that the archive is complete. Throws when it ends inside a member. Missing zero blocks are accepted, and so is
   * missing padding after the last file, as in Go's archive/tar: `umoci insert` writes such layers.
   */
  finish(): void {
    if (this.state === State.done || this.state === State.skip) return;
    if (this.state === State.collect && this.memberStart === this.position) return;
    throw this.fault("the tar ends inside the member");
  }

  private collect(chunk: Uint8Array, at: number): number {
    const { wanted, use } = this;
    const take = Math.min(chunk.length - at, wanted - this.filled);
    const bytes = chunk.subarray(at, at + take);
    this.position += take;
    if (take === wanted) {
      use(bytes);
      return at + take;
    }
    this.partial ??= Buffer.allocUnsafe(wanted);
    this.partial.set(bytes, this.filled);
    this.filled += take;
    if (this.filled === wanted) {
      const whole = this.partial;
      this.partial = undefined;
      this.filled = 0;
      use(whole);
    }
    return at + take;
  }

  private body(chunk: Uint8Array, start: number, end: number): void {
    const bytes = start === 0 && end === chunk.length ? chunk : chunk.subarray(start, end);
    this.position += bytes.length;
    if (this.sparse === undefined) this.handler.body(bytes);
    else this.sparse.write(bytes);
    if (this.left === 0) this.endBody();
  }

  private expect(length: number, use: (bytes: Uint8Array) => void): void {
    this.state = State.collect;
    this.wanted = length;
    this.use = use;
  }

  private nextHeader(): void {
    this.memberStart = this.position;
    this.name = "";
    this.expect(blockSize, this.useHeader);
  }

  private header(block: Uint8Array): void {
    if (isZeroBlock(block)) {
      if (this.extensions !== undefined) throw this.fault("an extension header without a member");
      if (this.sawZeroBlock) this.state = State.done;
      else this.nextHeader();
      this.sawZeroBlock = true;
      return;
    }
    if (this.sawZeroBlock) throw this.fault("one zero block alone before the header");
    const header = this.check(() => parseHeader(block));
    const extension = extensionTypes[header.type];
    if (extension !== undefined) this.beginExtension(extension, header);
    else this.beginMember(header, block);
  }

  private beginExtension(kind: Extension, header: RawHeader): void {
    const { size } = header;
    if (size < 0 || size > maxExtension) {
      throw this.fault(`extension header of ${size} bytes, at most ${maxExtension} are accepted`);
    }
    const use = (bytes: Uint8Array): void => {
      this.expect(blockSize, this.useHeader);
      // A copy: what it says outlives the chunk.
      this.check(() => this.applyExtension(kind, Buffer.from(bytes.subarray(0, size))));
    };
    if (size === 0) use(new Uint8Array(0));
    else this.expect(paddedSize(size), use);
  }

  private applyExtension(kind: Extension, bytes: Buffer): void {
    if (kind === "global") {
      this.addGlobal(parsePax(bytes).values);
      // Nothing need follow a global header.
      if (this.extensions === undefined) this.memberStart = this.position;
      return;
    }
    this.extensions ??= {};
    if (kind === "name") this.extensions.longName = untilNul(bytes);
    else if (kind === "link") this.extensions.longLink = untilNul(bytes);
    else this.extensions.local = parsePax(bytes);
  }

  private addGlobal(values: ReadonlyMap<string, Buffer>): void {
    this.global ??= new Map();
    for (const [key, value] of values) this.global.set(key, value);
    let total = 0;
    for (const [key, value] of this.global) total += key.length + value.length;
    if (total > maxExtension)
      throw new Error(`global headers of ${total} bytes, at most ${maxExtension} are accepted`);
  }

  private beginMember(header: RawHeader, block: Uint8Array): void {
    const extensions = this.extensions ?? {};
    this.extensions = undefined;
    this.name = memberName(header, extensions);
    const plan = this.check(() => planMember(header, block, extensions, this.global));
    const { sparse } = plan;
    if (sparse === undefined) {
      this.begin(plan.member, plan.storedSize, undefined);
    } else if (sparse.form === "ready") {
      this.beginSparse(plan, sparse.map.pairs, plan.storedSize);
    } else if (sparse.form === "blocks") {
      const next = (extension: Uint8Array): void => {
        const more = this.check(() => readOldSparse(extension, OldSparse.extension, sparse.pairs));
        if (!more) this.beginSparse(plan, sparse.pairs, plan.storedSize);
      };
      this.expect(blockSize, next);
    } else {
      this.sparseText(plan);
    }
  }

  /** Sparse format 1.0: the map fills the first blocks of the body. */
  private sparseText(plan: MemberPlan): void {
    const text = new SparseText();
    let left = plan.storedSize;
    this.expect(blockSize, (block) => {
      left -= blockSize;
      if (left < 0) throw this.fault("the sparse map is longer than the body");
      if (this.check(() => text.take(block))) this.beginSparse(plan, text.pairs, left);
    });
  }

  private beginSparse(plan: MemberPlan, pairs: readonly number[], dataSize: number): void {
    const map = this.check(() => checkSparse({ pairs, realSize: plan.member.size }, dataSize));
    this.begin(plan.member, dataSize, new SparseBody(map, this.handler));
  }

  private begin(member: TarMember, storedSize: number, sparse: SparseBody | undefined): void {
    this.handler.member(member);
    if (member.type !== "file") {
      this.nextHeader();
      return;
    }
    this.sparse = sparse;
    this.left = storedSize;
    this.padding = paddedSize(storedSize) - storedSize;
    if (storedSize === 0) this.endBody();
    else this.state = State.body;
  }

  private endBody(): void {
    this.sparse?.end();
    this.handler.end();
    this.sparse = undefined;
    this.left = this.padding;
    this.position += this.padding;
    if (this.padding === 0) this.nextHeader();
    else this.state = State.skip;
  }

  /** Runs what may find a fault in the archive, and says where it is. */
  private check<T>(run: () => T): T {
    try {
      return run();
    } catch (cause) {
      throw this.fault((cause as Error).message);
    }
  }

  private fault(message: string): Error {
    const subject = this.name === "" ? "" : `entry ${this.name}: `;
    return new Error(`${subject}${message} at offset ${this.memberStart}`);
  }
}

function untilNul(bytes: Buffer): Buffer {
  const end = bytes.indexOf(0);
  return end < 0 ? bytes : bytes.subarray(0, end);
}
