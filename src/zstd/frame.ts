// The outside of zstd data (RFC 8878, 3.1): frame headers and block headers, read without decoding anything.
// What is refused, and in which words, is decided here, so that it does not depend on the library that decodes.
// Invariant: no block of a frame reaches a library before the frame's header was found acceptable.

/** Damage in zstd data, or a form of it that is not read. */
export class ZstdError extends Error {
  constructor(problem: string) {
    super(`zstd: ${problem}`);
    this.name = "ZstdError";
  }
}

const MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
const MAX_BLOCK = 128 << 10;
/** Magic, descriptor, window, dictionary id, content size. */
const MAX_HEADER = 18;

/** Whether data of which these are the first bytes begins with a zstd or a skippable frame. */
export function isZstd(head: Uint8Array): boolean {
  if (head.length < 4) return false;
  const magic = readUint(head, 0, 4);
  return magic === MAGIC || isSkippable(magic);
}

function isSkippable(magic: number): boolean {
  return magic - (magic % 16) === SKIPPABLE_MAGIC;
}

/** What a frame header says; sizes in bytes. */
export interface FrameHeader {
  readonly headerSize: number;
  readonly windowSize: number;
  /** Undefined where the header does not say. */
  readonly contentSize: number | undefined;
  readonly checksum: boolean;
}

/** Little-endian, exact below 2**53. */
function readUint(bytes: Uint8Array, at: number, length: number): number {
  let value = 0;
  for (let i = length - 1; i >= 0; i--) value = value * 256 + (bytes[at + i] as number);
  return value;
}

const dictionaryIdSizes = [0, 1, 2, 4] as const;

/** Bytes of the frame header that begins with these five. */
function headerSizeOf(bytes: Uint8Array): number {
  const descriptor = bytes[4] as number;
  const single = (descriptor & 0x20) !== 0;
  return 5 + (single ? 0 : 1) + (dictionaryIdSizes[descriptor & 3] as number) + contentSizeWidth(descriptor);
}

function contentSizeWidth(descriptor: number): number {
  const flag = descriptor >> 6;
  if (flag === 0) return (descriptor & 0x20) === 0 ? 0 : 1;
  return 1 << flag;
}

/** The header at the start of `bytes`, whose magic has been checked. Throws ZstdError for a form that is not read. */
function parseHeader(bytes: Uint8Array, maxWindow: number): FrameHeader {
  const descriptor = bytes[4] as number;
  if ((descriptor & 0x08) !== 0) throw new ZstdError("the frame header has a reserved bit");
  const single = (descriptor & 0x20) !== 0;
  const headerSize = headerSizeOf(bytes);
  let at = 5;
  let windowSize = 0;
  if (!single) {
    const window = bytes[at++] as number;
    const base = 2 ** (10 + (window >> 3));
    windowSize = base + (base / 8) * (window & 7);
  }
  const dictionaryIdSize = dictionaryIdSizes[descriptor & 3] as number;
  const dictionary = readUint(bytes, at, dictionaryIdSize);
  if (dictionary !== 0) throw new ZstdError(`the frame needs dictionary ${dictionary}`);
  at += dictionaryIdSize;
  const width = headerSize - at;
  const contentSize = width === 0 ? undefined : readUint(bytes, at, width) + (width === 2 ? 256 : 0);
  if (single) windowSize = contentSize as number;
  if (windowSize > maxWindow) {
    throw new ZstdError(`the frame needs a window of ${windowSize} bytes, at most ${maxWindow} are accepted`);
  }
  return { headerSize, windowSize, contentSize, checksum: (descriptor & 0x04) !== 0 };
}

const State = {
  magic: 0,
  header: 1,
  block: 2,
  body: 3,
  checksum: 4,
  skipSize: 5,
  skip: 6,
  padding: 7,
} as const;
type State = (typeof State)[keyof typeof State];

/**
 * Follows zstd data from frame to frame as it comes. Frames may be skippable and may follow each other; after the last
 * one there may be zeros. Never looks into a block.
 */
export class FrameWalk {
  private readonly maxWindow: number;
  private readonly head = new Uint8Array(MAX_HEADER);
  private state: State = State.magic;
  /** Bytes of `head` so far, and how many are wanted. */
  private filled = 0;
  private wanted = 4;
  /** Bytes of a body to go. */
  private left = 0;
  private lastBlock = false;
  private maxBlock = 0;
  private hasChecksum = false;
  private position = 0;
  /** Whether a frame, skippable or not, ended at the last place returned. */
  ended = false;
  /** Frames that were begun, skippable ones not counted. */
  frames = 0;
  /** What the last frame said of itself. */
  header: FrameHeader | undefined;

  /** Refuses frames with a window of more than `maxWindow` bytes. */
  constructor(maxWindow: number) {
    this.maxWindow = maxWindow;
  }

  /**
   * Follows `chunk` from `at` to the end of a block, of a frame or of the chunk, whichever comes first, and returns that
   * place. At padding it returns `at`; call it no more for this chunk then.
   */
  next(chunk: Uint8Array, at: number): number {
    this.ended = false;
    const start = at;
    while (at < chunk.length && !this.ended) {
      if (this.state === State.padding) {
        this.checkPadding(chunk, at);
        return start;
      }
      if (this.state === State.body || this.state === State.skip) {
        const take = Math.min(this.left, chunk.length - at);
        at += take;
        this.position += take;
        this.left -= take;
        if (this.left > 0) return at;
        this.bodyEnded();
        return at;
      }
      if (this.state === State.magic && this.filled === 0 && chunk[at] === 0 && this.frames > 0) {
        this.state = State.padding;
        continue;
      }
      const byte = chunk[at++] as number;
      this.position++;
      this.head[this.filled++] = byte;
      if (this.filled === this.wanted) this.collected();
    }
    return at;
  }

  /** Says that there is no more. Throws ZstdError inside a frame. */
  finish(): void {
    if (this.state === State.padding || (this.state === State.magic && this.filled === 0)) return;
    throw new ZstdError(`the data ends inside a frame, after ${this.position} bytes`);
  }

  private expect(state: State, wanted: number): void {
    this.state = state;
    this.wanted = wanted;
    this.filled = 0;
  }

  private expectBody(state: State, length: number): void {
    this.state = state;
    this.left = length;
    if (length === 0) this.bodyEnded();
  }

  private frameEnded(): void {
    this.ended = true;
    this.expect(State.magic, 4);
  }

  private bodyEnded(): void {
    if (this.state === State.skip) this.frameEnded();
    else if (!this.lastBlock) this.expect(State.block, 3);
    else if (this.hasChecksum) this.expect(State.checksum, 4);
    else this.frameEnded();
  }

  private collected(): void {
    if (this.state === State.magic) this.magic();
    else if (this.state === State.header) this.frameHeader();
    else if (this.state === State.block) this.blockHeader();
    else if (this.state === State.skipSize) this.expectBody(State.skip, readUint(this.head, 0, 4));
    else this.frameEnded();
  }

  private magic(): void {
    const magic = readUint(this.head, 0, 4);
    if (isSkippable(magic)) this.expect(State.skipSize, 4);
    else if (magic === MAGIC) {
      this.state = State.header;
      this.wanted = 5;
    } else {
      throw new ZstdError(`no frame begins at offset ${this.position - 4}`);
    }
  }

  private frameHeader(): void {
    const size = headerSizeOf(this.head);
    if (this.filled < size) {
      this.wanted = size;
      return;
    }
    const header = parseHeader(this.head, this.maxWindow);
    this.header = header;
    this.hasChecksum = header.checksum;
    this.maxBlock = Math.min(MAX_BLOCK, header.windowSize);
    this.frames++;
    this.expect(State.block, 3);
  }

  /** RFC 8878, 3.1.1.2: a block holds at most 128 KiB and at most a window, before and after decoding. */
  private blockHeader(): void {
    const bits = readUint(this.head, 0, 3);
    const type = (bits >> 1) & 3;
    const size = bits >> 3;
    if (type === 3 || size > this.maxBlock) {
      throw new ZstdError(`damaged block at offset ${this.position - 3}`);
    }
    this.lastBlock = (bits & 1) !== 0;
    this.expectBody(State.body, type === 1 ? 1 : size);
  }

  private checkPadding(chunk: Uint8Array, at: number): void {
    for (; at < chunk.length; at++, this.position++) {
      if (chunk[at] !== 0) throw new ZstdError(`no frame begins at offset ${this.position}`);
    }
  }
}

/**
 * Checks that `frame` is one whole frame, and nothing else, whose header tells its content's size; returns that.
 * Throws ZstdError otherwise, and for a window of more than `maxWindow` bytes.
 */
export function singleFrameSize(frame: Uint8Array, maxWindow: number): number {
  const walk = new FrameWalk(maxWindow);
  let end = 0;
  while (end < frame.length && !walk.ended) end = walk.next(frame, end);
  if (!walk.ended) walk.finish();
  const size = walk.header?.contentSize;
  if (walk.frames !== 1 || end !== frame.length) throw new ZstdError("not one frame alone");
  if (size === undefined) throw new ZstdError("the frame does not tell the size of its content");
  return size;
}
