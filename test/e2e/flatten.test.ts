// Flattened images as a user has them: one file that mounts, lists and checks like the folder it stands for.
import { spawn } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
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
  mount,
  noCommand,
  scratch,
  scratchDirectory,
  shownTree,
  succeed,
  titleOf,
  until,
} from "./mounted.js";
import { editLayout, sha256, writeDockerArchive, writeLayout } from "./oci-writer.js";
import { layerTar } from "./tar-writer.js";

const oneLine = /^imgfs: [^\n]+\n(hint: [^\n]+\n)?$/;
const noMount = cannotMount ?? (hasCommand("python3") ? undefined : "python3 is missing");
const layers = oddLayers();
let layout: string;
let image: string;
let flat: string;

const outputOf = (...args: readonly string[]): Promise<string> => succeed(command, args);

/** Builds into one file and returns it. */
async function flattened(source: string, ...options: readonly string[]): Promise<string> {
  const dest = scratch("flat.imgfs");
  await outputOf("build", "--flatten", source, dest, "--progress=none", ...options);
  return dest;
}

beforeAll(async () => {
  layout = scratch("layout");
  writeLayout(layout, layers);
  image = await build(`oci:${layout}`);
  flat = await flattened(`oci:${layout}`);
});

describe.skipIf(noMount)(titleOf("a flattened image, mounted", noMount), () => {
  it.each(["none", "zstd"])("shows what the layers say, with codec %s", async (codec) => {
    const file = codec === "none" ? flat : await flattened(`oci:${layout}`, "--codec", codec);
    const alone = join(scratchDirectory("alone"), "image.imgfs");
    copyFileSync(file, alone);
    const { path } = await mount(alone, "--devices");
    const shown = await shownTree(path, "--holes");
    expect(await compareTrees(await expectedTree(layout, "--holes"), shown)).toBeGreaterThan(2700);
  });

  it("takes an upper, and finds it again when the folder is mounted instead", async () => {
    const upper = scratch("upper");
    const one = await mount(flat, "--upper", upper);
    writeFileSync(one.at("etc/hostname"), "changed\n");
    await one.unmount();
    const two = await mount(image, "--upper", upper);
    expect(readFileSync(two.at("etc/hostname"), "utf8")).toBe("changed\n");
  });
});

describe.skipIf(noCommand)(titleOf("imgfs build --flatten", noCommand), () => {
  it("makes one file, the same from any form of the image, any --jobs, and by flatten from a folder", async () => {
    const expected = sha256(readFileSync(flat));
    const plain = scratch("plain");
    const archive = scratch("archive.tar");
    writeLayout(plain, layers, { compression: "none" });
    writeDockerArchive(archive, layers);
    for (const file of [
      await flattened(`oci:${layout}`, "--jobs", "1"),
      await flattened(`oci:${plain}`),
      await flattened(`docker-archive:${archive}`),
    ]) {
      expect(sha256(readFileSync(file))).toBe(expected);
    }
    for (const from of [
      image,
      join(image, "index.imgfs"),
      flat,
      await build(`oci:${layout}`, "--codec", "zstd:1"),
    ]) {
      const file = scratch("by-flatten.imgfs");
      await outputOf("flatten", from, file);
      expect(sha256(readFileSync(file))).toBe(expected);
    }
  });

  it("has the tree root of the folder, and its config", async () => {
    const facts = (path: string): Promise<Record<string, unknown>> =>
      outputOf("inspect", path, "--json").then((text) => JSON.parse(text));
    const [one, folder] = [await facts(flat), await facts(image)];
    expect(one).toMatchObject({ kind: "index", flattened: true, blobs: [] });
    expect(folder).toMatchObject({ kind: "index", flattened: false });
    expect(one["treeRoot"]).toBe(folder["treeRoot"]);
    const config = readFileSync(join(image, "config.json"), "utf8");
    expect(one["configDigest"]).toBe(`sha256:${sha256(Buffer.from(config))}`);
    expect(folder["configDigest"]).toBe(one["configDigest"]);
    expect(await outputOf("inspect", flat, "--config")).toBe(config);
    expect(await outputOf("inspect", image, "--config")).toBe(config);
    expect(await outputOf("inspect", flat)).toContain(`\nconfig       ${String(one["configDigest"])}\n`);
  });

  it("is read by ls, cat, check and extract like the folder", async () => {
    for (const args of [
      ["ls", "-lR"],
      ["ls", "--json", "-R"],
    ] as const) {
      const [name, ...options] = args;
      expect(await outputOf(name, flat, ...options)).toBe(await outputOf(name, image, ...options));
    }
    expect(await outputOf("cat", flat, "etc/hostname")).toBe("gnu\n");
    expect(await outputOf("check", "--data", flat)).toMatch(/^no damage found in 1 file, /);
    expect((await imgfs("extract", flat, scratch("tree"), "etc")).code).toBe(0);
  });

  it("replaces an imgfs file, and nothing else", async () => {
    const dest = scratch("dest.imgfs");
    copyFileSync(join(image, "index.imgfs"), dest);
    await outputOf("build", "--flatten", `oci:${layout}`, dest, "--progress=none");
    expect(sha256(readFileSync(dest))).toBe(sha256(readFileSync(flat)));
    const text = scratch("text");
    writeFileSync(text, "mine");
    const folder = scratchDirectory("folder");
    for (const wrong of [text, folder, "/dev/null"]) {
      for (const args of [
        ["build", "--flatten", `oci:${layout}`, wrong],
        ["flatten", image, wrong],
      ]) {
        const { code, stdout, stderr } = await imgfs(...args);
        expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
        expect(stderr).toMatch(oneLine);
      }
    }
    expect(readFileSync(text, "utf8")).toBe("mine");
    expect(readdirSync(folder)).toEqual([]);
  });

  it("of a damaged layer leaves nothing, and what was there stays", async () => {
    const damaged = scratch("damaged");
    writeLayout(damaged, layers);
    editLayout(damaged, ({ config }) => {
      config.rootfs.diff_ids[1] = `sha256:${"0".repeat(64)}`;
    });
    const room = scratchDirectory("room");
    const dest = join(room, "image.imgfs");
    copyFileSync(flat, dest);
    const { code, stderr } = await imgfs("build", "--flatten", `oci:${damaged}`, dest, "--progress=none");
    expect(code).toBe(1);
    expect(stderr).toMatch(/^imgfs: build [^\n]*layer 2 [^\n]*diffID mismatch[^\n]*\n$/);
    expect(readdirSync(room)).toEqual(["image.imgfs"]);
    expect(sha256(readFileSync(dest))).toBe(sha256(readFileSync(flat)));
    const new_ = join(room, "made", "for", "it.imgfs");
    expect((await imgfs("build", "--flatten", `oci:${damaged}`, new_, "--progress=none")).code).toBe(1);
    expect(readdirSync(room)).toEqual(["image.imgfs"]);
  });

  it("refuses a config that is another image's", async () => {
    const copy = scratch("copy");
    mkdirSync(copy);
    for (const name of readdirSync(image)) copyFileSync(join(image, name), join(copy, name));
    const config = JSON.parse(readFileSync(join(copy, "config.json"), "utf8"));
    config.rootfs.diff_ids.reverse();
    writeFileSync(join(copy, "config.json"), JSON.stringify(config));
    const { code, stderr } = await imgfs("flatten", copy, scratch("never.imgfs"));
    expect(code).toBe(1);
    expect(stderr).toMatch(/^imgfs: flatten [^\n]*config\.json: layer 1 is sha256:[^\n]*\n$/);
  });

  it("removes its folder when it is stopped, and what a killed one left", async () => {
    const big = scratch("big");
    const many = layerTar(times(400, (i) => ({ name: `f${i}`, data: noise(50_000, i + 1) })));
    writeLayout(big, [many]);
    const room = scratchDirectory("stopped");
    const dest = join(room, "image.imgfs");
    for (const signal of ["SIGINT", "SIGKILL"] as const) {
      const child = spawn(command, ["build", "--flatten", `oci:${big}`, dest, "--progress=none"], {
        stdio: ["ignore", "ignore", openSync(scratch("stderr"), "w")],
      });
      const ended = new Promise((done) => child.on("exit", done));
      await until("it has begun", () => readdirSync(room).length > 0);
      child.kill(signal);
      expect(await ended).toBe(signal === "SIGINT" ? 130 : null);
      expect(existsSync(dest)).toBe(false);
      expect(readdirSync(room).length).toBe(signal === "SIGINT" ? 0 : 1);
    }
    await outputOf("flatten", flat, dest);
    expect(readdirSync(room)).toEqual(["image.imgfs"]);
  });
});

const times = <T>(count: number, make: (i: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => make(i));
