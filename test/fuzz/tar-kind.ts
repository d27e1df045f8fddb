// Fuzzing layers. An input is right when it ends in an error of one line that names the member or the place, with no
// file left behind, or in a blob that is sound, is the same when it is made again, and can be merged.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { convertLayer } from "../../src/builder/layer.js";
import type { TarMember } from "../../src/builder/tar/member.js";
import { TarReader } from "../../src/builder/tar/reader.js";
import { checkImage } from "../../src/imgfs/check.js";
import { noCodec, parseCodec } from "../../src/imgfs/codec.js";
import { LinkError } from "../../src/imgfs/errors.js";
import { Image } from "../../src/imgfs/image.js";
import { zstdCodec } from "../../src/zstd/codec.js";
import { ZstdError } from "../../src/zstd/frame.js";
import { type Input, type Kind, must, mustBeMessage, Wrong } from "./kind.js";
import { mutateBytes } from "./mutate.js";
import { Random } from "./random.js";
import { mutateTar } from "./tar-mutate.js";
import { tarSeeds } from "./tar-seeds.js";
import { useImage } from "./use-image.js";

const seedNames = [...tarSeeds.keys()];
const pickSeed = (random: Random): Buffer => tarSeeds.get(random.pick(seedNames)) as Buffer;

/** Reads in pieces, and holds the reader to what it promises of bodies. False when it refused. */
function read(tar: Buffer, pieces: number): boolean {
  let member: TarMember | undefined;
  let got = 0;
  const reader = new TarReader({
    member(next) {
      must(member === undefined, "a member within a member");
      must(!next.path.includes(0) && !next.target.includes(0), "a NUL in a name");
      must(Number.isSafeInteger(next.size) && next.size >= 0, `a size of ${next.size}`);
      must(next.mtimeNsec >= 0 && next.mtimeNsec < 1e9, `${next.mtimeNsec} nanoseconds`);
      got = 0;
      if (next.type === "file") member = next;
    },
    body(bytes) {
      must(bytes.length > 0, "an empty piece");
      got += bytes.length;
    },
    hole(length) {
      must(length > 0, "an empty hole");
      got += length;
    },
    end() {
      must(member !== undefined && got === member.size, `${got} bytes of ${member?.size}`);
      member = undefined;
    },
  });
  try {
    const step = Math.max(1, Math.ceil(tar.length / pieces));
    for (let at = 0; at < tar.length; at += step) reader.write(tar.subarray(at, at + step));
    reader.finish();
    must(member === undefined, "an archive that ends within a body");
    return true;
  } catch (cause) {
    mustBeFault(cause, / at offset \d+$/);
    return false;
  }
}

function mustBeFault(cause: unknown, form: RegExp): void {
  if (cause instanceof Wrong) throw cause;
  const { message } = cause as Error;
  if ((cause as Error).constructor !== Error && !(cause instanceof ZstdError))
    throw new Wrong("no way to refuse a layer", cause);
  mustBeMessage(message);
  must(form.test(message), `a message without a place: ${message}`);
}

/** Where conversions end: the member's name, an offset in the archive, or what is wrong with the stream as a whole. */
const faultForms =
  /^entry .*: .| at offset \d+$|^damaged (gzip|zstd) data: .|^(gzip|zstd|xz|bzip2) (compression|data)\b|^zstd: |^size mismatch: |^its files have 2\^53 bytes or more together$/s;

export function layerKind(compressed: boolean, folder: string): Kind {
  const work = join(folder, "work");
  mkdirSync(work, { recursive: true });
  const blob = join(work, "blob");
  const source = join(folder, "layer");

  const convert = async (bytes: Buffer, codec = noCodec): Promise<Buffer | undefined> => {
    writeFileSync(source, bytes);
    const place = { kind: "file", path: source, offset: 0, size: bytes.length } as const;
    try {
      await convertLayer({
        source: { bytes: place, mediaType: "", digest: undefined, diffId: undefined },
        target: blob,
        codec,
      });
      return readFileSync(blob);
    } catch (cause) {
      mustBeFault(cause, faultForms);
      return undefined;
    } finally {
      const left = readdirSync(work);
      must(left.length <= 1 && (left[0] ?? "blob") === "blob", `files left behind: ${left.join(", ")}`);
    }
  };

  return {
    name: compressed ? "layer-compressed" : "layer-tar",
    make(number) {
      const random = new Random(number);
      const tar = mutateTar(random, pickSeed(random), pickSeed(random));
      if (!compressed) return { label: "tar", bytes: tar };
      const other = pickSeed(random);
      const zstd = random.once(2) && tar.length <= 128 << 10;
      const codec = zstdCodec();
      const pack = (bytes: Buffer): Buffer =>
        zstd
          ? Buffer.from(codec.compress?.(bytes.subarray(0, 128 << 10), 1) ?? [])
          : gzipSync(bytes, { level: random.pick([0, 1, 6]) });
      const half = random.below(tar.length);
      const packed = random.once(3)
        ? Buffer.concat([pack(tar.subarray(0, half)), pack(tar.subarray(half))])
        : pack(random.once(4) ? tar : other);
      return { label: zstd ? "zstd" : "gzip", bytes: random.once(8) ? packed : mutateBytes(random, packed) };
    },
    async run({ label, bytes }: Input) {
      rmSync(blob, { force: true });
      if (label === "tar") {
        const whole = read(bytes, 1);
        must(read(bytes, 7) === whole, "pieces change what an archive is");
      }
      const made = await convert(bytes);
      if (made === undefined) {
        must(readdirSync(work).length === 0, "a file is left of a layer that was refused");
        return;
      }
      const { findings } = checkImage(blob, { data: true });
      must(findings.length === 0, `a blob with damage was made: ${JSON.stringify(findings[0])}`);
      const image = Image.open(blob, { verify: true });
      const said = useImage(image);
      const { treeRoot } = image;
      image.close();
      must(said.lost === 0, "a lookup does not find a name that is listed");
      try {
        const merged = Image.stack([blob]);
        useImage(merged);
        merged.close();
      } catch (cause) {
        if (!(cause instanceof LinkError)) throw cause;
        mustBeMessage(cause.message);
      }
      // Now and then, for it costs as much again.
      if (bytes.length % 4 !== 0) return;
      rmSync(blob);
      must(made.equals((await convert(bytes)) ?? Buffer.alloc(0)), "the same layer made another blob");
      rmSync(blob);
      must((await convert(bytes, parseCodec("zstd:1"))) !== undefined, "a codec changes what is refused");
      const other = Image.open(blob);
      must(other.treeRoot === treeRoot, "a codec changes the tree");
      must(useImage(other).data === said.data, "a codec changes what files hold");
      other.close();
    },
  };
}
