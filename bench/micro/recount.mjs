// How fast an upper directory is counted (what a mount with a quota does after an end that was not clean, and imgfs du
// always), warm, in objects a second. Runs the built files (IMGFS_DIST, default dist).
//   node bench/micro/recount.mjs          a tree as npm makes it, in TMPDIR: 100,000 objects, most of them small files
//   node bench/micro/recount.mjs DIR...   these, as if they were uppers; nothing is changed in them
// Each tree is counted as one that only holds what was made in it, then as one whose directories are copies of the image's
// (every file is asked for an origin), then as one with reserved blocks (every file is asked for those), and as one of
// which nothing is known. Medians of seven rounds, in turn; CPU seconds beside those on the clock.
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const dist = process.env.IMGFS_DIST ?? fileURLToPath(new URL("../../dist", import.meta.url));
const load = (path) => import(pathToFileURL(join(dist, path)).href);
const { countUpper } = await load("overlay/quota/count.js");

const OBJECTS = 100_000;
const ROUNDS = 7;

/** Packages with folders of some files each, mostly below 4 KiB. */
function makeTree(root) {
  let state = 1;
  const random = (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 0x1_0000_0000) * n);
  };
  const bytes = Buffer.alloc(200_000, 1);
  for (let made = 0, pack = 0; made < OBJECTS; pack++) {
    for (let folder = 0; folder < 1 + random(5); folder++) {
      const path = join(root, `node_modules/package-${pack}`, folder === 0 ? "" : `lib/folder-${folder}`);
      mkdirSync(path, { recursive: true });
      for (let file = 0; file < 1 + random(20); file++, made++) {
        const size = random(20) === 0 ? random(bytes.length) : random(6000);
        writeFileSync(join(path, `module-${file}.js`), bytes.subarray(0, size));
      }
    }
  }
}

const marks = { marked: true, allocated: false, xattrs: false };
const kinds = [
  ["made there", marks, undefined],
  [
    "copied directories",
    marks,
    (level) => {
      level.copied = true;
    },
  ],
  ["reserved blocks", { ...marks, allocated: true }, undefined],
  ["nothing known", { marked: false, allocated: true, xattrs: true }, undefined],
]; // prettier-ignore

function count(path, [, costs, enter]) {
  const rootFd = openSync(path, "r");
  const before = process.cpuUsage();
  const start = performance.now();
  const objects = [];
  const { bytes, inodes } = countUpper({
    path,
    rootFd,
    indexFd: undefined,
    indexed: new Map(),
    costs,
    overrides: { rootFd, all: false, devices: false },
    whiteoutFiles: false,
    enter,
    left: (level) => objects.push(level),
  });
  const milliseconds = performance.now() - start;
  const { user, system } = process.cpuUsage(before);
  closeSync(rootFd);
  return { bytes, inodes, milliseconds, cpu: (user + system) / 1000 };
}

const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

const given = process.argv.slice(2);
const made = given.length > 0 ? undefined : mkdtempSync(join(tmpdir(), "imgfs-recount-"));
try {
  if (made !== undefined) makeTree(made);
  for (const path of made === undefined ? given : [made]) {
    // Copies without data are no inodes: the number is that of the first kind.
    const { inodes, bytes } = count(path, kinds[0]);
    console.log(
      `${made === undefined ? path : "npm-like tree"}: ${inodes} inodes, ${(bytes / 2 ** 20).toFixed(0)} MiB`,
    );
    const rounds = kinds.map(() => []);
    for (let round = 0; round < ROUNDS; round++) {
      for (const [i, kind] of kinds.entries()) rounds[i].push(count(path, kind));
    }
    for (const [i, [name]] of kinds.entries()) {
      const clock = median(rounds[i].map(({ milliseconds }) => milliseconds));
      const cpu = median(rounds[i].map((one) => one.cpu));
      const rate = (ms) => `${Math.round(inodes / ms)}k/s`;
      console.log(
        `  ${name.padEnd(20)} ${clock.toFixed(0).padStart(5)} ms ${rate(clock).padStart(7)}` +
          `   (CPU ${cpu.toFixed(0)} ms, ${rate(cpu)})`,
      );
    }
  }
} finally {
  if (made !== undefined) rmSync(made, { recursive: true, force: true });
}
