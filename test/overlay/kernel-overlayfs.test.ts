// The upper directory is in overlayfs's own convention: the kernel, given the same lower tree as a plain directory,
// shows the same merged tree. Needs root and the overlay filesystem.
import { execFileSync } from "node:child_process";
import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { FATTR_MODE } from "../../src/fuse/operations.js";
import { directory, file, symlink } from "../imgfs/support.js";
import { fresh, imageOf, type Mounted, mount, remount } from "./harness.js";

const image = imageOf(
  directory({
    etc: directory({
      motd: file("hello\n"),
      passwd: file("root\n"),
      deep: directory({ file: file("deep\n") }),
    }),
    full: directory({ one: file("1"), two: file("2") }),
    empty: directory({}),
    link: symlink("etc/motd"),
  }),
);

function plainLower(): string {
  const lower = fresh("lower");
  mkdirSync(join(lower, "etc/deep"), { recursive: true });
  mkdirSync(join(lower, "full"));
  mkdirSync(join(lower, "empty"));
  writeFileSync(join(lower, "etc/motd"), "hello\n");
  writeFileSync(join(lower, "etc/passwd"), "root\n");
  writeFileSync(join(lower, "etc/deep/file"), "deep\n");
  writeFileSync(join(lower, "full/one"), "1");
  writeFileSync(join(lower, "full/two"), "2");
  symlinkSync("etc/motd", join(lower, "link"));
  return lower;
}

function kernelTree(path: string, prefix = ""): string[] {
  return readdirSync(path)
    .sort()
    .flatMap((name) => {
      const at = join(path, name);
      const stat = lstatSync(at);
      if (stat.isDirectory()) return [`${prefix}${name}/`, ...kernelTree(at, `${prefix}${name}/`)];
      const what = stat.isSymbolicLink()
        ? readlinkSync(at)
        : stat.isFile()
          ? readFileSync(at, "latin1")
          : "special";
      return [`${prefix}${name} ${(stat.mode & 0o7777).toString(8)} ${what}`];
    });
}

function mountedTree(fs: Mounted, path = "", prefix = ""): string[] {
  return fs.names(path).flatMap((name) => {
    const at = `${path}/${name}`;
    const { mode } = fs.stat(at);
    const type = mode & 0o170000;
    if (type === 0o040000) return [`${prefix}${name}/`, ...mountedTree(fs, at, `${prefix}${name}/`)];
    const what = type === 0o120000 ? fs.readlink(at) : type === 0o100000 ? fs.read(at) : "special";
    return [`${prefix}${name} ${(mode & 0o7777).toString(8)} ${what}`];
  });
}

/** The kernel's own upper and its mount, while `work` runs. */
function underKernel<T>(upper: string, extra: string, work: (target: string) => T): T {
  const target = fresh("mnt");
  const kernelWork = fresh("kernelwork");
  for (const path of [target, kernelWork]) mkdirSync(path);
  const options = `lowerdir=${plainLower()},upperdir=${upper},workdir=${kernelWork}${extra}`;
  execFileSync("mount", ["-t", "overlay", "overlay", "-o", options, target]);
  try {
    return work(target);
  } finally {
    execFileSync("umount", [target]);
  }
}

const FOLLOWS = ",redirect_dir=on,metacopy=on";

function change(fs: Mounted): void {
  fs.unlink("etc/motd");
  fs.write("etc/passwd", "changed");
  fs.setattr("etc/deep/file", { valid: FATTR_MODE, mode: 0o600 });
  for (const name of ["one", "two"]) fs.unlink(`full/${name}`);
  fs.rmdir("full");
  fs.mkdir("full");
  fs.write("full/mine", "x");
  fs.mkdir("dir");
  fs.write("dir/inside", "y");
  fs.rename("dir", "empty");
  fs.rename("etc/passwd", "etc/moved");
  fs.unlink("link");
  fs.mkdir("link");
  fs.write(".wh.etc", "a plain name");
  fs.mknod("pipe", 0o10600);
  fs.mkdir("gone");
  fs.rmdir("gone");
}

describe("an upper directory", () => {
  it("gives the same tree under the kernel's overlayfs", () => {
    const upper = fresh();
    const fs = mount(image, upper, { metacopy: false, redirects: false });
    change(fs);
    const ours = mountedTree(fs);
    fs.close();
    expect(underKernel(upper, "", kernelTree)).toEqual(ours);
    expect(ours).toContain("full/mine 644 x");
    expect(ours.some((line) => line.includes("motd") || line.includes("one"))).toBe(false);
  });

  it("gives the same tree where the kernel follows redirects and metadata-only copies", () => {
    const upper = fresh();
    let fs = mount(image, upper);
    change(fs);
    fs.setattr("etc/deep/file", { valid: FATTR_MODE, mode: 0o640 });
    fs.rename("etc/deep/file", "file");
    fs.rename("etc/deep", "deep");
    fs.rename("etc", "full/etc");
    fs = remount(fs, image, upper);
    fs.rename("file", "deep/other");
    const ours = mountedTree(fs);
    fs.close();
    expect(ours).toContain("deep/other 640 deep\n");
    expect(underKernel(upper, FOLLOWS, kernelTree)).toEqual(ours);
  });

  it("made by the kernel's overlayfs gives the same tree here", () => {
    const script =
      "rm etc/motd; echo new > etc/passwd; rm -r full; mkdir full; echo x > full/mine; mv etc/deep/file moved; ln moved again; rmdir empty; chmod 700 etc";
    for (const extra of ["", FOLLOWS]) {
      const upper = fresh();
      mkdirSync(upper);
      const theirs = underKernel(upper, extra, (target) => {
        execFileSync("sh", ["-ec", script], { cwd: target });
        return kernelTree(target);
      });
      const fs = mount(image, upper, { work: fresh("work") });
      expect(mountedTree(fs)).toEqual(theirs);
      expect(fs.stat("again")).toMatchObject({ ino: fs.stat("moved").ino, nlink: 2 });
      fs.close();
    }
  });

  it("made by the kernel with redirects and metadata-only copies gives the same tree here", () => {
    const upper = fresh();
    mkdirSync(upper);
    const theirs = underKernel(upper, FOLLOWS, (target) => {
      const script =
        "chmod 600 etc/deep/file; mv full etc/inner; mv etc/inner/one etc/uno; mv etc etcetera; chmod 640 etcetera/motd; mv etcetera/motd empty/m; mkdir new; mv etcetera/passwd new/p";
      execFileSync("sh", ["-ec", script], { cwd: target });
      return kernelTree(target);
    });
    let fs = mount(image, upper, { work: fresh("work") });
    expect(mountedTree(fs)).toEqual(theirs);
    fs.write("empty/m", "J", 0o2);
    fs.close();
    fs = mount(image, upper, { work: fresh("work") });
    expect(fs.read("empty/m")).toBe("Jello\n");
    expect(fs.read("etcetera/deep/file")).toBe("deep\n");
  });
});
