// Figures of the on-disk format: writing a layer, opening, lookups, memory, merging, codecs. Runs the built files (IMGFS_DIST,
// default dist); trees are synthetic with names as in /usr, the same on every run. Temporary files go to TMPDIR.
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const dist = process.env.IMGFS_DIST ?? fileURLToPath(new URL("../../dist", import.meta.url));
const load = (path) => import(pathToFileURL(join(dist, path)).href);
const { LayerWriter } = await load("imgfs/writer.js");
const { Image } = await load("imgfs/image.js");
const { mergeLayers } = await load("imgfs/merge.js");
const { sha256 } = await load("base/digest.js");
const { parseCodec } = await load("imgfs/codec.js");
const { allocatePages } = await load("sys/memory.js");

/** A small generator of numbers in [0, n), so that every run sees the same tree. */
function randomFrom(seed) {
  let state = seed >>> 0;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 0x1_0000_0000) * n);
  };
}

const stems =
  "lib python3 site-packages index util core test module config locale share doc man zoneinfo perl5 node_modules include linux gcc dist-packages icons apps scalable mime".split(
    " ",
  );
const suffixes = ".py .pyc .so .so.1 .h .js .json .md .mo .gz .svg .png .a .txt .conf".split(" ");
const meta = { mode: 0o644, uid: 0, gid: 0, mtimeNsec: 0, xattrs: [] };

function directory() {
  return {
    type: 0o040000,
    ...meta,
    mode: 0o755,
    mtimeSec: 1_700_000_000,
    entries: new Map(),
    opaque: false,
    explicit: true,
  };
}

/** About `count` entries: one directory for ten, every fifteenth a symlink. `content(i)` gives a file's content. */
function tree(count, seed, content) {
  const random = randomFrom(seed);
  const root = directory();
  const directories = [root];
  for (let i = 1; i < count; i++) {
    const parent = directories[random(directories.length)];
    const stem = stems[random(stems.length)];
    const mtimeSec = 1_600_000_000 + random(100_000_000);
    if (i % 10 === 0) {
      const child = directory();
      parent.entries.set(`${stem}${random(900)}d${i % 97}`, child);
      directories.push(child);
    } else if (i % 15 === 0) {
      const target = Buffer.from(`../${stem}/${stems[random(stems.length)]}`);
      parent.entries.set(`${stem}-${random(9999)}.so`, {
        type: 0o120000,
        ...meta,
        mode: 0o777,
        mtimeSec,
        target,
      });
    } else {
      const name = `${stem}_${random(100_000)}${suffixes[random(suffixes.length)]}`;
      parent.entries.set(name, { type: 0o100000, ...meta, mtimeSec, content: content(i) });
    }
  }
  return root;
}

/** Writes a layer of about `count` entries with a distinct 16-byte content for six files of seven. */
function writeLayer(path, count, seed) {
  const writer = LayerWriter.create(path);
  const bytes = Buffer.alloc(16);
  const root = tree(count, seed, (i) => {
    writer.beginContent();
    bytes.writeUInt32LE(i % 7 === 0 ? 1 : i);
    bytes.writeUInt32LE(seed, 8);
    writer.append(bytes);
    return writer.endContent();
  });
  return writer.finish(root, sha256(Buffer.from(path)));
}

function anonymousBytes() {
  const match = /RssAnon:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"));
  return Number(match[1]) * 1024;
}

function median(values) {
  return values.sort((a, b) => a - b)[values.length >> 1];
}

function timed(run) {
  const start = process.hrtime.bigint();
  run();
  return Number(process.hrtime.bigint() - start) / 1e6;
}

function report(what, value, unit, limit) {
  const verdict =
    limit === undefined ? "" : value <= limit ? `  (limit ${limit}, ok)` : `  (limit ${limit}, MISSED)`;
  const digits = value < 10 ? 3 : 1;
  console.log(`${what.padEnd(52)} ${value.toFixed(digits).padStart(9)} ${unit}${verdict}`);
}

/** Every directory with its entries' names, for lookups and walks. */
function names(image) {
  const found = [];
  const entry = { row: 0, type: 0, bytes: Buffer.alloc(0), start: 0, end: 0 };
  for (let row = 0; row < image.directoryCount; row++) {
    for (let i = 0, n = image.entryCount(row); i < n; i++) {
      image.entry(row, i, entry);
      found.push({ row, child: entry.row, bytes: Buffer.from(entry.bytes.subarray(entry.start, entry.end)) });
    }
  }
  return found;
}

function lookups(image) {
  const random = randomFrom(7);
  const all = names(image);
  const sample = Array.from({ length: 200_000 }, () => all[random(all.length)]);
  const pack = Buffer.concat(sample.map(({ bytes }) => bytes));
  const rows = Int32Array.from(sample, ({ row }) => row);
  const ends = new Int32Array(sample.length);
  sample.reduce((at, { bytes }, i) => (ends[i] = at + bytes.length), 0);
  const missing = Buffer.from(pack);
  for (let i = 0; i < ends.length; i++) missing[ends[i] - 1] ^= 1;
  const pass = (bytes) => {
    let start = 0;
    let hits = 0;
    for (let i = 0; i < rows.length; i++) {
      const row = image.lookup(rows[i], bytes, start, ends[i]);
      if (row >= 0) {
        hits++;
        image.mode(row);
        image.size(row);
        image.mtimeSec(row);
      }
      start = ends[i];
    }
    return hits;
  };
  const times = (bytes) =>
    median(Array.from({ length: 7 }, () => (timed(() => pass(bytes)) * 1e6) / rows.length));
  if (pass(pack) !== rows.length) throw new Error("a lookup missed");
  report(`lookup with attributes, hit, ${all.length} entries`, times(pack) / 1000, "us", 1);
  report(`lookup, miss (${pass(missing)} hits by chance)`, times(missing) / 1000, "us", 0.5);
  return all.length;
}

/** In a process of its own, so that the heap of building the tree does not count. */
function childMain(path) {
  const open = median(
    Array.from({ length: 9 }, () => {
      let image;
      const time = timed(() => {
        image = Image.open(path);
      });
      image.close();
      return time;
    }),
  );
  global.gc();
  const before = anonymousBytes();
  const image = Image.open(path);
  const opened = anonymousBytes() - before;
  const entry = { row: 0, type: 0, bytes: Buffer.alloc(0), start: 0, end: 0 };
  let entries = 0;
  const walk = timed(() => {
    for (let row = 0; row < image.directoryCount; row++) {
      for (let i = 0, n = image.entryCount(row); i < n; i++) {
        image.entry(row, i, entry);
        image.mode(entry.row);
        image.size(entry.row);
        entries++;
      }
    }
  });
  global.gc();
  const touched = anonymousBytes() - before;
  report(`open, ${entries} entries`, open, "ms", 5);
  report("anonymous memory after open", opened / 1e6, "MB");
  report("first walk of everything, verifying each page", walk, "ms");
  report("anonymous memory per 100,000 entries, all touched", touched / 1e6 / (entries / 1e5), "MB", 8);
  lookups(image);
}

/** 1 GiB in 1 MiB chunks; on tmpfs the disk does not count, but finish() has to copy. */
function writing(folder, where) {
  const chunk = Buffer.alloc(1 << 20);
  for (let i = 0; i < chunk.length; i++) chunk[i] = (i * 7) & 0xff;
  const path = join(folder, "big");
  const writer = LayerWriter.create(path);
  const root = directory();
  const megabytes = 1024;
  const time = timed(() => {
    for (let i = 0; i < 8; i++) {
      writer.beginContent();
      for (let k = 0; k < megabytes / 8; k++) {
        chunk.writeUInt32LE(i * 1000 + k);
        writer.append(chunk);
      }
      root.entries.set(`f${i}`, { type: 0o100000, ...meta, mtimeSec: 0, content: writer.endContent() });
    }
  });
  const speed = (megabytes * 1.048576) / (time / 1000);
  report(`append with sha256, ${where}`, speed, "MB/s");
  report(
    `finish of 1 GiB, ${where}`,
    timed(() => writer.finish(root, sha256(chunk))),
    "ms",
  );
  rmSync(path);
}

/** In a process of its own: what the writer takes beside the tree that it is given. */
function writeChild(path) {
  global.gc();
  const start = anonymousBytes();
  const writer = LayerWriter.create(path);
  const bytes = Buffer.alloc(16);
  let root;
  const appending = timed(() => {
    root = tree(300_000, 3, (i) => {
      writer.beginContent();
      bytes.writeUInt32LE(i);
      writer.append(bytes);
      return writer.endContent();
    });
  });
  global.gc();
  const built = anonymousBytes();
  const finishing = timed(() => writer.finish(root, sha256(bytes)));
  report("300,000 small files: tree and contents", appending, "ms");
  report("300,000 small files: finish", finishing, "ms");
  report("anonymous memory of tree and contents", (built - start) / 1e6, "MB");
  report("anonymous memory that finish adds, garbage and all", (anonymousBytes() - built) / 1e6, "MB", 200);
}

function merging(scratch, layers) {
  const images = [];
  for (let layer = 0; layer < layers; layer++) {
    const path = join(scratch, `m${layers}-${layer}`);
    writeLayer(path, Math.round(150_000 / layers), layer + 1);
    images.push(Image.open(path));
  }
  const entries = images.reduce((sum, image) => sum + image.entryTotal, 0);
  // The first one reads and verifies the layers, in code that is not compiled yet.
  const first = timed(() => mergeLayers(images));
  const time = median(Array.from({ length: 7 }, () => timed(() => mergeLayers(images))));
  report(`merge ${layers} layers of ${entries} entries in all, first`, first, "ms");
  report(`merge ${layers} layers of ${entries} entries in all`, time, "ms", 150);
  for (const image of images) image.close();
}

/** Content like that of a system: half of it this Node's own code, which compresses as programs do, half text. */
function mixture(size) {
  const program = readFileSync(process.execPath);
  const random = randomFrom(11);
  const data = Buffer.alloc(size);
  for (let at = 0; at < size; at += 1 << 16) {
    const piece = Math.min(1 << 16, size - at);
    if (random(2) === 0) program.copy(data, at, random(program.length - piece), program.length);
    else
      for (let end = at; end < at + piece; )
        end += data.write(`${stems[random(stems.length)]}_${random(9999)} `, end);
  }
  return data;
}

/** One file of 64 MiB with and without a codec: what storing and reading it costs. */
function codecs(folder) {
  const data = mixture(64 << 20);
  const region = allocatePages(1 << 20);
  const target = { address: region.address, bytes: region.bytes, start: 0 };
  for (const text of ["none", "zstd:1", "zstd:3", "zstd:9"]) {
    const path = join(folder, `codec-${text}`);
    const root = directory();
    let summary;
    const writing = timed(() => {
      const writer = LayerWriter.create(path, parseCodec(text));
      writer.beginContent();
      for (let at = 0; at < data.length; at += 1 << 20) writer.append(data.subarray(at, at + (1 << 20)));
      root.entries.set("data", { type: 0o100000, ...meta, mtimeSec: 0, content: writer.endContent() });
      summary = writer.finish(root, sha256(data.subarray(0, 1)));
    });
    report(`${text}: stored bytes`, (100 * summary.dataSize) / summary.rawSize, "% of raw");
    report(`${text}: write with sha256`, data.length / 1000 / writing, "MB/s");
    const image = Image.open(path);
    const row = image.lookup(0, Buffer.from("data"), 0, 4);
    const pass = () => {
      for (let at = 0; at < data.length; at += 1 << 20) image.read(row, at, target, 1 << 20);
    };
    pass();
    report(`${text}: read in order, every frame decoded`, data.length / 1000 / timed(pass), "MB/s");
    const random = randomFrom(13);
    const times = Array.from({ length: 2000 }, () => {
      const at = random(data.length >> 12) * 4096;
      return timed(() => image.read(row, at, target, 4096)) * 1000;
    });
    report(`${text}: read 4 KiB anywhere, median`, median(times), "us");
    image.close();
    rmSync(path);
  }
}

/** The images in IMGFS_CORPUS, layouts as the end-to-end tests use them. */
async function storedSizes(folder) {
  const corpus = process.env.IMGFS_CORPUS;
  if (corpus === undefined) return;
  const { buildImage } = await load("builder/image.js");
  for (const name of ["debian", "python-node"]) {
    const sizes = {};
    for (const text of ["none", "zstd:3"]) {
      const result = await buildImage(`oci:${join(corpus, name)}`, join(folder, name), {
        codec: parseCodec(text),
      });
      sizes[text] = result.layers.reduce((sum, layer) => sum + layer.summary.fileSize, 0);
      report(`build of ${name}, ${text}`, result.milliseconds, "ms");
    }
    report(`blobs of ${name}, zstd:3`, (100 * sizes["zstd:3"]) / sizes.none, "% of none");
  }
}

function child(flag, path) {
  execFileSync(process.execPath, ["--expose-gc", process.argv[1], flag, path], { stdio: "inherit" });
}

if (process.argv[2] === "--read") childMain(process.argv[3]);
else if (process.argv[2] === "--write") writeChild(process.argv[3]);
else {
  const scratch = mkdtempSync(join(tmpdir(), "imgfs-bench-"));
  try {
    writing(scratch, "disk");
    if (existsSync("/dev/shm")) {
      const shared = mkdtempSync("/dev/shm/imgfs-bench-");
      try {
        writing(shared, "tmpfs");
      } finally {
        rmSync(shared, { recursive: true, force: true });
      }
    }
    child("--write", join(scratch, "layer"));
    writeLayer(join(scratch, "one"), 500_000, 1);
    const layer = Image.open(join(scratch, "one"));
    writeFileSync(join(scratch, "index"), mergeLayers([layer]));
    layer.close();
    child("--read", join(scratch, "index"));
    merging(scratch, 5);
    merging(scratch, 128);
    codecs(scratch);
    await storedSizes(scratch);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
