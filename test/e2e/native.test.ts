// The transport fuse-native: the tree that it shows, each thing that it declares to lack, and what it does where libfuse
// 2 alone would go wrong. The same run as for the direct one is in write, lifecycle and programs.test.ts.
import { existsSync, lstatSync, readdirSync, readFileSync, statSync } from "node:fs";
import {
  chmod,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  unlink,
  writeFile,
} from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { lacks } from "../../src/fuse/native/lacks.js";
import { noise, oddLayers } from "./make-image.js";
import {
  build,
  cannotMount,
  compareTrees,
  expectedTree,
  hasCommand,
  imgfs,
  isMounted,
  type Mounted,
  python,
  run,
  scratch,
  scratchDirectory,
  shell,
  shownTree,
  succeed,
  titleOf,
} from "./mounted.js";
import { sha256, writeLayout } from "./oci-writer.js";
import { layerTar } from "./tar-writer.js";
import { direct, native, noNative } from "./transports.js";

const reason = cannotMount ?? noNative ?? (hasCommand("python3") ? undefined : "python3 is missing");

/** What a line or two of python print, or the errno they fail with. */
const tried = (script: string, ...args: readonly string[]): Promise<string> =>
  python(
    `import ctypes,errno,os,sys
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    if getattr(libc, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), name)
a = [os.fsencode(x) for x in sys.argv[1:]]
try:
${script.replace(/^/gm, "    ")}
except OSError as e:
    print('EOPNOTSUPP' if e.errno == errno.EOPNOTSUPP else errno.errorcode[e.errno])`,
    ...args,
  );

describe.skipIf(reason)(titleOf("a mount by fuse-native", reason), () => {
  let layout: string;
  let image: string;
  let upper: string;
  let mounted: Mounted;
  let at: (name: string) => string;

  beforeAll(async () => {
    layout = scratch("layout");
    writeLayout(layout, oddLayers());
    image = await build(`oci:${layout}`);
  });

  beforeEach(async () => {
    upper = scratch("upper");
    mounted = await native.mount(image, "--upper", upper, "--devices");
    at = mounted.at;
  });

  const without = ["ns-times", "times-before-1970", "byte-names", "lseek"].flatMap((lack) => [
    "--without",
    lack,
  ]);

  it("shows what the layers say, but for what it lacks", async () => {
    const expected = await expectedTree(layout, "--holes");
    const readOnly = await native.mount(image, "--devices");
    const count = await compareTrees(expected, await shownTree(readOnly.path, "--holes"), ...without);
    expect(count).toBeGreaterThan(2700);
    expect(await compareTrees(expected, await shownTree(mounted.path, "--holes"), ...without)).toBe(count);
    // With nothing subtracted there is a difference: the direct transport has none.
    await expect(compareTrees(expected, await shownTree(mounted.path, "--holes"))).rejects.toThrow("differ");
  });

  it("has every lack explained in docs/transports.md, and no other", () => {
    const text = readFileSync(resolve(import.meta.dirname, "../../docs/transports.md"), "utf8");
    const rows = [...text.matchAll(/^\| `([a-z0-9-]+)` +\| (.*?) +\|$/gm)].map(([, name, meaning]) => [
      name,
      meaning,
    ]);
    expect(Object.fromEntries(rows.filter(([name]) => name !== "direct" && name !== "fuse-native"))).toEqual(
      lacks,
    );
  });

  it("lacks ns-times, times-before-1970 and single-times", async () => {
    const file = at("etc/passwd");
    await tried("os.utime(a[0], ns=(1_600_000_000_987_654_321, 1_500_000_000_123_456_789))", file);
    const ns = "s = os.stat(a[0]); print(s.st_atime_ns, s.st_mtime_ns)";
    expect(await tried(ns, file)).toBe("1600000000987000000 1500000000123000000");
    await shell(`touch -a -d @7 "${file}"; touch -m -d @8 "${file}"`);
    expect(await tried(ns, file)).toBe("1600000000987000000 1500000000123000000");
    await tried("os.utime(a[0], ns=(-1_500_000_000, -2_250_000_000))", file);
    expect(await tried(ns, file)).toBe("0 0");
    // They are what was set all the same.
    expect(await tried(ns, join(upper, "etc/passwd"))).toBe("-1500000000 -2250000000");
  });

  it("lacks byte-names: they answer EILSEQ, and no name stands for another", async () => {
    const made =
      "os.close(os.open(os.path.join(a[0], b'made-\\xff'), os.O_CREAT | os.O_WRONLY)); print('made')";
    expect(await tried(made, at("etc"))).toBe("EILSEQ");
    expect(await tried("print(os.mkdir(os.path.join(a[0], 'made-\\ufffd'.encode())))", at("etc"))).toBe(
      "EILSEQ",
    );
    expect(await tried("print(os.symlink(b'to-\\xff', a[0]))", at("etc/link"))).toBe("EILSEQ");
    expect(existsSync(join(upper, "etc"))).toBe(false);
    const hidden = (await readdir((await direct.mount(image, "--devices")).at("special"))).length;
    expect((await readdir(at("special"))).length).toBeLessThan(hidden);
  });

  it("lacks caller-ids: what others make is root's, without setuid", async () => {
    await tried("os.mkdir(a[0]); os.chmod(a[0], 0o1777)", at("open"));
    await chmod(dirname(mounted.path), 0o711);
    const script =
      'process.umask(0); fs.closeSync(fs.openSync(process.argv[1], "w", 0o6755)); fs.mkdirSync(process.argv[2])';
    const as = ["--reuid=4321", "--regid=4321", "--clear-groups"];
    await succeed("setpriv", [...as, process.execPath, "-e", script, at("open/file"), at("open/folder")]);
    expect(await lstat(at("open/file"))).toMatchObject({ uid: 0, gid: 0, mode: 0o100_755 });
  });

  it("lacks posix-acl, rename-flags, tmpfile, fallocate, lseek and copy-file-range", async () => {
    await writeFile(at("file"), "text\n");
    await writeFile(at("other"), "text\n");
    const acl =
      "b'\\x02\\0\\0\\0\\x01\\0\\x06\\0\\xff\\xff\\xff\\xff\\x04\\0\\x04\\0\\xff\\xff\\xff\\xff\\x20\\0\\x04\\0\\xff\\xff\\xff\\xff'";
    expect(
      await tried(`os.setxattr(a[0], 'system.posix_acl_access', ${acl}); print('set')`, at("file")),
    ).toBe("EOPNOTSUPP");
    for (const flags of [1, 2]) {
      const script = `call('renameat2', -100, a[0], -100, a[1], ${flags}); print('renamed')`;
      expect(await tried(script, at("file"), flags === 1 ? at("new") : at("other"))).toBe("EINVAL");
    }
    expect(await tried("print(os.open(a[0], os.O_TMPFILE | os.O_RDWR))", at("etc"))).toBe("EOPNOTSUPP");
    const opened = "fd = os.open(a[0], os.O_RDWR)\n";
    const preallocated = `${opened}libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
call('fallocate', fd, 0, 0, 65536); print('done')`;
    expect(await tried(preallocated, at("file"))).toBe("EOPNOTSUPP");
    const holes = `${opened}os.truncate(fd, 1 << 20); print(os.lseek(fd, 0, os.SEEK_HOLE), os.lseek(fd, 5000, os.SEEK_DATA))`;
    expect(await tried(holes, at("file"))).toBe(`${1 << 20} 5000`);
    // The kernel copies page by page then: the bytes are right, the request never came.
    const copied = `${opened}to = os.open(a[1], os.O_RDWR); print(os.copy_file_range(fd, to, 5), os.pread(to, 5, 0))`;
    expect(await tried(copied, at("etc/passwd"), at("other"))).toMatch(/^5 |^E(XDEV|OPNOTSUPP)$/);
  });

  it("lacks wide-inodes: numbers fit in 32 bits, listed as they are stated, one an object", async () => {
    await mkdir(at("numbers"));
    for (let i = 0; i < 50; i++) await writeFile(at(`numbers/${i}`), "");
    await link(at("numbers/0"), at("numbers/again"));
    const said = await tried(
      "print(all(e.inode() == os.lstat(e.path).st_ino < 2**32 for e in os.scandir(a[0])), len({e.inode() for e in os.scandir(a[0])}))",
      at("numbers"),
    );
    expect(said).toBe("True 50");
    expect(statSync(at("numbers/0")).ino).toBe(statSync(at("numbers/again")).ino);
    const lower = lstatSync(at("data/text")).ino;
    await writeFile(at("data/text"), "changed\n");
    expect(lstatSync(at("data/text")).ino).toBe(lower);
  });

  it("lacks hidden-names and open-in-removed: an open file goes at once, and leaves no name behind", async () => {
    await mkdir(at("folder"));
    await writeFile(at("folder/file"), "open\n");
    const handle = await open(at("folder/file"), "r+");
    await link(at("folder/file"), at("folder/second"));
    await unlink(at("folder/file"));
    expect(await readdir(at("folder"))).toEqual(["second"]);
    expect(readdirSync(join(upper, "folder"))).toEqual(["second"]);
    await handle.write("more\n", 5);
    expect(await readFile(at("folder/second"), "utf8")).toBe("open\nmore\n");
    expect((await handle.stat()).nlink).toBe(1);
    await unlink(at("folder/second"));
    expect((await handle.stat()).nlink).toBe(0);
    // The path that libfuse has for it follows its directory.
    await rename(at("folder"), at("moved"));
    await handle.write("last\n", 10);
    expect((await handle.read(Buffer.alloc(20), 0, 20, 0)).buffer.subarray(0, 15).toString()).toBe(
      "open\nmore\nlast\n",
    );
    await rm(at("moved"), { recursive: true });
    await expect(handle.stat()).rejects.toThrow("ENOENT");
    await handle.close();
    expect(readdirSync(upper)).toEqual([]);
    expect(
      readdirSync(`${upper}.work`, { recursive: true }).filter((name) =>
        String(name).includes("fuse_hidden"),
      ),
    ).toEqual([]);
  });

  it("an open file that is replaced keeps its content, and its name has the new one", async () => {
    await writeFile(at("target"), "old\n");
    await writeFile(at("source"), "new\n");
    const handle = await open(at("target"), "r");
    await rename(at("source"), at("target"));
    expect(await handle.readFile("utf8")).toBe("old\n");
    await handle.close();
    expect(await readFile(at("target"), "utf8")).toBe("new\n");
    expect(readdirSync(upper)).toEqual(["target"]);
  });

  it("a change through one name of a file shows by the others at once", async () => {
    await writeFile(at("first"), "1\n");
    await link(at("first"), at("second"));
    expect(await readFile(at("second"), "utf8")).toBe("1\n");
    await writeFile(at("first"), "22\n", { flag: "a" });
    expect(await readFile(at("second"), "utf8")).toBe("1\n22\n");
    await tried("os.chmod(a[0], 0o600)", at("second"));
    expect(await lstat(at("first"))).toMatchObject({ mode: 0o100_600, nlink: 2, size: 5 });
    await unlink(at("second"));
    expect((await lstat(at("first"))).nlink).toBe(1);
  });

  it("suspends those who wait for a large copy-up, and answers each of them after it", async () => {
    // Well above what is copied in place of a helper thread (BACKGROUND_FROM in src/overlay/complete-data.ts).
    const bytes = noise(16 << 20, 5);
    const source = scratch("layout");
    writeLayout(source, [
      layerTar([
        { name: "large", data: bytes },
        { name: "small", data: Buffer.from("1") },
      ]),
    ]);
    const over = scratch("upper");
    const { at } = await native.mount(await build(`oci:${source}`), "--upper", over);
    const write = async (i: number): Promise<void> => {
      const handle = await open(at("large"), "r+");
      await handle.write(`written by ${i}`, i << 20);
      await handle.sync();
      await handle.close();
    };
    const others = async (): Promise<string[]> => {
      await writeFile(at("new"), "new\n");
      await writeFile(at("small"), "changed\n");
      return readdir(at("."));
    };
    const [listed] = await Promise.all([others(), ...[1, 2, 3].map(write)]);
    expect(new Set(listed)).toEqual(new Set(["large", "new", "small"]));
    for (const i of [1, 2, 3]) bytes.write(`written by ${i}`, i << 20);
    expect(sha256(await readFile(at("large")))).toBe(sha256(bytes));
    expect(sha256(readFileSync(join(over, "large")))).toBe(sha256(bytes));
  });

  it("keeps what a large directory holds, and finds all of a deep one", async () => {
    await mkdir(at("large"));
    await python("import os,sys\nfor i in range(3000): open(f'{sys.argv[1]}/{i}', 'w').close()", at("large"));
    expect(new Set(await readdir(at("large"))).size).toBe(3000);
    await rm(at("large"), { recursive: true });
    const deep = Array.from({ length: 200 }, (_, i) => `d${i}`).join("/");
    await mkdir(at(deep), { recursive: true });
    await writeFile(at(`${deep}/bottom`), "here\n");
    await rename(at("d0"), at("e0"));
    expect(await readFile(at(`e${deep.slice(1)}/bottom`), "utf8")).toBe("here\n");
    await expect(readFile(at(`${deep}/bottom`))).rejects.toThrow("ENOENT");
  });

  it("keeps xattrs, empty and binary ones, and tells the size that one needs", async () => {
    await writeFile(at("file"), "");
    const script = `os.setxattr(a[0], 'user.empty', b''); os.setxattr(a[0], 'user.bytes', bytes(range(256)) * 8)
print(os.getxattr(a[0], 'user.empty'), os.getxattr(a[0], 'user.bytes') == bytes(range(256)) * 8, sorted(os.listxattr(a[0])))
os.removexattr(a[0], 'user.empty'); print(os.listxattr(a[0]))
os.setxattr(a[0], 'user.bytes', b'', os.XATTR_CREATE)`;
    expect(await tried(script, at("file"))).toBe(
      "b'' True ['user.bytes', 'user.empty']\n['user.bytes']\nEEXIST",
    );
  });

  it("whose connection is aborted ends with exit 1 and takes its mount away", async () => {
    const { path, ended, stderr } = await native.mountForeground(image);
    const device = (await shell(`mountpoint -d "${path}"`)).trim().split(":")[1];
    const control = scratchDirectory("fusectl");
    await shell(
      `mount -t fusectl none "${control}"; echo 1 > "${control}/${device}/abort"; umount "${control}"`,
    );
    expect(await ended).toEqual({ code: 1, signal: null });
    expect(stderr()).toContain("aborted");
    expect(isMounted(path)).toBe(false);
  });
});

describe.skipIf(cannotMount)(titleOf("fuse-native where it cannot be", cannotMount), () => {
  let image: string;
  const oneLine = /^imgfs: mount [^\n]+\n(hint: [^\n]+\n)?$/;

  beforeAll(async () => {
    const layout = scratch("layout");
    writeLayout(layout, oddLayers().slice(0, 1));
    image = await build(`oci:${layout}`);
  });

  it("says on one line how to install it when the package is missing", async () => {
    // The built package, as it is installed without the optional one.
    const folder = scratchDirectory("without");
    const root = resolve(import.meta.dirname, "../..");
    await shell(`cp -r "${root}/bin" "${root}/dist" "${root}/package.json" "${folder}/"; mkdir "${folder}/node_modules"
      for p in "${root}"/node_modules/* "${root}"/node_modules/.bin; do
        case "$p" in */fuse-native) ;; *) ln -s "$p" "${folder}/node_modules/" ;; esac; done`);
    const mountpoint = scratchDirectory("mnt");
    const own = join(folder, "bin/imgfs");
    const missing = await run(own, ["mount", image, mountpoint, "--transport", "fuse-native"]);
    expect(missing.code).toBe(32);
    expect(missing.stderr).toMatch(oneLine);
    expect(missing.stderr).toContain("npm install --ignore-scripts fuse-native@2.2.6");
    expect(isMounted(mountpoint)).toBe(false);
    expect((await run(own, ["mount", image, mountpoint])).code).toBe(0);
    expect((await run(own, ["umount", mountpoint])).code).toBe(0);
  });

  it.skipIf(noNative)(titleOf("refuses what it cannot pass on, and leaves nothing", noNative), async () => {
    const mountpoint = scratchDirectory("mnt");
    const refusals: ReadonlyArray<readonly [RegExp, ...string[]]> = [
      [/comma/, "-o", "fsname=one\\,two"],
      [/mount options/, "-o", "nosymfollow"],
      [/longer than/, "-o", `fsname=${"x".repeat(1100)}`],
      [/pid file .* lies in mountpoint/, "--pid-file", join(mountpoint, "pid")],
    ];
    for (const [pattern, ...words] of refusals) {
      const refused = await imgfs("mount", image, mountpoint, "-o", "transport=fuse-native", ...words);
      expect(refused.code).toBe(32);
      expect(refused.stderr).toMatch(oneLine);
      expect(refused.stderr).toMatch(pattern);
      expect(isMounted(mountpoint)).toBe(false);
    }
    const unknown = await imgfs("mount", image, mountpoint, "--transport", "other");
    expect(unknown).toMatchObject({ code: 2 });
    expect(unknown.stderr).toContain("direct, fuse-native");
  });
});
