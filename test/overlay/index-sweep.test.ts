import { execFileSync } from "node:child_process";
import { lstatSync, readdirSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { FATTR_MODE } from "../../src/fuse/operations.js";
import { fresh, mount } from "./harness.js";
import { plainImage } from "./trees.js";

const image = plainImage();

// Without this what a crash left in WORK/index took space for as long as the upper lived.
it("sweeps from the index what lost its last name just before a crash, and nothing else", () => {
  const upper = fresh();
  const index = join(`${upper}.work`, "index");
  const first = mount(image, upper);
  for (const path of ["pipe", "bin/a"]) first.setattr(path, { valid: FATTR_MODE, mode: 0o600 });
  const { ino } = first.stat("bin/b");
  const pipe = String(first.stat("pipe").ino - 1);
  first.unlink("pipe");
  first.close();
  // As after a crash between the removal of the name and that of the link in the index.
  execFileSync("mkfifo", [join(index, pipe)]);
  expect(readdirSync(index).sort()).toEqual([pipe, String(ino - 1)].sort());
  // As after a crash between the commit to the index and the links at its names.
  for (const name of ["bin/a", "bin/b", "lib/c"]) unlinkSync(join(upper, name));
  const second = mount(image, upper);
  expect(readdirSync(index)).toEqual([String(ino - 1)]);
  expect(lstatSync(join(index, String(ino - 1))).nlink).toBe(1);
  expect([second.stat("bin/a").ino, second.stat("lib/c").mode & 0o777, second.stat("bin/b").nlink]).toEqual([
    ino,
    0o600,
    3,
  ]);
});
