// `imgfs extract`: the tree on disk, and in a tar, is what the layers say; as root, as nobody, on a full disk.
import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
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
  run,
  scratch,
  scratchDirectory,
  shell,
  shownTree,
  succeed,
  titleOf,
  until,
} from "./mounted.js";
import { sha256, writeLayout } from "./oci-writer.js";
import { layerTar } from "./tar-writer.js";

const notRoot =
  noCommand ??
  (process.getuid?.() === 0 ? undefined : "not root") ??
  (hasCommand("python3") ? undefined : "python3 is missing");
const noTar = notRoot ?? (hasCommand("tar") ? undefined : "tar is missing");
const asNobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--", command];
const noNobody =
  notRoot ??
  (hasCommand("setpriv") ? undefined : "setpriv is missing") ??
  (spawnSync("setpriv", [...asNobody, "--version"]).status === 0
    ? undefined
    : "nobody cannot reach this folder");
const noUnshare = notRoot ?? (hasCommand("unshare") ? undefined : "unshare is missing");
const oneLine = /^imgfs: [^\n]+\n(hint: [^\n]+\n)?$/;
const gnuTar = "tar --xattrs --xattrs-include='*' --numeric-owner --warning=no-timestamp -xp";
const layers = oddLayers();
let layout: string;
let image: string;

/** The tree root an index or its folder states. */
async function treeRoot(path: string): Promise<string> {
  return JSON.parse(await succeed(command, ["inspect", path, "--json"])).treeRoot;
}

/**
 * The dump of the layers, as this filesystem can keep it: ext4 has no nanoseconds in the last second that it knows.
 */
async function expectedHere(source: string, ...columns: readonly string[]): Promise<string> {
  const probe = scratch("probe");
  writeFileSync(probe, "");
  const last = 15_032_385_535n * 1_000_000_000n + 999_999_999n;
  await shell(`python3 -c 'import os; os.utime("${probe}", ns=(0, ${last}))'`);
  const kept = statSync(probe, { bigint: true }).mtimeNs;
  const file = await expectedTree(source, ...columns);
  const text = (ns: bigint): string => `[${ns / 1_000_000_000n},${ns % 1_000_000_000n}]`;
  writeFileSync(file, readFileSync(file, "utf8").replaceAll(text(last), text(kept)));
  return file;
}

/** Runs extract, which must succeed, and returns the destination. */
async function extracted(from: string, ...rest: readonly string[]): Promise<string> {
  const dest = scratch("extracted");
  await succeed(command, ["extract", from, dest, ...rest]);
  return dest;
}

beforeAll(async () => {
  layout = scratch("layout");
  writeLayout(layout, layers);
  image = await build(`oci:${layout}`);
});

describe.skipIf(notRoot)(titleOf("imgfs extract, as root", notRoot), () => {
  it("writes what the layers say, with devices, holes, links, owners, times and attributes", async () => {
    const { code, stdout, stderr } = await imgfs("extract", image, scratch("all"));
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const dest = stdout.slice(0, stdout.indexOf(": "));
    expect(
      await compareTrees(await expectedHere(layout, "--holes"), await shownTree(dest, "--holes")),
    ).toBeGreaterThan(2700);
  });

  it("fills a directory that is there and empty, and gives it the image's attributes", async () => {
    const dest = scratchDirectory("empty");
    chmodSync(dest, 0o700);
    await succeed(command, ["extract", image, dest]);
    expect(statSync(dest)).toMatchObject({ mode: 0o40755, mtimeMs: 1_600_000_000_000 });
  });

  it("takes a part of the tree", async () => {
    const usr = await extracted(image, "/usr/share");
    expect(readdirSync(usr).sort()).toEqual(["doc", "licenses"]);
    const one = await extracted(image, "special/hl-to-lower");
    expect(readdirSync(one)).toEqual(["hl-to-lower"]);
    expect(readFileSync(join(one, "hl-to-lower"), "utf8")).toBe("12.0\n");
    expect(lstatSync(join(one, "hl-to-lower")).nlink).toBe(1);
    const link = await extracted(image, "special/abs");
    expect(readlinkSync(join(link, "abs"))).toBe("/etc/os-release");
  });

  it("takes a layer blob alone, as a mount of it would show it", async () => {
    const lowest = scratch("lowest");
    writeLayout(lowest, layers.slice(0, 1));
    const dest = await extracted(join(image, `${sha256(layers[0] as Buffer)}.imgfs`));
    await compareTrees(await expectedTree(lowest), await shownTree(dest));
  });

  it("with --json tells what it did", async () => {
    const dest = scratch("json");
    const { stdout } = await imgfs("extract", image, dest, "special/hl-a", "--json");
    expect(JSON.parse(stdout)).toEqual({ schemaVersion: 1, dest, entries: 1, bytes: 5, losses: [] });
  });

  it("with --no-same-owner and --no-xattrs keeps neither, and no setuid bit of another", async () => {
    const dest = scratch("plain");
    const { stderr } = await imgfs("extract", image, dest, "special", "--no-same-owner", "--no-xattrs");
    expect(statSync(join(dest, "own/u3000000"))).toMatchObject({ uid: 0, gid: 0 });
    expect(statSync(join(dest, "suid")).mode).toBe(0o100755);
    expect(stderr).toMatch(
      /^imgfs: warning: 1 file without the setuid and setgid bits[^\n]+\(first suid\)\n$/,
    );
    expect(await shell(`python3 -c 'import os; print(os.listxattr("${dest}/xattrs"))'`)).toBe("[]\n");
  });
});

describe.skipIf(noTar ?? cannotMount)(titleOf("a single layer", noTar ?? cannotMount), () => {
  it("is the same extracted, mounted, and unpacked by tar", async () => {
    const one = scratch("one");
    writeLayout(one, layers.slice(0, 1), { compression: "none" });
    const built = await build(`oci:${one}`);
    const unpacked = scratchDirectory("unpacked");
    await shell(`${gnuTar} -C ${unpacked} -f ${one}/blobs/sha256/${sha256(layers[0] as Buffer)}`);
    const { path } = await mount(built, "--devices");
    const dest = await extracted(built);
    const shown = await shownTree(dest);
    expect(await compareTrees(await shownTree(path), shown)).toBeGreaterThan(2600);
    // Parents that no entry describes are tar's own choice: their times are the moment of unpacking.
    const undescribed = [
      "usr",
      "app",
      "data",
      "opt",
      "srv",
      "usr/share",
      "usr/share/doc",
      "usr/share/doc/git",
    ];
    const more = ["app/lodash/fp", "srv/many", "srv/wide", ...[0, 1, 2, 3, 4].map((i) => `srv/many/d${i}`)];
    await shell([...undescribed, ...more].map((name) => `touch -d @0 ${unpacked}/${name}`).join("\n"));
    await compareTrees(await shownTree(unpacked), shown);
  });
});

describe.skipIf(noTar)(titleOf("imgfs extract --tar", noTar), () => {
  it("gives a tar that GNU tar unpacks to the same tree", async () => {
    const dest = scratchDirectory("by-tar");
    await shell(`${command} extract --tar ${image} | ${gnuTar} -C ${dest} -f -`);
    await compareTrees(await expectedHere(layout, "--holes"), await shownTree(dest, "--holes"));
  });

  it("gives a tar that another parser reads as the same tree, the same bytes each time", async () => {
    const tar = scratch("export.tar");
    await shell(`${command} extract ${image} - > ${tar}`);
    await compareTrees(await expectedTree(layout, "--holes"), await expectedTree(tar, "--holes"));
    const again = scratch("again.tar");
    await shell(`${command} extract --tar ${image} / > ${again}`);
    expect(readFileSync(again).equals(readFileSync(tar))).toBe(true);
  });

  it("builds to the same tree root", async () => {
    const tar = scratch("back.tar");
    await shell(`${command} extract --tar ${image} > ${tar}`);
    expect(await treeRoot(await build(`tar:${tar}`))).toBe(await treeRoot(image));
  });

  it("of a part holds that part", async () => {
    const list = (path: string): Promise<string> =>
      shell(`${command} extract --tar ${image} ${path} | tar -tf - | LC_ALL=C sort`);
    expect(await list("usr/share/doc")).toBe("./\ncurl\n");
    expect(await list("/special/fifo")).toBe("fifo\n");
    expect((await list("special/own/")).split("\n")).toEqual(["./", "u100000", "u3000000", "umax", ""]);
  });

  it("ends quietly when nobody reads on", async () => {
    expect(await shell(`{ ${command} extract --tar ${image}; echo $? >&2; } 2>&1 | head -c 1 | wc -c`)).toBe(
      "1\n",
    );
  });
});

describe.skipIf(noNobody)(titleOf("imgfs extract, as nobody", noNobody), () => {
  it("keeps what it cannot give away, leaves out what it cannot make, and says so once each", async () => {
    const room = scratchDirectory("room");
    chmodSync(dirname(room), 0o755);
    chmodSync(room, 0o777);
    const dest = join(room, "tree");
    const outcome = await run("setpriv", [...asNobody, "extract", image, dest]);
    expect(outcome).toMatchObject({ code: 0 });
    const warnings = outcome.stderr.trimEnd().split("\n");
    expect(warnings.map((line) => line.replace(/\d+/, "N").replace(/ \(first .*/, "")).sort()).toEqual([
      "imgfs: warning: N devices left out, not permitted here",
      "imgfs: warning: N extended attributes not set, not permitted or not supported here",
      "imgfs: warning: N file without the setuid and setgid bits, because they are not the image's owner's",
      "imgfs: warning: N objects stay yours, because this user cannot give them away",
    ]);
    const diff = ["uid", "gid", "xattrs", "mode", "nlink"].flatMap((field) => ["--ignore", field]);
    const oracle = join(import.meta.dirname, "oracle.py");
    await succeed("python3", [
      oracle,
      "diff",
      await expectedHere(layout, "--no-devices", "--holes"),
      await shownTree(dest, "--no-devices", "--holes"),
      ...diff,
    ]);
    expect(statSync(join(dest, "special/own/umax"))).toMatchObject({ uid: 65534, gid: 65534 });
    expect(statSync(join(dest, "special/suid")).mode).toBe(0o100755);
    expect(statSync(join(dest, "special/sticky")).mode).toBe(0o41777);
    expect(statSync(join(dest, "special/ro")).mode).toBe(0o40555);
    expect(existsSync(join(dest, "special/null"))).toBe(false);
    expect(lstatSync(join(dest, "special/hl-a")).nlink).toBe(2);
    expect(await shell(`python3 -c 'import os; print(sorted(os.listxattr("${dest}/special/xattrs")))'`)).toBe(
      "['user.bin', 'user.comment', 'user.empty']\n",
    );
  });

  it("into a place that is not its own fails in one line and changes nothing", async () => {
    const room = scratchDirectory("roots");
    chmodSync(dirname(room), 0o755);
    const outcome = await run("setpriv", [...asNobody, "extract", image, join(room, "tree")]);
    expect(outcome).toMatchObject({ code: 1, stdout: "" });
    expect(outcome.stderr).toMatch(oneLine);
    expect(readdirSync(room)).toEqual([]);
  });
});

describe.skipIf(noUnshare)(titleOf("an extraction that cannot end well", noUnshare), () => {
  it("on a full disk is one error that names the file, and nothing is left", async () => {
    const room = scratchDirectory("small");
    const script = `
      mount -t tmpfs -o size=1m,nr_inodes=100k none ${room}
      ${command} extract ${image} ${room}/tree && exit 9
      echo "code $?, left: $(ls -A ${room})"`;
    const { stdout, stderr } = await run("unshare", ["-m", "sh", "-c", script]);
    expect(stdout).toBe("code 1, left: \n");
    expect(stderr).toMatch(/^imgfs: extract [^\n]+: data\/[^\n]+: .*(no space left|ENOSPC)[^\n]*\n$/);
  });

  it("is undone by Ctrl-C", async () => {
    const tar = layerTar(
      Array.from({ length: 20_000 }, (_, i) => ({ name: `d${i % 100}/f${i}`, data: noise(64, i + 1) })),
    );
    const many = scratch("many");
    writeLayout(many, [tar], { compression: "none" });
    const dest = scratch("stopped");
    const child = spawn(command, ["extract", await build(`oci:${many}`), dest], {
      stdio: ["ignore", "ignore", openSync(scratch("stderr"), "w")],
    });
    const ended = new Promise((done) => child.on("exit", done));
    await until("it has begun", () => existsSync(dest) && readdirSync(dest).length > 0);
    child.kill("SIGINT");
    expect(await ended).toBe(130);
    expect(existsSync(dest)).toBe(false);
  });
});

describe.skipIf(noCommand)(titleOf("imgfs extract, used wrongly", noCommand), () => {
  it.each([
    [["extract"], 2],
    [["extract", "IMAGE"], 2],
    [["extract", "IMAGE", "DEST", "etc", "more"], 2],
    [["extract", "--tar", "IMAGE", "etc", "more"], 2],
    [["extract", "/nowhere", "DEST"], 10],
    [["extract", "IMAGE", "DEST", "etc/none"], 1],
    [["extract", "--tar", "IMAGE", "etc/none"], 1],
    [["extract", "IMAGE", "/proc/none/there"], 1],
    [["extract", "IMAGE", "IMAGE"], 1],
    [["extract", "IMAGE", ""], 2],
  ])("%j ends with %d and one line", async (args, expected) => {
    const dest = scratch("never");
    const given = args.map((arg) => (arg === "IMAGE" ? image : arg === "DEST" ? dest : arg));
    const { code, stdout, stderr } = await imgfs(...given);
    expect({ code, stdout }).toEqual({ code: expected, stdout: "" });
    expect(stderr).toMatch(oneLine);
    expect(existsSync(dest)).toBe(false);
  });
});
