import { describe, expect, it } from "vitest";
import { code, fresh, mount } from "./harness.js";
import { plainImage } from "./trees.js";

const image = plainImage();
const visible = (names: readonly string[]): string[] => names.filter((name) => !name.startsWith("."));

describe("readdir over an upper directory", () => {
  it("shows each name once, however small the buffer, in the same order each time", () => {
    const fs = mount(image, fresh());
    for (let i = 0; i < 50; i++) fs.create(`full/n${i}`);
    fs.unlink("full/two");
    fs.write("full/one", "changed");
    const nodeid = fs.nodeid("full");
    const all = fs.list(nodeid);
    expect(all.length).toBe(54);
    expect(new Set(all.map(({ name }) => name)).size).toBe(54);
    for (const batch of [1, 2, 3, 7, 53]) expect(fs.list(nodeid, { batch })).toEqual(all);
    expect(fs.list(nodeid, { plus: true })).toEqual(all);
    // Any offset that was given leads to the same rest, as seekdir needs.
    for (const [i, { next }] of all.entries())
      expect(fs.listFrom(nodeid, next, 100)).toEqual(all.slice(i + 1));
  });

  it("loses and repeats nothing while files are made, removed and copied up", () => {
    const fs = mount(image, fresh());
    fs.mkdir("dir");
    for (let i = 0; i < 300; i++) fs.create(`dir/keep${i}`);
    for (let i = 0; i < 300; i++) fs.create(`dir/drop${i}`);
    let i = 0;
    const seen = fs.list(fs.nodeid("dir"), {
      batch: 10,
      between: () => {
        for (const end = i + 10; i < end && i < 300; i++) {
          fs.unlink(`dir/drop${i}`);
          fs.create(`dir/new${i}`);
        }
      },
    });
    const names = seen.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    expect(names.filter((name) => name.startsWith("keep")).length).toBe(300);

    let changed = false;
    const lower = fs.list(fs.nodeid("full"), {
      batch: 3,
      between: () => {
        if (changed) return;
        changed = true;
        for (const name of ["one", "two", "three"]) fs.write(`full/${name}`, "copied");
      },
    });
    expect(visible(lower.map(({ name }) => name)).sort()).toEqual(["one", "three", "two"]);
  });

  it("empties a directory while listing it, as rm does", () => {
    const fs = mount(image, fresh());
    fs.mkdir("dir");
    for (let i = 0; i < 2000; i++) fs.create(`dir/f${i}`);
    const nodeid = fs.nodeid("dir");
    let offset = 0;
    for (;;) {
      const part = fs.listFrom(nodeid, offset, 100);
      if (part.length === 0) break;
      for (const { name, next } of part) {
        if (!name.startsWith(".")) fs.unlink(`dir/${name}`);
        offset = next;
      }
    }
    expect(code(() => fs.rmdir("dir"))).toBe("ok");
  });

  it("counts a lookup only for an entry that was taken", () => {
    const fs = mount(image, fresh());
    fs.mkdir("dir");
    const made = fs.create("dir/f");
    fs.releaseId(made.nodeid, made.fh);
    fs.forget(made.nodeid, 1);
    const dir = fs.nodeid("dir");
    const listed = fs.listFrom(dir, 0, 10, true);
    expect(listed.length).toBe(3);
    const { nodeid } = fs.lookup(dir, "f");
    fs.forget(nodeid, 2);
    expect(code(() => fs.getattr(nodeid))).toBe("ESTALE");
    expect(fs.listFrom(dir, 0, 2, true).length).toBe(2);
    expect(code(() => fs.getattr(nodeid + 1))).toBe("ESTALE");
  });

  // A directory known to the kernel only through readdirplus lost its record with its last child's, and was copied up
  // a second time.
  it("counts the lookups of readdirplus for what is in the image only", () => {
    const fs = mount(image, fresh());
    const id = fs.list(1, { plus: true }).find(({ name }) => name === "full")!.ino;
    const inside = { ...fs.q(id) };
    fs.list(id, { plus: true });
    expect(fs.fs.unlink!(inside, fs.view("one"))).toBe(0);
    fs.mkdir("full/sub");
    fs.rmdir("full/sub");
    fs.forget(id, 2);
    expect(fs.fs.unlink!(inside, fs.view("two"))).toBe(0);
    expect(fs.names("full")).toEqual(["three"]);
  });
});
