// Fuzzing blobs and indexes. An input is right when every way to use it ends in an error that names file, section and
// record, or in correct output: of a file whose digests no longer fit, what the sound one says; of one whose digests
// fit, something that agrees with itself, with the checker, and with what merging makes of it.
import { closeSync, existsSync, mkdirSync, openSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { checkImage, type Finding } from "../../src/imgfs/check.js";
import { Corrupt, LinkError, Unsupported } from "../../src/imgfs/errors.js";
import { flattenImage } from "../../src/imgfs/flatten.js";
import { Image } from "../../src/imgfs/image.js";
import * as L from "../../src/imgfs/layout.js";
import { mergeLayers } from "../../src/imgfs/merge.js";
import { mutateRaw, mutateSealed } from "./image-mutate.js";
import { type ImageSeed, type ImageSeeds, imageSeeds } from "./image-seeds.js";
import { type Input, type Kind, must, mustBeMessage, Wrong } from "./kind.js";
import { memorySource } from "./memory-source.js";
import { Random } from "./random.js";
import { type Said, useImage } from "./use-image.js";

const sectionNames = new Set(
  Object.values(L.Section)
    .map(({ name }): string => name)
    .concat("header", "data", "file", "between sections", "before the data"),
);

/** Where the whole section is meant, or there is nothing smaller to name. */
const wholes = new Set(["PAGES", "header", "NAMES", "TARGETS", "LINK", "OVERFLOW", "OWNER", "XATTR_OFFSET"]);
for (const name of [
  "RUN",
  "CONTENT",
  "XATTRS",
  "TARGETS",
  "RUNS",
  "INODE",
  "CONTENT_DIGEST",
  "data",
  "file",
]) {
  wholes.add(name);
}
wholes.add("between sections").add("before the data").add("CONFIG");

function mustBeFinding({ file, section, record, problem }: Finding): void {
  must(
    file.startsWith("/"),
    `a finding without a file: ${JSON.stringify({ file, section, record, problem })}`,
  );
  const names = section.split(", ");
  must(
    names.every((name) => sectionNames.has(name) || name === "RUNS" || /^section \d+$/.test(name)),
    `no section: ${section}: ${record}: ${problem}`,
  );
  must(record !== "" || names.every((name) => wholes.has(name)), `no record: ${section}: ${problem}`);
  mustBeMessage(`${file}: ${section}: ${record}: ${problem}`);
}

/** An error that a hostile file may cause. */
function mustBeRefusal(cause: unknown): void {
  if (cause instanceof Corrupt) mustBeFinding(cause);
  else if (cause instanceof Unsupported || cause instanceof LinkError) mustBeMessage(cause.message);
  else if (cause instanceof Wrong) throw cause;
  else {
    const { message } = cause as Error;
    const known =
      (cause as Error).constructor === Error &&
      /: it has entries in .* in the layers below$|: its files and those below have 2\^53 bytes or more together$|: not a layer blob$|: the blob of layer sha256:[0-9a-f]{64} is missing$/s.test(
        message,
      );
    if (!known) throw new Wrong("no way to refuse a file", cause);
    mustBeMessage(message);
  }
}

type Outcome = Said | undefined;

/** What the image said; undefined when it was refused in a proper way. */
function outcome(open: () => Image, copyTo = -1): Outcome {
  let image: Image | undefined;
  try {
    image = open();
    return useImage(image, copyTo);
  } catch (cause) {
    mustBeRefusal(cause);
    return undefined;
  } finally {
    image?.close();
  }
}

const weights = [
  "layer",
  "layer",
  "layer-zstd",
  "layer-zstd",
  "plain",
  "plain-zstd",
  "index",
  "index",
  "index-zstd",
  "flat",
  "flat-zstd",
];

export function imageKind(mode: "raw" | "sealed", folder: string): Kind {
  let seeds: ImageSeeds | undefined;
  let sound: Map<string, Said> | undefined;
  const start = (): ImageSeeds => seeds as ImageSeeds;
  const seedOf = (name: string): ImageSeed => {
    const seed = start().list.find((one) => one.name === name);
    if (seed === undefined) throw new Error(`no seed ${name}`);
    return seed;
  };
  const soundOf = (seed: ImageSeed): Said => {
    sound ??= new Map();
    let said = sound.get(seed.name);
    if (said === undefined) {
      const path = join(start().folder, "sound.imgfs");
      writeFileSync(path, seed.bytes);
      const image = Image.open(path, { verify: true });
      said = useImage(image);
      image.close();
      must(checkImage(path, { data: true }).findings.length === 0, `the seed ${seed.name} is not sound`);
      sound.set(seed.name, said);
    }
    return said;
  };

  return {
    name: `image-${mode}`,
    async begin() {
      seeds = await imageSeeds(folder);
    },
    make(number) {
      const random = new Random(number);
      const seed = seedOf(random.once(100) ? "wide" : random.pick(weights));
      const other = seedOf(random.pick(weights));
      const mutate = mode === "raw" ? mutateRaw : mutateSealed;
      return { label: seed.name, bytes: mutate(random, seed.bytes, other.bytes) };
    },
    async run({ label, bytes }: Input) {
      const seed = seedOf(label);
      const before = soundOf(seed);
      const { folder: home, base } = start();
      const path = join(home, "changed.imgfs");
      const same = bytes.equals(seed.bytes);

      const outside: string[] = [];
      const strict = (damage: Corrupt): never => {
        throw damage;
      };
      const inMemory = outcome(() => Image.inspect(memorySource(path, bytes, outside), strict));
      must(outside.length === 0, `reads outside the file: ${outside.join("; ")}`);

      writeFileSync(path, bytes);
      const copyTo = bytes.length % 7 === 0 ? openSync(join(home, "copy"), "w+") : -1;
      let used: Outcome;
      try {
        used = outcome(() => {
          const image = Image.open(path, { verify: true });
          try {
            image.openBlobs();
          } catch (cause) {
            image.close();
            throw cause;
          }
          return image;
        }, copyTo);
      } finally {
        if (copyTo >= 0) closeSync(copyTo);
      }
      const { findings } = checkImage(path, { data: true });
      for (const finding of findings) mustBeFinding(finding);
      const isSound = findings.length === 0;
      if (used === undefined) must(!isSound, "the reader refuses what the checker calls sound");

      if (mode === "raw") {
        if (used !== undefined) {
          must(used.tree === before.tree, "another tree than that of the sound file");
          if (copyTo < 0) must(used.data === before.data, "other data than that of the sound file");
        }
        must(
          isSound === same,
          same ? "the sound file has findings" : "a change that the checker does not find",
        );
        return;
      }
      if (used !== undefined && inMemory !== undefined) {
        must(used.tree === inMemory.tree, "two readers say different things of a tree");
      }
      if (isSound && used !== undefined) {
        must(used.lost === 0, "a lookup does not find a name that is listed");
        must(inMemory?.tree === used.tree, "what is sound is refused in memory");
      }
      merge(path, base, isSound, home);
      if (bytes.length % 4 === 0) await flatten(path, isSound, home);
    },
  };
}

/** Flattening ends in an error that leaves no file, or in a sound file of the same tree. */
async function flatten(path: string, isSound: boolean, folder: string): Promise<void> {
  const target = join(folder, "merged", "flat.imgfs");
  rmSync(target, { force: true });
  let image: Image | undefined;
  try {
    image = Image.open(path);
    if (image.kind !== "index") return;
    const { treeRoot } = await flattenImage(image, target);
    must(treeRoot === image.treeRoot, "flattening changed the tree");
  } catch (cause) {
    mustBeRefusal(cause);
    must(!isSound, `a sound index is refused by flattening: ${(cause as Error).message}`);
    must(!existsSync(target), "a file is left of an image that was refused");
    return;
  } finally {
    image?.close();
  }
  const { findings } = checkImage(target, { data: true });
  must(!isSound || findings.length === 0, `flattening made damage: ${JSON.stringify(findings[0])}`);
}

/** Merging ends in an error, or in an index that is itself sound, whatever the layers are. */
function merge(path: string, base: string, isSound: boolean, folder: string): void {
  const target = join(folder, "merged", "index.imgfs");
  mkdirSync(join(folder, "merged"), { recursive: true });
  for (const layers of [[path], [base, path], [path, base]]) {
    const images: Image[] = [];
    try {
      for (const layer of layers) images.push(Image.open(layer));
      if (images.some(({ kind }) => kind !== "layer")) return;
      writeFileSync(target, mergeLayers(images));
    } catch (cause) {
      mustBeRefusal(cause);
      must(
        !(isSound && cause instanceof Corrupt),
        `a sound layer is refused by merging: ${(cause as Error).message}`,
      );
      continue;
    } finally {
      for (const image of images) image.close();
    }
    // Its blobs do not lie beside it, and need not.
    const wrong = checkImage(target, { data: false }).findings.filter(
      ({ file, section }) => file === target && section !== "BLOBS",
    );
    must(wrong.length === 0, `merging made an index with damage: ${JSON.stringify(wrong[0])}`);
  }
}
