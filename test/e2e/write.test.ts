// What writing to a mount does: seen in the mount, found in the upper in overlayfs's own form, and
// still there after a remount. The lower image never changes.
import { lstatSync, readdirSync, readFileSync } from "node:fs";
import {
  chmod,
  chown,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  rmdir,
  symlink,
  truncate,
  unlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { noise, oddLayers } from "./make-image.js";
import {
  build,
  cannotMount,
  compareTrees,
  expectedTree,
  hasCommand,
  type Mounted,
  python,
  scratch,
  shownTree,
  succeed,
  titleOf,
} from "./mounted.js";
import { sha256, writeLayout } from "./oci-writer.js";
import { direct, transports } from "./transports.js";

const reason = cannotMount ?? (hasCommand("python3") ? undefined : "python3 is missing");

/** The errno a promise fails with. */
async function errnoOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return "no error";
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code ?? String(cause);
  }
}

/** overlayfs hides a name by a character device 0:0. */
function isWhiteout(path: string): boolean {
  const status = lstatSync(path, { throwIfNoEntry: false });
  return status?.isCharacterDevice() === true && status.rdev === 0;
}

const xattrsOf = async (path: string): Promise<Record<string, string>> =>
  JSON.parse(
    await python(
      "import os,sys,json; p=sys.argv[1]; print(json.dumps({k: os.getxattr(p,k,follow_symlinks=False).decode('latin1') for k in os.listxattr(p,follow_symlinks=False)}))",
      path,
    ),
  );

const writing = titleOf("writing to a mount by $name", reason);
describe.skipIf(reason).each(transports)(writing, ({ mount, lacks }) => {
  let layout: string;
  let image: string;
  let upper: string;
  let mounted: Mounted;
  let at: (name: string) => string;
  const inUpper = (name: string): string => join(upper, name);

  beforeAll(async () => {
    layout = scratch("layout");
    writeLayout(layout, oddLayers());
    image = await build(`oci:${layout}`);
  });

  beforeEach(async () => {
    upper = scratch("upper");
    mounted = await mount(image, "--upper", upper);
    at = mounted.at;
  });

  /** Unmounts and mounts again; `at` then means the new mount. */
  async function remount(): Promise<void> {
    await mounted.unmount();
    mounted = await mount(image, "--upper", upper);
    at = mounted.at;
  }

  /** Holds now and after a remount. */
  async function nowAndLater(check: () => Promise<void>): Promise<void> {
    await check();
    await remount();
    await check();
  }

  it("a new file has its content, owner and mode in the mount and in the upper", async () => {
    await mkdir(at("new"), { mode: 0o750 });
    await writeFile(at("new/file"), "content\n", { mode: 0o640 });
    await chown(at("new/file"), 12, 34);
    await nowAndLater(async () => {
      expect(await readFile(at("new/file"), "utf8")).toBe("content\n");
      expect(await lstat(at("new/file"))).toMatchObject({
        mode: 0o100_640,
        uid: 12,
        gid: 34,
        nlink: 1,
        size: 8,
      });
      expect((await lstat(at("new"))).mode).toBe(0o40_750);
    });
    expect(readFileSync(inUpper("new/file"), "utf8")).toBe("content\n");
  });

  it("a file of the image that is written to is copied up whole, with everything it had", async () => {
    const before = await lstat(at("data/size-1500000"));
    const handle = await open(at("data/size-1500000"), "r+");
    await handle.write(Buffer.from("!"), 0, 1, 700_000);
    await handle.close();
    const expected = noise(1_500_000, 1_500_001);
    expected[700_000] = 0x21;
    await nowAndLater(async () => {
      expect(sha256(await readFile(at("data/size-1500000")))).toBe(sha256(expected));
      const { ino, mode, uid, gid, nlink, size } = await lstat(at("data/size-1500000"));
      expect({ ino, mode, uid, gid, nlink, size }).toEqual({
        ino: before.ino,
        mode: before.mode,
        uid: before.uid,
        gid: before.gid,
        nlink: 1,
        size: 1_500_000,
      });
    });
    expect(sha256(readFileSync(inUpper("data/size-1500000")))).toBe(sha256(expected));
    expect(readdirSync(inUpper("data"))).toEqual(["size-1500000"]);
  });

  it("xattrs of the image stay at copy-up, and new ones are kept", async () => {
    await python("import os,sys; os.setxattr(sys.argv[1], 'user.added', b'\\0\\xff')", at("special/xattrs"));
    await nowAndLater(async () => {
      expect(await xattrsOf(at("special/xattrs"))).toEqual({
        "user.comment": "hello xattr",
        "user.bin": "\0\u00ff\0A\n=",
        "user.empty": "",
        "user.added": "\0\u00ff",
      });
    });
  });

  it("a change of mode, owner or time alone shows, and the content stays", async () => {
    await chmod(at("data/text"), 0o600);
    await chown(at("data/text"), 1000, 2000);
    await utimes(at("data/text"), 1_234_567_890, 1_234_567_890.5);
    await nowAndLater(async () => {
      const status = await lstat(at("data/text"));
      expect(status).toMatchObject({ mode: 0o100_600, uid: 1000, gid: 2000, mtimeMs: 1_234_567_890_500 });
      expect((await readFile(at("data/text"), "utf8")).startsWith("some text that")).toBe(true);
    });
  });

  it("times are kept to the nanosecond", async () => {
    await python("import os,sys; os.utime(sys.argv[1], ns=(1, 1600000000123456789))", at("etc/passwd"));
    await nowAndLater(async () => {
      expect(await python("import os,sys; print(os.stat(sys.argv[1]).st_mtime_ns)", at("etc/passwd"))).toBe(
        lacks("ns-times") ? "1600000000123000000" : "1600000000123456789",
      );
    });
  });

  it("a deleted file is gone, and the upper holds a whiteout for it", async () => {
    await unlink(at("etc/os-release"));
    await nowAndLater(async () => {
      expect(await errnoOf(lstat(at("etc/os-release")))).toBe("ENOENT");
      expect(await readdir(at("etc"))).not.toContain("os-release");
    });
    expect(isWhiteout(inUpper("etc/os-release"))).toBe(true);
  });

  it("a file made and deleted leaves nothing in the upper", async () => {
    await writeFile(at("etc/brief"), "x");
    await unlink(at("etc/brief"));
    expect(readdirSync(inUpper("etc"))).toEqual([]);
  });

  it("a deleted tree is gone, and one made in its place is empty", async () => {
    await rm(at("srv/many"), { recursive: true });
    expect(isWhiteout(inUpper("srv/many"))).toBe(true);
    await mkdir(at("srv/many"));
    await writeFile(at("srv/many/only"), "alone\n");
    await nowAndLater(async () => expect(await readdir(at("srv/many"))).toEqual(["only"]));
    const marks = await xattrsOf(inUpper("srv/many"));
    expect(marks["trusted.overlay.opaque"] ?? marks["user.overlay.opaque"]).toBe("y");
    expect(await xattrsOf(at("srv/many"))).toEqual({});
  });

  it("a directory that is not empty is not removed, one that was emptied is", async () => {
    expect(await errnoOf(rmdir(at("special/sub")))).toBe("ENOTEMPTY");
    await unlink(at("special/sub/hl-c"));
    await rmdir(at("special/sub"));
    await nowAndLater(async () => expect(await errnoOf(lstat(at("special/sub")))).toBe("ENOENT"));
  });

  it("a renamed file of the image is found under its new name only", async () => {
    await rename(at("etc/os-release"), at("srv/moved"));
    await rename(at("etc/debian_version"), at("etc/hostname"));
    await nowAndLater(async () => {
      expect(await readFile(at("srv/moved"), "utf8")).toBe("NAME=e2e\n");
      expect(await readFile(at("etc/hostname"), "utf8")).toBe("12.0\n");
      expect(await errnoOf(lstat(at("etc/os-release")))).toBe("ENOENT");
      expect(await errnoOf(lstat(at("etc/debian_version")))).toBe("ENOENT");
    });
    expect(isWhiteout(inUpper("etc/os-release"))).toBe(true);
    expect(isWhiteout(inUpper("etc/hostname"))).toBe(false);
  });

  it("a directory made in the mount is renamed with what it holds", async () => {
    await mkdir(at("a/b"), { recursive: true });
    await writeFile(at("a/b/c"), "deep\n");
    await rename(at("a"), at("srv/z"));
    await nowAndLater(async () => expect(await readFile(at("srv/z/b/c"), "utf8")).toBe("deep\n"));
  });

  it("a directory of the image can be moved by mv, which copies where rename may not", async () => {
    await succeed("mv", [at("app/lodash"), at("srv/lodash")]);
    await nowAndLater(async () => {
      expect(await readdir(at("srv/lodash"))).toEqual(["index.js"]);
      expect(await errnoOf(lstat(at("app/lodash")))).toBe("ENOENT");
    });
  });

  it("all names of a hard-linked file see a write to one of them", async () => {
    const before = await lstat(at("special/hl-a"));
    expect(before.nlink).toBe(2);
    await writeFile(at("special/hl-a"), "changed\n");
    expect(await readFile(at("special/sub/hl-c"), "utf8")).toBe("changed\n");
    expect((await lstat(at("special/sub/hl-c"))).ino).toBe(before.ino);
    expect((await lstat(at("special/hl-a"))).nlink).toBe(2);
  });

  it("links, symlinks, FIFOs and devices can be made", async () => {
    await link(at("etc/passwd"), at("etc/passwd-link"));
    await symlink("../anywhere", at("etc/symlink"));
    await python(
      "import os,sys,stat; os.mkfifo(sys.argv[1]+'/fifo'); os.mknod(sys.argv[1]+'/dev', 0o600|stat.S_IFCHR, os.makedev(1,3))",
      at("etc"),
    );
    await nowAndLater(async () => {
      expect((await lstat(at("etc/passwd"))).nlink).toBe(2);
      expect((await lstat(at("etc/passwd-link"))).ino).toBe((await lstat(at("etc/passwd"))).ino);
      expect((await lstat(at("etc/symlink"))).isSymbolicLink()).toBe(true);
      expect((await lstat(at("etc/fifo"))).isFIFO()).toBe(true);
    });
  });

  it("truncating, appending and writing past the end give the right bytes", async () => {
    await truncate(at("data/size-131073"), 100_000);
    await truncate(at("data/size-513"), 5000);
    const handle = await open(at("data/size-4097"), "a");
    await handle.write("the end");
    await handle.close();
    await nowAndLater(async () => {
      const cut = await readFile(at("data/size-131073"));
      expect(cut.equals(noise(131_073, 131_074).subarray(0, 100_000))).toBe(true);
      const grown = await readFile(at("data/size-513"));
      expect(grown.equals(Buffer.concat([noise(513, 514), Buffer.alloc(5000 - 513)]))).toBe(true);
      const longer = await readFile(at("data/size-4097"));
      expect(longer.equals(Buffer.concat([noise(4097, 4098), Buffer.from("the end")]))).toBe(true);
      expect((await readFile(at("data/copy-of-131073"))).equals(noise(131_073, 131_074))).toBe(true);
    });
  });

  it("a descriptor opened before the copy-up sees what is written after it", async () => {
    const reader = await open(at("etc/os-release"), "r");
    await writeFile(at("etc/os-release"), "NAME=new\n");
    const { buffer, bytesRead } = await reader.read(Buffer.alloc(100), 0, 100, 0);
    await reader.close();
    expect(buffer.toString("utf8", 0, bytesRead)).toBe("NAME=new\n");
  });

  it("a file that is unlinked while open keeps its content until it is closed", async () => {
    const handle = await open(at("data/size-4096"), "r+");
    await unlink(at("data/size-4096"));
    await handle.write("still here", 0);
    const { buffer } = await handle.read(Buffer.alloc(10), 0, 10, 0);
    expect(buffer.toString()).toBe("still here");
    expect((await handle.stat()).nlink).toBe(0);
    await handle.close();
    expect(await errnoOf(lstat(at("data/size-4096")))).toBe("ENOENT");
  });

  it("a shared writable mapping reaches the file", async () => {
    await python(
      "import mmap,os,sys; f=os.open(sys.argv[1],os.O_RDWR); m=mmap.mmap(f,0); m[5:9]=b'MMAP'; m.flush(); m.close(); os.close(f)",
      at("data/text"),
    );
    await nowAndLater(async () =>
      expect((await readFile(at("data/text"), "utf8")).slice(0, 14)).toBe("some MMAP that"),
    );
  });

  it("names that only overlay directories use are plain names here", async () => {
    await writeFile(at("etc/.wh.passwd"), "no whiteout\n");
    await nowAndLater(async () => {
      expect(await readFile(at("etc/.wh.passwd"), "utf8")).toBe("no whiteout\n");
      expect((await lstat(at("etc/passwd"))).isFile()).toBe(true);
    });
  });

  it("whatever was done, the image itself is unchanged", async () => {
    const removed = rm(at("special"), { recursive: true });
    // What is not listed is not removed.
    expect(await errnoOf(removed)).toBe(lacks("byte-names") ? "ENOTEMPTY" : "no error");
    await writeFile(at("etc/passwd"), "changed\n");
    const second = await direct.mount(image, "--devices");
    await compareTrees(await expectedTree(layout), await shownTree(second.path));
  });
});

const readOnly = titleOf("a mount without an upper by $name", reason);
describe.skipIf(reason).each(transports)(readOnly, ({ mount }) => {
  it("is read-only: every change says EROFS", async () => {
    const layout = scratch("layout");
    writeLayout(layout, oddLayers().slice(0, 1));
    const { at } = await mount(await build(`oci:${layout}`));
    const attempts = [
      writeFile(at("new"), "x"),
      writeFile(at("etc/motd"), "x"),
      mkdir(at("directory")),
      unlink(at("etc/motd")),
      rmdir(at("dev")),
      rename(at("etc/motd"), at("etc/moved")),
      symlink("x", at("symlink")),
      link(at("etc/motd"), at("etc/linked")),
      chmod(at("etc/motd"), 0o600),
      truncate(at("etc/motd"), 0),
      utimes(at("etc/motd"), 1, 1),
    ];
    expect(await Promise.all(attempts.map(errnoOf))).toEqual(attempts.map(() => "EROFS"));
  });
});
