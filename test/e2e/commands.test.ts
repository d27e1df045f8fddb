// The command line as a user meets it: results on stdout, errors on one line of stderr, exit codes,
// and builds that are the same whenever and however they run.
import { spawn } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, it } from "vitest";
import { oddLayers } from "./make-image.js";
import {
  build,
  command,
  imgfs,
  noCommand,
  run,
  scratch,
  scratchDirectory,
  titleOf,
  until,
} from "./mounted.js";
import { editLayout, sha256, writeDockerArchive, writeLayout } from "./oci-writer.js";
import { layerTar } from "./tar-writer.js";

const oneLine = /^imgfs: [^\n]+\n(hint: [^\n]+\n)?$/;
const layers = oddLayers();
let layout: string;
let image: string;

/** File name to digest, for every file of a folder. */
function digests(folder: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(folder)
      .sort()
      .map((name) => [name, sha256(readFileSync(join(folder, name)))]),
  );
}

const hasFiles = (folder: string): boolean => existsSync(folder) && readdirSync(folder).length > 0;

beforeAll(async () => {
  layout = scratch("layout");
  writeLayout(layout, layers);
  image = await build(`oci:${layout}`);
});

describe.skipIf(noCommand)(titleOf("imgfs build", noCommand), () => {
  it("makes a blob for each layer, named by its diffID, an index and the config", () => {
    const names = [...layers.map((layer) => `${sha256(layer)}.imgfs`), "index.imgfs", "config.json"];
    expect(readdirSync(image).sort()).toEqual(names.sort());
    const config = JSON.parse(readFileSync(join(image, "config.json"), "utf8"));
    expect(config.rootfs.diff_ids).toEqual(layers.map((layer) => `sha256:${sha256(layer)}`));
  });

  it("gives the same bytes again, with any --jobs, from any form of the image", async () => {
    const plain = scratch("plain");
    const archive = scratch("archive.tar");
    writeLayout(plain, layers, { compression: "none" });
    writeDockerArchive(archive, layers);
    const expected = digests(image);
    expect(digests(await build(`oci:${layout}`, "--jobs", "1"))).toEqual(expected);
    expect(digests(await build(`oci:${layout}`, "--jobs", "3"))).toEqual(expected);
    expect(digests(await build(`oci:${plain}`))).toEqual(expected);
    expect(digests(await build(`docker-archive:${archive}`))).toEqual(expected);
  });

  it("into the folder of a build reuses its blobs", async () => {
    const before = digests(image);
    expect(await imgfs("build", `oci:${layout}`, image)).toMatchObject({ code: 0 });
    expect(digests(image)).toEqual(before);
  });

  it("prints its result as JSON when asked, and progress never on stdout", async () => {
    const { code, stdout, stderr } = await imgfs("build", `oci:${layout}`, scratch("json"), "--json");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ schemaVersion: 1 });
    expect(stderr).not.toContain("\x1b");
  });

  it("refuses a layer whose bytes are not those of its digest, and leaves nothing behind", async () => {
    const damaged = scratch("damaged");
    writeLayout(damaged, layers);
    editLayout(damaged, ({ manifest }) => {
      const digest = manifest.layers[1]?.digest as string;
      const path = join(damaged, "blobs/sha256", digest.slice(7));
      const bytes = readFileSync(path);
      bytes.writeUInt8(bytes.readUInt8(bytes.length >> 1) ^ 1, bytes.length >> 1);
      writeFileSync(path, bytes);
    });
    const dest = scratch("dest");
    const outcome = await imgfs("build", `oci:${damaged}`, dest, "--progress=none");
    expect(outcome).toMatchObject({ code: 1, stdout: "" });
    expect(outcome.stderr).toMatch(oneLine);
    expect(existsSync(dest) ? readdirSync(dest) : []).toEqual([]);
  });

  it("refuses a layer whose diffID is not the one the config gives", async () => {
    const swapped = scratch("swapped");
    writeLayout(swapped, layers, { compression: "none" });
    editLayout(swapped, ({ config }) => config.rootfs.diff_ids.reverse());
    const outcome = await imgfs("build", `oci:${swapped}`, scratch("dest"), "--progress=none");
    expect(outcome).toMatchObject({ code: 1, stdout: "" });
    expect(outcome.stderr).toMatch(oneLine);
  });

  it("that is interrupted ends with exit 130 and leaves nothing behind", async () => {
    // A layer of 2 GiB in a few MB: one gzip member for the tar header, many for its zeros. Its diffID
    // is never reached.
    const huge = scratch("huge");
    writeLayout(huge, layers.slice(0, 1));
    const header = layerTar([{ name: "zeros", data: Buffer.alloc(0) }]).subarray(0, 512);
    header.write(`${(2 ** 31).toString(8).padStart(11, "0")}\0`, 124, "latin1");
    header.fill(" ", 148, 156);
    header.write(
      `${header
        .reduce((sum, byte) => sum + byte, 0)
        .toString(8)
        .padStart(6, "0")}\0 `,
      148,
      "latin1",
    );
    const zeros = gzipSync(Buffer.alloc(64 << 20), { level: 1 });
    const members = Array.from({ length: 32 }, () => zeros);
    editLayout(huge, ({ manifest, put }) => {
      const mediaType = manifest.layers[0]?.mediaType as string;
      manifest.layers[0] = put(mediaType, Buffer.concat([gzipSync(header), ...members]));
    });
    const dest = scratch("dest");
    const child = spawn(command, ["build", `oci:${huge}`, dest, "--progress=plain"], {
      stdio: "ignore",
    });
    const ended = new Promise<number | null>((done) => child.on("close", done));
    await until("the build has begun", () => child.exitCode !== null || hasFiles(dest));
    // Twice, as timeout(1) and impatient people do: the second must not cut the cleaning up short.
    child.kill("SIGINT");
    child.kill("SIGINT");
    expect(await ended).toBe(130);
    expect(hasFiles(dest)).toBe(false);
  });

  it("of an image without layers makes an empty tree", async () => {
    const empty = scratch("empty-layout");
    writeLayout(empty, []);
    const dest = await build(`oci:${empty}`);
    expect(await imgfs("check", "--data", dest)).toMatchObject({ code: 0 });
    expect(await imgfs("ls", dest)).toMatchObject({ code: 0, stdout: "" });
  });

  it("finds a folder with a colon in its name", async () => {
    const odd = scratch("a:b");
    writeLayout(odd, oddLayers());
    expect(await build(`oci:${odd}`)).toBeTruthy();
    expect(await build(`oci:${odd}:latest`)).toBeTruthy();
  });

  it("says on one line what is wrong with a source", async () => {
    const notImage = scratch("not-an-image");
    writeFileSync(notImage, "just text\n");
    const sources = [
      `oci:${scratch("missing")}`,
      `oci:${layout}:no-such-tag`,
      `docker-archive:${scratch("missing")}`,
      `docker-archive:${notImage}`,
      `tar:${notImage}`,
    ];
    for (const source of sources) {
      const outcome = await imgfs("build", source, scratch("dest"), "--progress=none");
      expect([1, 2, 10], source).toContain(outcome.code);
      expect(outcome.stderr, source).toMatch(oneLine);
      expect(outcome.stdout, source).toBe("");
    }
  });
});

describe.skipIf(noCommand)(titleOf("the commands that read an image", noCommand), () => {
  it("ls lists a directory by name", async () => {
    const { code, stdout } = await imgfs("ls", image, "/app/lodash");
    expect({ code, stdout }).toEqual({ code: 0, stdout: "index.js\n" });
    const long = await imgfs("ls", "-l", image, "/special");
    expect(long.stdout).toMatch(/^crw-rw-rw- .*1, 3 .* null$/m);
    expect(long.stdout).toMatch(/^lrwxrwxrwx .* rel -> \.\.\/etc\/os-release$/m);
    expect(long.stdout).toMatch(/^-rwsr-xr-x .* suid$/m);
  });

  it("ls --json describes whatever is there, a line each", async () => {
    const { code, stdout } = await imgfs("ls", "--json", "-R", image);
    expect(code).toBe(0);
    const types = stdout
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { type: string }).type);
    expect(new Set(types)).toEqual(
      new Set(["directory", "file", "symlink", "fifo", "character device", "block device"]),
    );
  });

  it("ls -R lists the whole tree", async () => {
    const { code, stdout } = await imgfs("ls", "-lR", image);
    expect(code).toBe(0);
    expect(stdout).toContain("entry-2499");
    expect(stdout).not.toContain("README");
  });

  it("cat prints a file byte for byte", async () => {
    const { code, stdout } = await imgfs("cat", image, "/etc/hostname");
    expect({ code, stdout }).toEqual({ code: 0, stdout: "gnu\n" });
    const missing = await imgfs("cat", image, "/etc/motd");
    expect(missing.code).toBe(1);
    expect(missing.stderr).toMatch(oneLine);
  });

  it("inspect describes the index and each blob", async () => {
    for (const name of ["", "index.imgfs", `${sha256(layers[0] as Buffer)}.imgfs`]) {
      const text = await imgfs("inspect", join(image, name));
      expect(text).toMatchObject({ code: 0, stderr: "" });
      const json = await imgfs("inspect", "--json", join(image, name));
      expect(JSON.parse(json.stdout)).toMatchObject({ schemaVersion: 1 });
    }
  });

  it("check finds nothing in a sound image", async () => {
    expect(await imgfs("check", image)).toMatchObject({ code: 0, stderr: "" });
    expect(await imgfs("check", "--data", image)).toMatchObject({ code: 0, stderr: "" });
  });

  it("check says with exit 3 that content or a table is damaged", async () => {
    const name = `${sha256(layers[0] as Buffer)}.imgfs`;
    const damaged = scratchDirectory("damaged");
    for (const file of readdirSync(image)) copyFileSync(join(image, file), join(damaged, file));
    const bytes = readFileSync(join(image, name));
    const flip = (offset: number): void => {
      const copy = Buffer.from(bytes);
      copy.writeUInt8(copy.readUInt8(offset) ^ 0x10, offset);
      writeFileSync(join(damaged, name), copy);
    };
    // Content is the larger part of this blob and lies behind the tables.
    const content = noiseOffset(bytes);
    flip(content);
    expect((await imgfs("check", "--data", join(damaged, name))).code).toBe(3);
    flip(64);
    expect((await imgfs("check", join(damaged, name))).code).toBe(3);
    writeFileSync(join(damaged, name), bytes.subarray(0, bytes.length >> 1));
    expect((await imgfs("check", join(damaged, name))).code).toBe(3);
  });
});

/** Where the longest incompressible file of the lowest layer lies in its blob. */
function noiseOffset(blob: Buffer): number {
  const layer = layers[0] as Buffer;
  const content = layer.subarray(layer.indexOf("data/size-1500000") + 512);
  const offset = blob.indexOf(content.subarray(0, 64));
  if (offset < 0) throw new Error("the content of data/size-1500000 is not in the blob");
  return offset + 1000;
}

describe.skipIf(noCommand)(titleOf("errors and exit codes", noCommand), () => {
  it("an image that is not there is exit 10", async () => {
    for (const args of [
      ["inspect", scratch("none")],
      ["ls", scratch("none")],
      ["cat", scratch("none"), "/x"],
      ["check", scratch("none")],
      ["mount", scratch("none"), scratchDirectory("mnt")],
      ["inspect", scratchDirectory("empty")],
    ]) {
      const outcome = await imgfs(...args);
      expect(outcome.code, args.join(" ")).toBe(10);
      expect(outcome.stderr, args.join(" ")).toMatch(oneLine);
      expect(outcome.stdout, args.join(" ")).toBe("");
    }
  });

  it("wrong usage is exit 2, named on stderr", async () => {
    for (const args of [
      ["no-such-command"],
      ["build", "--no-such-option", "a", "b"],
      ["build", "oci:x"],
      ["build", "--jobs", "none", "oci:x", "y"],
      ["mount", image],
      ["mount", image, scratchDirectory("mnt"), "--work", scratch("work")],
      ["cat", image],
    ]) {
      const outcome = await imgfs(...args);
      expect(outcome.code, args.join(" ")).toBe(2);
      expect(outcome.stderr, args.join(" ")).toMatch(/^imgfs: /);
      expect(outcome.stdout, args.join(" ")).toBe("");
    }
  });

  it("an empty path is wrong usage, never the current directory", async () => {
    const cwd = scratchDirectory("cwd");
    for (const args of [
      ["mount", image, ""],
      ["mount", image, "mnt", "--upper", ""],
      ["build", `oci:${layout}`, ""],
      ["umount", ""],
    ]) {
      expect(await run(command, [...args], { cwd })).toMatchObject({ code: 2 });
    }
    expect(readdirSync(cwd)).toEqual([]);
  });

  it("a FIFO where an image should be does not hold the command up", async () => {
    const folder = scratchDirectory("fifo");
    expect((await run("mkfifo", [join(folder, "index.imgfs")])).code).toBe(0);
    for (const command of ["ls", "inspect"]) {
      const { code, stderr } = await imgfs(command, folder);
      expect([code, stderr]).toEqual([1, expect.stringContaining("not a regular file")]);
    }
  });

  it("umount of what is no mount of ours is exit 32", async () => {
    const plain = scratch("plain-folder");
    mkdirSync(plain);
    const outcome = await imgfs("umount", plain);
    expect(outcome.code).toBe(32);
    expect(outcome.stderr).toMatch(oneLine);
  });

  it("help and version go to stdout and are no failure", async () => {
    for (const args of [["--help"], ["mount", "--help"], ["--version"], ["version"], ["version", "--json"]]) {
      const outcome = await imgfs(...args);
      expect(outcome.code, args.join(" ")).toBe(0);
      expect(outcome.stdout.length, args.join(" ")).toBeGreaterThan(4);
      expect(outcome.stderr, args.join(" ")).toBe("");
    }
  });

  it("a reader that goes away early is no failure", async () => {
    const script = `"$@" | head -c 1 > /dev/null; echo "\${PIPESTATUS[0]}"`;
    for (const args of [
      ["ls", "-lR", image],
      ["mount", "--help"],
    ]) {
      const outcome = await run("bash", ["-c", script, "bash", command, ...args]);
      expect(outcome).toMatchObject({ stdout: "0\n", stderr: "" });
    }
  });
});
