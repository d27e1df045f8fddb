// The table of paths behind fuse-native: what it looks up it forgets, exactly, and a path in it is what a walk finds.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PathTable, viewOf } from "../../src/fuse/native/paths.js";
import type { Entry, FileSystem, NameView, Request } from "../../src/fuse/operations.js";

const ENOENT = -2;
const EILSEQ = -84;
const ENAMETOOLONG = -36;
const S_IFDIR = 0o040_755;
const S_IFREG = 0o100_644;

/** A tree of names to nodeids that counts lookups as the interface says. */
class Tree {
  readonly children = new Map<number, Map<string, number>>([[1, new Map()]]);
  readonly counted = new Map<number, number>();
  lookups = 0;
  private next = 2;

  readonly fileSystem: FileSystem = {
    lookup: (q: Request, name: NameView, out: Entry) => {
      this.lookups++;
      const child = this.children.get(q.nodeid)?.get(Buffer.from(name.bytes).toString());
      return child === undefined ? ENOENT : this.give(child, out);
    },
    forget: (nodeid: number, count: number) => {
      const left = (this.counted.get(nodeid) ?? 0) - count;
      if (left < 0) throw new Error(`${nodeid} forgotten ${-left} times too often`);
      this.counted.set(nodeid, left);
    },
    getattr: () => 0,
  };

  give(nodeid: number, out: Entry): number {
    out.nodeid = nodeid;
    out.attr.mode = this.children.has(nodeid) ? S_IFDIR : S_IFREG;
    this.counted.set(nodeid, (this.counted.get(nodeid) ?? 0) + 1);
    return 0;
  }

  make(directory: number, name: string, folder: boolean): number {
    const nodeid = this.next++;
    if (folder) this.children.set(nodeid, new Map());
    this.children.get(directory)?.set(name, nodeid);
    return nodeid;
  }

  /** What a walk finds, without counting. */
  at(path: string): number {
    let nodeid = 1;
    for (const name of path.split("/").filter((part) => part !== "")) {
      const child = this.children.get(nodeid)?.get(name);
      if (child === undefined) return ENOENT;
      nodeid = child;
    }
    return nodeid;
  }

  held(): number[] {
    return [...this.counted].filter(([, count]) => count > 0).map(([nodeid]) => nodeid);
  }
}

const request = (): Request => ({ unique: 0, nodeid: 0, uid: 0, gid: 0, pid: 0 });

function split(path: string): [parent: string, name: string] {
  const slash = path.lastIndexOf("/");
  return [path.slice(0, slash), path.slice(slash + 1)];
}

describe("the table of paths", () => {
  it("asks once for what it knows, and for nothing that is gone", () => {
    const tree = new Tree();
    const folder = tree.make(1, "folder", true);
    const file = tree.make(folder, "file", false);
    const table = new PathTable(tree.fileSystem, request());
    expect([table.resolve("/folder/file"), table.resolve("/folder/file"), table.resolve("/folder")]).toEqual([
      file,
      file,
      folder,
    ]);
    expect(tree.lookups).toBe(2);
    expect([table.resolve("/"), table.resolve("/none/at/all")]).toEqual([1, ENOENT]);
    table.gone("/folder/file");
    expect(tree.held()).toEqual([folder]);
  });

  it("keeps a removed file for whoever has it open, under the name that libfuse gives it", () => {
    const tree = new Tree();
    const folder = tree.make(1, "folder", true);
    const file = tree.make(folder, "file", false);
    const table = new PathTable(tree.fileSystem, request());
    const hidden = "/folder/.fuse_hidden0000000300000001";
    table.resolve("/folder/file");
    expect(table.isHiding("/folder/file", hidden)).toBe(false);
    table.opened(file);
    expect(table.isHiding("/folder/file", hidden)).toBe(true);
    expect(table.isHiding("/folder/file", "/.fuse_hidden0000000300000001")).toBe(false);
    expect(table.isHiding("/folder/file", "/folder/plain")).toBe(false);
    tree.children.get(folder)?.delete("file");
    table.alias(file, hidden);
    table.gone("/folder/file");
    expect([table.resolve("/folder/file"), table.resolve(hidden)]).toEqual([ENOENT, file]);
    table.moved("/folder", "/moved");
    expect(table.resolve("/moved/.fuse_hidden0000000300000001")).toBe(file);
    expect(table.dropAlias("/moved/.fuse_hidden0000000300000001")).toBe(true);
    expect(tree.held()).toContain(file);
    table.closed(file);
    expect(tree.held()).not.toContain(file);
  });

  it("refuses names that have not come through as they were, and long ones", () => {
    const table = new PathTable(new Tree().fileSystem, request());
    expect(table.resolve("/\ufffd")).toBe(EILSEQ);
    expect(table.parent("/\ufffd")).toBe(EILSEQ);
    expect(viewOf("é".repeat(128))).toBe(ENAMETOOLONG);
    expect(viewOf("é".repeat(127))).toMatchObject({ start: 0, end: 254 });
  });

  it("agrees with the tree through any changes, and gives back every lookup, however few paths it may keep", () => {
    const path = fc
      .array(fc.constantFrom("a", "b", "c"), { minLength: 1, maxLength: 3 })
      .map((parts) => `/${parts.join("/")}`);
    const step = fc.oneof(
      fc.record({ kind: fc.constant("resolve" as const), path }),
      fc.record({ kind: fc.constantFrom("mkdir" as const, "create" as const, "remove" as const), path }),
      fc.record({ kind: fc.constantFrom("rename" as const, "link" as const), path, to: path }),
      fc.record({ kind: fc.constantFrom("open" as const, "close" as const), path }),
    );
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 60, size: "max" }),
        fc.integer({ min: 4, max: 40 }),
        (steps, limit) => {
          const tree = new Tree();
          const table = new PathTable(tree.fileSystem, request(), limit);
          const open: number[] = [];
          const paths = new Set<string>();
          for (const each of steps) {
            paths.add(each.path);
            const [parent, name] = split(each.path);
            const directory = tree.at(parent);
            const nodeid = tree.at(each.path);
            switch (each.kind) {
              case "mkdir":
              case "create":
                if (nodeid !== ENOENT || !tree.children.has(directory)) break;
                tree.give(tree.make(directory, name, each.kind === "mkdir"), table.entry);
                table.learn(each.path, table.entry);
                break;
              case "remove":
                if (nodeid < 0 || (tree.children.get(nodeid)?.size ?? 0) > 0) break;
                tree.children.get(directory)?.delete(name);
                table.gone(each.path);
                break;
              case "rename": {
                const [toParent, toName] = split(each.to);
                const target = tree.at(toParent);
                if (nodeid < 0 || !tree.children.has(target) || `${each.to}/`.startsWith(`${each.path}/`))
                  break;
                if (
                  (tree.children.get(tree.at(each.to))?.size ?? 0) > 0 ||
                  each.path.startsWith(`${each.to}/`)
                )
                  break;
                tree.children.get(directory)?.delete(name);
                tree.children.get(target)?.set(toName, nodeid);
                table.moved(each.path, each.to);
                paths.add(each.to);
                break;
              }
              case "link": {
                const [toParent, toName] = split(each.to);
                const target = tree.children.get(tree.at(toParent));
                if (nodeid < 0 || tree.children.has(nodeid) || target === undefined || target.has(toName))
                  break;
                target.set(toName, nodeid);
                tree.give(nodeid, table.entry);
                table.learn(each.to, table.entry);
                paths.add(each.to);
                break;
              }
              case "open":
                if (nodeid > 1) {
                  open.push(table.resolve(each.path));
                  table.opened(nodeid);
                }
                break;
              case "close":
                if (open.length > 0) table.closed(open.pop() as number);
                break;
              case "resolve":
                break;
            }
            for (const known of paths) expect(table.resolve(known)).toBe(tree.at(known));
            expect(table.sizes.paths).toBeLessThanOrEqual(limit);
          }
          for (const nodeid of open) table.closed(nodeid);
          for (const known of paths) {
            for (let at = known; at !== ""; at = split(at)[0]) table.gone(at);
          }
          expect(tree.held()).toEqual([]);
          expect(table.sizes).toEqual({ paths: 0, nodes: 0, aliases: 0 });
        },
      ),
    );
  });
});
