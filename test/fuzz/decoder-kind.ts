// Fuzzing what decompresses: frames of blobs through every provider, and streams of layers in pieces of any size. All
// buffers end at memory that nobody may touch. An input is right when each provider refuses it or gives the same bytes.
import { gzipSync } from "node:zlib";
import type { Decoder } from "../../src/base/decoder.js";
import { gzipDecoder } from "../../src/builder/gzip.js";
import { codecOf, zstdCodec } from "../../src/zstd/codec.js";
import { ZstdError } from "../../src/zstd/frame.js";
import { findProvider, providerNames } from "../../src/zstd/provider.js";
import { zstdDecoder } from "../../src/zstd/stream.js";
import { Fence } from "./fence.js";
import { type Input, type Kind, must, mustBeMessage, Wrong } from "./kind.js";
import { mutateBytes } from "./mutate.js";
import { Random } from "./random.js";

const FRAME = 128 << 10;
/** Streams are cut here: what a few bytes can swell to is not the question. */
const STREAM_MAX = 4 << 20;

const text = Buffer.from("the quick brown fox jumps over the lazy dog; ".repeat(60));

function content(random: Random): Buffer {
  const length = random.pick([0, 1, 100, 2000, 2700]);
  return random.pick([
    () => text.subarray(0, length),
    () => random.bytes(Math.min(length, 600)),
    () => Buffer.alloc(random.pick([length, FRAME]), 7),
    () => Buffer.concat([text.subarray(0, length), random.bytes(50), text]),
  ])();
}

function pack(random: Random, form: string): Buffer {
  const plain = content(random);
  if (form === "gzip") return gzipSync(plain, { level: random.pick([0, 1, 6]) });
  return Buffer.from(zstdCodec().compress?.(plain, random.pick([1, 3, 19])) ?? []);
}

const skippable = Buffer.from("502a4d1803000000616263", "hex");

/** What came out; undefined for what was refused in a proper way. */
function attempt(run: () => Buffer): Buffer | undefined {
  try {
    return run();
  } catch (cause) {
    const isProper =
      cause instanceof ZstdError ||
      ((cause as Error).constructor === Error && (cause as Error).message.startsWith("damaged gzip data: "));
    if (!isProper) throw cause instanceof Wrong ? cause : new Wrong("no way to refuse data", cause);
    mustBeMessage((cause as Error).message);
    return undefined;
  }
}

function agree(results: readonly (readonly [string, Buffer | undefined])[]): void {
  const read = results.filter((result): result is [string, Buffer] => result[1] !== undefined);
  for (const [name, bytes] of read) {
    const [first, wanted] = read[0] as [string, Buffer];
    must(
      bytes.equals(wanted),
      `${first} gives ${wanted.length} bytes, ${name} gives ${bytes.length} or others`,
    );
  }
}

export function decoderKind(): Kind {
  const from = new Fence(FRAME * 2);
  const into = new Fence(FRAME);

  const frame = (bytes: Buffer): void => {
    const results = providerNames.map((name): readonly [string, Buffer | undefined] => {
      const provider = findProvider(name);
      if (provider === undefined) return [name, undefined];
      const codec = codecOf(provider);
      return [
        name,
        attempt(() => {
          const target = into.take(FRAME);
          const length = codec.decompress(from.hold(bytes), target);
          into.check(FRAME);
          const found = Buffer.from(target.subarray(0, length));
          // The same once more, with not a byte of room to spare.
          const tight = into.take(length);
          must(codec.decompress(from.hold(bytes), tight) === length, "the size depends on the room");
          into.check(length);
          must(found.equals(tight), "the bytes depend on the room");
          return found;
        }),
      ];
    });
    agree(results);
  };

  const stream = (bytes: Buffer, decoder: Decoder, random: Random): Buffer => {
    const parts: Buffer[] = [];
    let at = 0;
    let end = 0;
    let total = 0;
    let idle = 0;
    try {
      const room = random.pick([61, 4096, FRAME]);
      let filled = 0;
      let target = into.take(room);
      for (;;) {
        // What was not consumed is given again, with what follows.
        end = Math.max(end, at + 1 + random.below(random.pick([2, 64, FRAME])));
        const piece = bytes.subarray(at, end);
        const step = decoder.run(from.hold(piece), target, filled);
        into.check(room);
        must(
          step.consumed >= 0 && step.consumed <= piece.length,
          `${step.consumed} of ${piece.length} consumed`,
        );
        must(step.filled >= filled && step.filled <= room, `${step.filled} of ${room} filled`);
        const moved = step.consumed > 0 || step.filled > filled;
        at += step.consumed;
        filled = step.filled;
        if (filled === room || at === bytes.length) {
          parts.push(Buffer.from(target.subarray(0, filled)));
          total += filled;
          // An empty piece says that there is no more; what then leaves room has given all.
          if (piece.length === 0 && filled < room) break;
          filled = 0;
          target = into.take(room);
        }
        idle = moved ? 0 : idle + 1;
        must(idle < 4, `no progress at byte ${at} of ${bytes.length}`);
        if (total > STREAM_MAX) return Buffer.concat(parts).subarray(0, STREAM_MAX);
      }
      decoder.finish();
    } finally {
      decoder.close();
    }
    return Buffer.concat(parts);
  };

  return {
    name: "decoders",
    make(seed) {
      const random = new Random(seed);
      const label = random.pick(["frame", "frame", "zstd", "zstd", "gzip"]);
      const count = label === "frame" ? 1 : random.pick([1, 1, 2, 3]);
      let packed: Buffer = Buffer.concat(Array.from({ length: count }, () => pack(random, label)));
      if (label === "zstd" && random.once(4))
        packed = Buffer.concat([skippable, packed, Buffer.alloc(random.below(9))]);
      for (let i = random.pick([0, 1, 1, 2, 4]); i > 0; i--) packed = mutateBytes(random, packed);
      return { label, bytes: packed.subarray(0, FRAME) };
    },
    run({ label, bytes }: Input) {
      if (label === "frame") {
        frame(bytes);
        return;
      }
      const random = (): Random => new Random(bytes.length);
      if (label === "gzip") {
        const decoders = [0, 1].map(() => gzipDecoder());
        agree(
          decoders.map((decoder, i): readonly [string, Buffer | undefined] => [
            `gzip ${i}`,
            decoder && attempt(() => stream(bytes, decoder, new Random(bytes.length + i))),
          ]),
        );
        return;
      }
      agree(
        providerNames.map((name): readonly [string, Buffer | undefined] => {
          const provider = findProvider(name);
          if (provider === undefined || provider.form === "zlib") return [name, undefined];
          return [name, attempt(() => stream(bytes, zstdDecoder(provider), random()))];
        }),
      );
    },
  };
}
