// Compressed blobs and verified reads on real mounts: the same tree, right bytes whatever the order and the number of
// readers, and of damage an EIO and one line in the log.
import { createHash } from "node:crypto";
import { lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { appendFile, chmod, readFile, truncate } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { noise, oddLayers } from "./make-image.js";
import {
  build,
  cannotMount,
  command,
  compareTrees,
  expectedTree,
  hasCommand,
  imgfs,
  isRunning,
  mount,
  python,
  scratch,
  scratchDirectory,
  shownTree,
  succeed,
  titleOf,
} from "./mounted.js";
import { writeLayout } from "./oci-writer.js";
import { layerTar } from "./tar-writer.js";

const reason = cannotMount ?? (hasCommand("python3") ? undefined : "python3 is missing");

/** Numbers as text: they compress, and no two frames of them are alike. */
function numbers(length: number, from: number): Buffer {
  const text = Buffer.alloc(length);
  for (let at = 0, i = from; at < length; i++) at += text.write(`${i * 7919} `, at);
  return text;
}

/** More frames than the cache holds, some that do not compress, and many files in one. */
const contents: Readonly<Record<string, Buffer>> = {
  large: numbers(24 << 20, 1),
  middle: numbers(5 << 20, 50_000_000),
  noise: noise(3 << 20),
  zeros: Buffer.alloc(1 << 20),
  ...Object.fromEntries(
    Array.from({ length: 300 }, (_, i) => [`small-${i}`, numbers(100 + i * 37, 900_000_000 + i * 1000)]),
  ),
};

const sha = (data: Buffer): string => createHash("sha256").update(data).digest("hex");
const facts = async (image: string) => JSON.parse((await imgfs("inspect", image, "--json")).stdout);
const code = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "ok",
    (cause: NodeJS.ErrnoException) => String(cause.code),
  );
const blobIn = (folder: string): string =>
  join(folder, readdirSync(folder).find((name) => /^[0-9a-f]{64}\..*imgfs$/.test(name)) as string);

/** An image folder with one byte of its blob changed: `distance` bytes after `marker`, or at that offset. */
function damaged(image: string, marker: Buffer | number, distance = 0): { folder: string; blob: string } {
  const folder = scratchDirectory("damaged");
  for (const name of readdirSync(image)) writeFileSync(join(folder, name), readFileSync(join(image, name)));
  const blob = blobIn(folder);
  const bytes = readFileSync(blob);
  const at = (typeof marker === "number" ? marker : bytes.indexOf(marker)) + distance;
  bytes[at] = (bytes[at] as number) ^ 0x20;
  writeFileSync(blob, bytes);
  return { folder, blob };
}

const dataOffsetOf = (blob: string): number => Number(readFileSync(blob).readBigUInt64LE(0x30));
const damageLines = (log: string): string[] =>
  readFileSync(log, "utf8")
    .split("\n")
    .filter((line) => line.includes("damage in the image"));

/** Files of an upper directory that hold data: more than the one block that xattrs may take. */
const dataIn = (upper: string): string[] =>
  readdirSync(upper).filter((name) => lstatSync(join(upper, name)).blocks > 8);

describe.skipIf(reason)(titleOf("a compressed image", reason), () => {
  let source: string;
  let plain: string;
  let packed: string;

  beforeAll(async () => {
    source = scratch("layer.tar");
    const entries = Object.entries(contents).map(([name, data]) => ({ name, data }));
    writeFileSync(source, layerTar(entries));
    plain = await build(`tar:${source}`);
    packed = await build(`tar:${source}`, "--codec", "zstd:1");
  });

  it("shows every oddity as the layers say it, with the tree root of the plain one", async () => {
    const layout = scratch("layout");
    writeLayout(layout, oddLayers());
    const [odd, oddPlain] = [await build(`oci:${layout}`, "--codec=zstd"), await build(`oci:${layout}`)];
    const [a, b] = [await facts(odd), await facts(oddPlain)];
    expect([a.codec, b.codec, a.treeRoot]).toEqual(["zstd:3", "none", b.treeRoot]);
    expect(a.rootDigest).not.toBe(b.rootDigest);
    const { path } = await mount(odd, "--devices");
    expect(await compareTrees(await expectedTree(layout), await shownTree(path))).toBeGreaterThan(2700);
  });

  it("is built beside the plain one, and built again from what is there", async () => {
    const again = JSON.parse(
      await succeed(command, [
        ...["build", `tar:${source}`, plain, "--codec", "zstd:1", "--progress=none", "--json"],
      ]),
    );
    expect(again.layers[0].summary).toMatchObject({ codec: "zstd:1", rawSize: expect.any(Number) });
    expect(again.layers[0].summary.dataSize).toBeLessThan(again.layers[0].summary.rawSize * 0.6);
    const blobs = readdirSync(plain).filter((name) => /^[0-9a-f]{64}/.test(name));
    expect(blobs.map((name) => name.slice(64)).sort()).toEqual([".imgfs", ".zstd-1.imgfs"]);
    expect((await imgfs("check", "--data", plain)).code).toBe(0);
    plain = await build(`tar:${source}`);
    expect((await facts(packed)).ratio).toBeLessThan(0.6);
    for (const [bad, text] of [
      ["zstd:20", "not a codec"],
      ["lzma", "not a codec"],
    ] as const) {
      const { code, stderr } = await imgfs("build", `tar:${source}`, scratch("never"), "--codec", bad);
      expect([code, stderr.includes(text)]).toEqual([2, true]);
    }
  });

  it("gives the right bytes to many readers in any order, to mmap and to cat", async () => {
    const folder = scratchDirectory("expected");
    for (const [name, data] of Object.entries(contents)) writeFileSync(join(folder, name), data);
    const { path } = await mount(packed);
    const readers = `
import mmap, os, random, sys, threading
mnt, want = sys.argv[1:]
names = [n for n in sorted(os.listdir(want))]
data = {n: open(os.path.join(want, n), 'rb').read() for n in names}
wrong = []
def reader(seed):
    r = random.Random(seed)
    for step in range(250):
        n = r.choice(['large', 'middle', 'noise', 'zeros'] if r.random() < 0.6 else names)
        fd = os.open(os.path.join(mnt, n), os.O_RDONLY)
        if r.random() < 0.7: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        at = r.randrange(len(data[n])); count = r.choice([1, 4096, 70000, 400000])
        if os.pread(fd, count, at) != data[n][at:at + count]: wrong.append((n, at, count))
        if step % 50 == 0: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
threads = [threading.Thread(target=reader, args=(i,)) for i in range(8)]
for t in threads: t.start()
for t in threads: t.join()
for n in ('large', 'noise'):
    with open(os.path.join(mnt, n), 'rb') as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        order = list(range(0, len(m), 4096)); random.Random(1).shuffle(order)
        if any(m[at:at + 4096] != data[n][at:at + 4096] for at in order): wrong.append((n, 'mmap'))
print(wrong)
`;
    expect(await python(readers, path, folder)).toBe("[]");
    for (const [name, data] of Object.entries(contents)) {
      expect(sha(await readFile(join(path, name)))).toBe(sha(data));
    }
    const { stdout } = await imgfs("cat", packed, "middle");
    expect(stdout).toBe((contents["middle"] as Buffer).toString());
  });

  it("is copied up whole, large files by a helper", async () => {
    const { at, unmount } = await mount(packed, "--upper", scratch("upper"));
    // With copies of metadata alone the data come later.
    await chmod(at("middle"), 0o600);
    await Promise.all(["large", "middle", "small-7", "zeros"].map((name) => appendFile(at(name), "more")));
    await truncate(at("noise"), 1000);
    for (const name of ["large", "middle", "small-7", "zeros"]) {
      expect(sha(await readFile(at(name)))).toBe(
        sha(Buffer.concat([contents[name] as Buffer, Buffer.from("more")])),
      );
    }
    expect((await readFile(at("noise"))).equals((contents["noise"] as Buffer).subarray(0, 1000))).toBe(true);
    await unmount();
  });

  it("with a damaged frame gives EIO there, one line, and everything else", async () => {
    const offset = dataOffsetOf(blobIn(packed));
    const { folder, blob } = damaged(packed, offset, 10);
    const log = scratch("log");
    const upper = scratch("upper");
    mkdirSync(upper);
    const { at, pid, unmount } = await mount(folder, "--upper", upper, "--log", log);
    const readTwice = [await code(readFile(at("large"))), await code(readFile(at("large")))];
    expect(readTwice).toEqual(["EIO", "EIO"]);
    expect(await code(appendFile(at("large"), "x"))).toBe("EIO");
    expect(dataIn(upper)).toEqual([]);
    expect(sha(await readFile(at("middle")))).toBe(sha(contents["middle"] as Buffer));
    const tail = `import os, sys; f = os.open(sys.argv[1], os.O_RDONLY); print(len(os.pread(f, 5000, 20 << 20)))`;
    expect(await python(tail, at("large"))).toBe("5000");
    expect(damageLines(log)).toHaveLength(1);
    expect(damageLines(log)[0]).toContain(`${blob}: data: frame 0: stored bytes differ from their digest`);
    expect(isRunning(pid)).toBe(true);
    await unmount();
    const cat = await imgfs("cat", folder, "large");
    expect([cat.code, cat.stderr.includes("frame 0: stored bytes differ")]).toEqual([1, true]);
    const checked = await imgfs("check", "--data", folder);
    expect([checked.code, checked.stdout.match(/frame 0/g)?.length]).toEqual([3, 1]);
    expect((await imgfs("check", folder)).code).toBe(0);
  });

  it("whose table of frames was changed is refused", async () => {
    const bytes = readFileSync(blobIn(packed));
    const sections = Array.from({ length: bytes.readUInt32LE(0x58) }, (_, i) => 0x100 + i * 32);
    const frames = sections.find((at) => bytes.readUInt16LE(at) === 35) as number;
    const { folder } = damaged(packed, Number(bytes.readBigUInt64LE(frames + 8)), 9);
    const log = scratch("log");
    const { at } = await mount(folder, "--log", log);
    expect(await code(readFile(at("large")))).toBe("EIO");
    expect(damageLines(log).join()).toContain("FRAME");
    expect((await imgfs("check", folder)).code).toBe(3);
  });

  describe("mount --verify of plain data", () => {
    it("gives EIO for a damaged file, one line each, and everything else", async () => {
      const large = damaged(plain, (contents["middle"] as Buffer).subarray(0, 64), 3 << 20);
      const twice = damaged(large.folder, (contents["small-200"] as Buffer).subarray(0, 64), 70);
      const checked = await mount(twice.folder);
      expect(sha(await readFile(checked.at("middle")))).not.toBe(sha(contents["middle"] as Buffer));
      await checked.unmount();

      const log = scratch("log");
      const upper = scratch("upper");
      mkdirSync(upper);
      const { at, unmount } = await mount(twice.folder, "--verify", "--upper", upper, "--log", log);
      for (const name of ["middle", "small-200"]) {
        const all = await Promise.all([1, 2, 3].map(() => code(readFile(at(name)))));
        expect(all).toEqual(["EIO", "EIO", "EIO"]);
        expect(await code(appendFile(at(name), "x"))).toBe("EIO");
      }
      expect(dataIn(upper)).toEqual([]);
      // What is cut away is not asked for.
      await chmod(at("small-200"), 0o600);
      expect([await code(readFile(at("small-200"))), await code(appendFile(at("small-200"), "x"))]).toEqual([
        "EIO",
        "EIO",
      ]);
      await python("import os, sys; os.truncate(sys.argv[1], 0)", at("middle"));
      await appendFile(at("middle"), "new");
      expect(readFileSync(at("middle"), "utf8")).toBe("new");
      await appendFile(at("large"), "more");
      for (const name of ["noise", "zeros", "small-7"]) {
        expect(sha(await readFile(at(name)))).toBe(sha(contents[name] as Buffer));
      }
      expect(sha(await readFile(at("large")))).toBe(
        sha(Buffer.concat([contents["large"] as Buffer, Buffer.from("more")])),
      );
      const lines = damageLines(log);
      expect(lines).toHaveLength(2);
      for (const line of lines) {
        expect(line).toMatch(/content \d+, from byte \d+: \d+ bytes differ from their digest/);
        expect(line).toContain(twice.blob);
      }
      await unmount();
    });
  });
});
