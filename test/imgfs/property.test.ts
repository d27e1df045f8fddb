// Random trees against a model in plain maps, and random damage: correct output or an error, nothing else.
import { readFileSync, writeFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Name, nameOf } from "../../src/base/bytes.js";
import { checkImage } from "../../src/imgfs/check.js";
import { noCodec, parseCodec } from "../../src/imgfs/codec.js";
import { Corrupt, LinkError, Unsupported } from "../../src/imgfs/errors.js";
import { Image } from "../../src/imgfs/image.js";
import { mergeLayers } from "../../src/imgfs/merge.js";
import { type DirectoryInode, InodeType, type LayerEntry } from "../../src/imgfs/tree.js";
import { reseal } from "./reseal.js";
import {
  device,
  directory,
  file,
  list,
  noise,
  scratch,
  symlink,
  whiteout,
  writeLayer,
  xattr,
} from "./support.js";

const nameByte = fc.integer({ min: 1, max: 255 }).filter((byte) => byte !== 0x2f);
const anyName = fc
  .oneof(
    { weight: 5, arbitrary: fc.constantFrom("a", "b", "c", "d", "e") },
    {
      weight: 1,
      arbitrary: fc
        .array(nameByte, { minLength: 1, maxLength: 255 })
        .map((bytes) => nameOf(Buffer.from(bytes))),
    },
  )
  .filter((name) => name !== "." && name !== "..")
  .map((name) => name as Name);

const meta = fc.record({
  mode: fc.integer({ min: 0, max: 0o7777 }),
  uid: fc.integer({ min: 0, max: 0xffff_fffe }),
  gid: fc.constantFrom(0, 1000, 0xffff_fffe),
  mtimeSec: fc.oneof(fc.integer({ min: -(2 ** 31), max: 2 ** 31 }), fc.maxSafeInteger()),
  mtimeNsec: fc.integer({ min: 0, max: 999_999_999 }),
  xattrs: fc
    .dictionary(
      fc.constantFrom("user.a", "user.b", "security.capability"),
      fc.uint8Array({ maxLength: 300 }),
      { maxKeys: 2 },
    )
    .map((set) => Object.entries(set).map(([name, value]) => xattr(name, Buffer.from(value)))),
});

const piece = fc.oneof(
  fc.integer({ min: 1, max: 9000 }),
  fc
    .tuple(fc.integer({ min: 0, max: 9000 }), fc.integer({ min: 0, max: 3 }))
    .map(([length, fill]) => Buffer.alloc(length, fill)),
);

type Model = Map<Name, ModelEntry>;
type ModelEntry =
  | { kind: "whiteout" }
  | { kind: "file"; data: string; meta: object }
  | { kind: "symlink"; target: string; meta: object }
  | { kind: "device"; rdev: number; meta: object }
  | {
      kind: "directory";
      opaque: boolean;
      explicit: boolean;
      meta: object;
      entries: Model;
      conflict?: boolean;
    };

const { entries: modelEntries } = fc.letrec<{ entry: ModelEntry; entries: Model }>((tie) => ({
  entry: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.record({
      kind: fc.constant("file" as const),
      data: fc.array(piece, { maxLength: 4 }).map(encode),
      meta,
    }),
    fc.record({ kind: fc.constant("symlink" as const), target: anyName, meta }),
    fc.record({ kind: fc.constant("device" as const), rdev: fc.integer({ min: 0, max: 0xffff_ffff }), meta }),
    fc.record({ kind: fc.constant("whiteout" as const) }),
    fc.record({
      kind: fc.constant("directory" as const),
      opaque: fc.boolean(),
      explicit: fc.boolean(),
      meta,
      entries: tie("entries"),
    }),
  ) as fc.Arbitrary<ModelEntry>,
  entries: fc.array(fc.tuple(anyName, tie("entry")), { maxLength: 8 }).map((pairs) => new Map(pairs)),
}));

/** Pieces as a string, so that models can be compared: data as latin1, holes as numbers. */
function encode(pieces: ReadonlyArray<Buffer | number>): string {
  return JSON.stringify(pieces.map((one) => (typeof one === "number" ? one : one.toString("latin1"))));
}

function decode(data: string): (Buffer | number)[] {
  return (JSON.parse(data) as (string | number)[]).map((one) =>
    typeof one === "number" ? one : Buffer.from(one, "latin1"),
  );
}

function plain(data: string): string {
  return decode(data)
    .map((one) => (typeof one === "number" ? "\0".repeat(one) : one.toString("latin1")))
    .join("");
}

function build(entries: Model, how: { opaque: boolean; explicit: boolean; meta: object }): DirectoryInode {
  const built = [...entries].map(([name, entry]): readonly [Name, LayerEntry] => {
    switch (entry.kind) {
      case "whiteout":
        return [name, whiteout];
      case "file":
        return [name, file(decode(entry.data), entry.meta)];
      case "symlink":
        return [name, symlink(Buffer.from(entry.target, "latin1"), entry.meta)];
      case "device":
        return [name, device(InodeType.char, entry.rdev, entry.meta)];
      default:
        return [name, build(entry.entries, entry)];
    }
  });
  return directory(built, { ...how.meta, opaque: how.opaque, explicit: how.explicit });
}

interface Flat {
  path: string;
  meta: object | undefined;
  data?: string;
  target?: string;
  rdev?: number;
}

/**
 * Merges models the slow, obvious way: layer by layer, path by path. A directory that is only implied where something
 * else lies below is a conflict, which is one only if it is still there in the end.
 */
function apply(lower: Model, upper: Model): Model {
  const result: Model = new Map(lower);
  for (const [name, entry] of upper) {
    if (entry.kind === "whiteout") result.delete(name);
    else if (entry.kind === "directory") {
      const below = result.get(name);
      const united = below?.kind === "directory" ? below : undefined;
      const described = entry.explicit ? entry : united;
      const conflict =
        !entry.explicit && below !== undefined && (united === undefined || united.conflict === true);
      result.set(name, {
        kind: "directory",
        opaque: false,
        explicit: described?.explicit ?? false,
        meta: described?.meta ?? {},
        entries: apply(entry.opaque ? new Map() : (united?.entries ?? new Map()), entry.entries),
        conflict,
      });
    } else result.set(name, entry);
  }
  return result;
}

function hasConflict(model: Model): boolean {
  return [...model.values()].some(
    (entry) => entry.kind === "directory" && (entry.conflict === true || hasConflict(entry.entries)),
  );
}

function flatten(entries: Model, prefix = ""): Flat[] {
  return [...entries].flatMap(([name, entry]): Flat[] => {
    const path = `${prefix}${name}`;
    switch (entry.kind) {
      case "whiteout":
        return [];
      case "file":
        return [{ path, meta: entry.meta, data: plain(entry.data) }];
      case "symlink":
        return [{ path, meta: entry.meta, target: entry.target }];
      case "device":
        return [{ path, meta: entry.meta, rdev: entry.rdev }];
      default:
        return [
          { path, meta: entry.explicit ? entry.meta : undefined },
          ...flatten(entry.entries, `${path}/`),
        ];
    }
  });
}

function described(meta: object | undefined): object {
  if (meta === undefined) return { mode: 0o755, owner: "0:0", mtime: "0.0", xattrs: {} };
  const { mode, uid, gid, mtimeSec, mtimeNsec, xattrs } = meta as Required<
    Parameters<typeof file>[1] & object
  >;
  return {
    mode,
    owner: `${uid}:${gid}`,
    mtime: `${mtimeSec}.${mtimeNsec}`,
    xattrs: Object.fromEntries(xattrs.map(({ name, value }) => [name, value.toString("latin1")])),
  };
}

function expectModel(image: Image, model: Model): void {
  const actual = list(image)
    .slice(1)
    .map(({ path, mode, owner, mtime, xattrs = {}, data, target, rdev }) => ({
      path,
      mode: Number.parseInt(mode as string, 8) & 0o7777,
      owner,
      mtime,
      xattrs: { ...xattrs },
      data,
      target,
      rdev,
    }));
  const expected = flatten(model)
    .sort((a, b) => (a.path < b.path ? -1 : 1))
    .map(({ path, meta: own, data, target, rdev }) => ({
      path,
      ...described(own),
      ...(target === undefined ? {} : { mode: 0o777 }),
      data,
      target,
      rdev,
    }));
  expect(actual).toEqual(expected);
}

const codecs = [noCodec, parseCodec("zstd:1")];
const how = { opaque: false, explicit: true, meta: {} };
const runs = process.env["IMGFS_SOAK"] === "1" ? 2000 : 150;

describe("random trees", () => {
  it("come out of layers, merged, as the obvious merge makes them, and are sound", () => {
    fc.assert(
      fc.property(fc.array(modelEntries, { minLength: 1, maxLength: 4 }), (models) => {
        // Every other layer compressed: codecs do not change what an image is.
        const paths = models.map(
          (entries, i) => writeLayer(build(entries, how), undefined, undefined, codecs[i % 2]).path,
        );
        const model = models.reduce((lower, upper) => apply(lower, upper), new Map() as Model);
        if (hasConflict(model)) expect(() => Image.stack(paths)).toThrow("in the layers below");
        else {
          const image = Image.stack(paths);
          expectModel(image, model);
          image.close();
        }
        for (const path of paths) expect(checkImage(path, { data: true }).findings).toEqual([]);
      }),
      { numRuns: runs },
    );
  });
});

/** Whether everything an image offers can be used, or is refused in a proper way. */
function useAll(path: string): "fine" | "refused" {
  let image: Image | undefined;
  try {
    image = Image.open(path);
    list(image);
    for (let row = 0; row < image.directoryCount; row++) image.path(row);
    mergeLayers([image]);
    return "fine";
  } catch (cause) {
    if (cause instanceof Corrupt || cause instanceof Unsupported || cause instanceof LinkError)
      return "refused";
    throw cause;
  } finally {
    image?.close();
  }
}

describe.each(codecs)("random damage with codec $name", (codec) => {
  const { path } = writeLayer(
    directory({
      a: file("one"),
      b: file([4096, "two", 50]),
      c: directory({ d: symlink("x"), e: whiteout, f: directory({ g: file("g", { mtimeSec: 2 ** 40 }) }) }),
      h: file("h", { xattrs: [xattr("user.x", "y")] }),
      i: file([Buffer.alloc(133_000, "frames"), 300_000, noise(5000)]),
    }),
    undefined,
    undefined,
    codec,
  );
  const sound = readFileSync(path);
  const metaEnd = Number(sound.readBigUInt64LE(0x28));
  const target = `${scratch}/damaged.imgfs`;
  const change = fc.record({
    at: fc.oneof(fc.integer({ min: 0, max: metaEnd - 1 }), fc.integer({ min: 4096, max: metaEnd - 1 })),
    bytes: fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 4 }),
      fc.constantFrom(
        Uint8Array.of(0xff, 0xff, 0xff, 0xff),
        Uint8Array.of(0, 0, 0, 0),
        Uint8Array.of(1, 0, 0, 0),
      ),
    ),
  });

  it("with digests that no longer fit never gives wrong output", () => {
    const image = Image.open(path);
    const expected = JSON.stringify(list(image));
    image.close();
    fc.assert(
      fc.property(change, ({ at, bytes }) => {
        const damaged = Buffer.from(sound);
        damaged.set(bytes.subarray(0, damaged.length - at), at);
        writeFileSync(target, damaged);
        if (useAll(target) === "refused") return;
        const again = Image.open(target);
        expect(JSON.stringify(list(again))).toBe(expected);
        again.close();
      }),
      { numRuns: runs * (codec === noCodec ? 4 : 2) },
    );
  });

  it("with digests made to fit is refused only where the checker finds it, and never does harm", () => {
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 3 }), (changes) => {
        const damaged = Buffer.from(sound);
        for (const { at, bytes } of changes) damaged.set(bytes.subarray(0, metaEnd - at), at);
        try {
          reseal(damaged);
        } catch {
          // A section table too wild to seal is tried as it is.
        }
        writeFileSync(target, damaged);
        const used = useAll(target);
        // A change may make another sound file; what the checker calls sound must be usable throughout.
        const { findings } = checkImage(target, { data: true });
        if (used === "refused") expect(findings.length).toBeGreaterThan(0);
      }),
      { numRuns: runs * (codec === noCodec ? 8 : 4) },
    );
  });
});
