// The edge cases of layer tars: each test is one row of the table of what OCI's spec, containerd, umoci and moby expect,
// in the table's order; the name begins with the row's name. Where an error is one of the allowed answers, the test
// says which answer imgfs gives.
import { existsSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  base256,
  bytes,
  device,
  dir,
  type Entry,
  fifo,
  file,
  gnuLong,
  hardlink,
  header,
  opaque,
  padded,
  paxHeader,
  symlink,
  tar,
  tarWithoutEnd,
  whiteout,
} from "../fixtures/tar.js";
import { buildStack, paths, type Shown, stack } from "./stack.js";

/** What is at a path; a test fails here when there is nothing. */
function at(tree: ReadonlyMap<string, Shown>, path: string): Shown {
  const shown = tree.get(path);
  if (shown === undefined) throw new Error(`nothing at ${path}; there are ${paths(tree).join(", ")}`);
  return shown;
}

const etc = tar(dir("etc"), file("etc/a", "lower a"), file("etc/b", "lower b"));
const refuses = (message: RegExp | string, ...tars: Uint8Array[]): Promise<void> =>
  expect(buildStack(tars)).rejects.toThrow(message);

describe("whiteouts", () => {
  it("whiteout_file: .wh.NAME removes lower NAME and is itself invisible", async () => {
    expect(paths(await stack(etc, tar(whiteout("etc/a"))))).toEqual(["etc/", "etc/b"]);
  });

  it("whiteout_dir: whiteout of a directory removes the subtree", async () => {
    expect(paths(await stack(etc, tar(file("x"), whiteout("etc"))))).toEqual(["x"]);
  });

  it("whiteout_symlink_not_target: the whiteout of a symlink leaves its target", async () => {
    const lower = tar(file("target", "t"), symlink("link", "target"));
    expect(paths(await stack(lower, tar(whiteout("link"))))).toEqual(["target"]);
  });

  it("whiteout_missing_noop: a whiteout of nothing does nothing", async () => {
    expect(paths(await stack(etc, tar(whiteout("etc/never"))))).toEqual(["etc/", "etc/a", "etc/b"]);
  });

  it("whiteout_nonempty_body: the body of a whiteout is ignored", async () => {
    const upper = tar({ ...whiteout("etc/a"), body: "x".repeat(700) }, file("after", "1"));
    const tree = await stack(etc, upper);
    expect(paths(tree)).toEqual(["after", "etc/", "etc/b"]);
    expect(at(tree, "after").text).toBe("1");
  });

  it("whiteout_then_recreate_same_layer: whiteouts apply to lower layers only", async () => {
    const tree = await stack(etc, tar(whiteout("etc/a"), file("etc/a", "new")));
    expect(at(tree, "etc/a").text).toBe("new");
  });

  it("recreate_then_whiteout_same_layer: the order inside a layer does not matter", async () => {
    const tree = await stack(etc, tar(file("etc/a", "new"), whiteout("etc/a")));
    expect(at(tree, "etc/a").text).toBe("new");
  });

  it("whiteout_resurrect_third_layer: a later layer may bring a name back", async () => {
    const tree = await stack(etc, tar(whiteout("etc/a")), tar(file("etc/a", "third")));
    expect(at(tree, "etc/a").text).toBe("third");
  });

  const newEtc = [dir("etc", { mode: 0o700 }), file("etc/new", "n")];
  it("whiteout_dir_then_new_dir_same_layer: the directory is replaced, as if opaque", async () => {
    const tree = await stack(etc, tar(whiteout("etc"), ...newEtc));
    expect(paths(tree)).toEqual(["etc/", "etc/new"]);
    expect(at(tree, "etc").mode).toBe(0o700);
  });

  it("new_dir_then_whiteout_dir_same_layer: entries of the layer survive its own whiteout", async () => {
    const tree = await stack(etc, tar(...newEtc, whiteout("etc")));
    expect(paths(tree)).toEqual(["etc/", "etc/new"]);
    expect(at(tree, "etc").mode).toBe(0o700);
  });

  it("a directory that only its children imply is a new one after a whiteout of it", async () => {
    const lower = tar(dir("d", { mode: 0o700, uid: 7 }), file("d/old"));
    for (const upper of [tar(whiteout("d"), file("d/new")), tar(file("d/new"), whiteout("d"))]) {
      const tree = await stack(lower, upper);
      expect(paths(tree)).toEqual(["d/", "d/new"]);
      expect(at(tree, "d")).toMatchObject({ mode: 0o755, uid: 0 });
    }
  });
});

describe("opaque directories", () => {
  const lower = tar(dir("d", { mode: 0o711 }), file("d/old"), dir("d/sub"), file("d/sub/old"));

  it("opaque_first: an opaque marker before its siblings hides what is below", async () => {
    expect(paths(await stack(lower, tar(dir("d"), opaque("d"), file("d/new"))))).toEqual(["d/", "d/new"]);
  });

  it("opaque_last: the marker may come last, and siblings of the layer survive", async () => {
    expect(paths(await stack(lower, tar(dir("d"), file("d/new"), opaque("d"))))).toEqual(["d/", "d/new"]);
  });

  it("opaque_with_nested_same_layer: nested entries of the layer survive, nested lower ones do not", async () => {
    const tree = await stack(lower, tar(dir("d"), dir("d/sub"), file("d/sub/new"), opaque("d")));
    expect(paths(tree)).toEqual(["d/", "d/sub/", "d/sub/new"]);
  });

  it("opaque_root: an opaque root hides everything below", async () => {
    expect(paths(await stack(lower, tar(opaque(""), file("only"))))).toEqual(["only"]);
  });

  it("opaque_without_dir_entry: the directory keeps what a lower layer says of it", async () => {
    const tree = await stack(lower, tar(opaque("d"), file("d/new")));
    expect(paths(tree)).toEqual(["d/", "d/new"]);
    expect(at(tree, "d").mode).toBe(0o711);
  });

  it("opaque_then_lower_of_lower: an opaque directory hides all layers below it, not those above", async () => {
    const tree = await stack(lower, tar(opaque("d"), file("d/middle")), tar(file("d/top")));
    expect(paths(tree)).toEqual(["d/", "d/middle", "d/top"]);
  });

  it("opaque_missing_dir: a marker for a directory there is not makes an empty one", async () => {
    expect(paths(await stack(etc, tar(opaque("none"))))).toEqual(["etc/", "etc/a", "etc/b", "none/"]);
  });
});

describe("AUFS metadata and bad whiteouts", () => {
  it("aufs_plnk_ignored: .wh..wh.* is skipped", async () => {
    const upper = tar(
      file(".wh..wh.aufs"),
      dir(".wh..wh.plnk"),
      file(".wh..wh.plnk/1.2", "x"),
      dir(".wh..wh.orph"),
      file("etc/.wh..wh.other"),
      file("kept"),
    );
    expect(paths(await stack(etc, upper))).toEqual(["etc/", "etc/a", "etc/b", "kept"]);
  });

  it("aufs_plnk_hardlink_source: hard links to .wh..wh.plnk are resolved", async () => {
    const upper = tar(
      dir(".wh..wh.plnk"),
      file(".wh..wh.plnk/1.2", "linked"),
      hardlink("one", ".wh..wh.plnk/1.2"),
      hardlink("two", "/.wh..wh.plnk/1.2"),
    );
    const tree = await stack(upper);
    expect(paths(tree)).toEqual(["one", "two"]);
    expect(at(tree, "one")).toMatchObject({ text: "linked", nlink: 2, row: at(tree, "two").row });
  });

  it("whiteout_dotdot_invalid: a whiteout of .. is an error and wipes nothing", async () => {
    await refuses("entry etc/.wh...: invalid whiteout of ..", etc, tar(file("etc/.wh...")));
  });

  it("whiteout_dot_invalid: a whiteout of . is an error", async () => {
    await refuses("entry etc/.wh..: invalid whiteout of .", etc, tar(file("etc/.wh..")));
  });

  it("whiteout_root_parent_invalid: a whiteout of the root's parent, or of no name, is an error", async () => {
    await refuses("invalid whiteout of ..", etc, tar(file(".wh...")));
    await refuses("invalid whiteout of an empty name", etc, tar(file("etc/.wh.")));
  });

  it("whiteout_through_symlink_parent: error, never followed", async () => {
    const lower = tar(dir("etc"), file("etc/w"), symlink("link", "etc"));
    await refuses(/link.*symlink|symlink.*link/, lower, tar(whiteout("link/w")));
  });

  it("whiteout_dir_name_is_plain: .wh. counts in the last component only", async () => {
    const tree = await stack(etc, tar(file(".wh.etc/inside", "plain")));
    expect(paths(tree)).toEqual([".wh.etc/", ".wh.etc/inside", "etc/", "etc/a", "etc/b"]);
  });
});

describe("replacing and merging", () => {
  const lower = tar(dir("d"), file("d/child"), file("f", "f"), symlink("s", "d"));

  it("replace_dir_by_file: the subtree goes", async () => {
    expect(paths(await stack(lower, tar(file("d", "now a file"))))).toEqual(["d", "f", "s -> d"]);
  });

  it("replace_file_by_dir: a directory takes the file's place", async () => {
    expect(paths(await stack(lower, tar(dir("f"), file("f/x"))))).toEqual([
      "d/",
      "d/child",
      "f/",
      "f/x",
      "s -> d",
    ]);
  });

  it("replace_dir_by_symlink: the subtree goes", async () => {
    expect(paths(await stack(lower, tar(symlink("d", "f"))))).toEqual(["d -> f", "f", "s -> d"]);
  });

  it("replace_symlink_by_dir: a directory entry replaces the symlink, its target is untouched", async () => {
    const tree = await stack(lower, tar(dir("s"), file("s/new")));
    expect(paths(tree)).toEqual(["d/", "d/child", "f", "s/", "s/new"]);
  });

  it("symlink_override_dir_then_child: error, an entry is not placed through a symlink", async () => {
    await refuses(
      "entry etc2/np: its parent etc2 is a symlink",
      etc,
      tar(symlink("etc2", "etc"), file("etc2/np")),
    );
  });

  it("dir_over_dir_updates_mode_owner_mtime: the upper entry's metadata, both contents", async () => {
    const tree = await stack(etc, tar(dir("etc", { mode: 0o700, uid: 5, gid: 6, mtime: 99 }), file("etc/c")));
    expect(at(tree, "etc")).toMatchObject({ mode: 0o700, uid: 5, gid: 6, sec: 99 });
    expect(paths(tree)).toEqual(["etc/", "etc/a", "etc/b", "etc/c"]);
  });

  it("file_metadata_only_change: the upper entry is the whole truth about the file", async () => {
    const tree = await stack(etc, tar(file("etc/a", "lower a", { mode: 0o600, uid: 3 })));
    expect(at(tree, "etc/a")).toMatchObject({ mode: 0o600, uid: 3, text: "lower a" });
  });

  it("missing_parent_dirs: implied parents are 0755 root, mtime 0", async () => {
    const tree = await stack(tar(file("a/b/c", "x", { mtime: 5, uid: 9 })));
    for (const path of ["a", "a/b"]) {
      expect(at(tree, path)).toMatchObject({ type: "dir", mode: 0o755, uid: 0, gid: 0, sec: 0 });
    }
  });

  it("missing_parent_keeps_lower_meta: an entry without its parent leaves the parent alone", async () => {
    const tree = await stack(tar(dir("p", { mode: 0o1777, uid: 4, mtime: 77 })), tar(file("p/x")));
    expect(at(tree, "p")).toMatchObject({ mode: 0o1777, uid: 4, sec: 77 });
  });

  it("parent_after_child: a late parent entry keeps the children", async () => {
    const tree = await stack(tar(file("p/x", "x"), dir("p", { mode: 0o700 })));
    expect(paths(tree)).toEqual(["p/", "p/x"]);
    expect(at(tree, "p").mode).toBe(0o700);
  });

  it("duplicate_entry_last_wins: the last of two entries counts", async () => {
    const tree = await stack(tar(file("f", "first", { mode: 0o600 }), file("f", "second")));
    expect(at(tree, "f")).toMatchObject({ text: "second", mode: 0o644 });
  });

  it("duplicate_dir_last_meta: the last entry's metadata, all children", async () => {
    const tree = await stack(
      tar(dir("d", { mode: 0o700 }), file("d/x"), dir("d", { mode: 0o711, mtime: 3 })),
    );
    expect(at(tree, "d")).toMatchObject({ mode: 0o711, sec: 3 });
    expect(paths(tree)).toEqual(["d/", "d/x"]);
  });

  it("a directory that replaced a file of its own layer shows nothing of the directory below", async () => {
    expect(paths(await stack(etc, tar(file("etc"), dir("etc"), file("etc/n"))))).toEqual(["etc/", "etc/n"]);
  });
});

describe("paths", () => {
  it("dot_slash_prefix: ./ is dropped", async () => {
    expect(paths(await stack(tar(dir("./a"), file("./a/b"))))).toEqual(["a/", "a/b"]);
  });

  it("leading_slash: a path is relative to the root", async () => {
    expect(paths(await stack(tar(dir("/a"), file("/a/b"))))).toEqual(["a/", "a/b"]);
  });

  it("double_slash_and_dot: empty and . components are dropped", async () => {
    expect(paths(await stack(tar(file("a//.//b/./c"))))).toEqual(["a/", "a/b/", "a/b/c"]);
  });

  it("root_entry_sets_root_meta: ./ describes the root", async () => {
    const tree = await stack(
      tar({ name: "./", type: "5", mode: 0o711, uid: 8, gid: 9, mtime: 1234 }, file("x")),
    );
    expect(at(tree, "")).toMatchObject({ mode: 0o711, uid: 8, gid: 9, sec: 1234 });
    expect(at(await stack(tar(file("x"))), "")).toMatchObject({ mode: 0o755, uid: 0, gid: 0, sec: 0 });
    await refuses("a file cannot be the root", tar(file("..")));
  });

  it("dotdot_escape: clamped to the root; nothing appears on the host", async () => {
    const tree = await stack(tar(file("../../../../tmp/.layer-escape", "x")));
    expect(paths(tree)).toEqual(["tmp/", "tmp/.layer-escape"]);
    expect(existsSync("/tmp/.layer-escape")).toBe(false);
  });

  it("dotdot_inside: .. inside a path goes up", async () => {
    expect(paths(await stack(tar(file("a/../b/c"))))).toEqual(["b/", "b/c"]);
  });

  it("dotdot_whiteout: clamped, so it is the root's entry that goes", async () => {
    expect(paths(await stack(etc, tar(file("../../.wh.etc"))))).toEqual([]);
  });

  it("symlink_abs_escape_write: error, the host is not touched", async () => {
    const layer = tar(symlink("esc", "/tmp"), file("esc/.layer-escape2", "x"));
    await refuses("entry esc/.layer-escape2: its parent esc is a symlink", layer);
    expect(existsSync("/tmp/.layer-escape2")).toBe(false);
  });

  it("symlink_rel_escape_write: error, in the next layer too", async () => {
    const lower = tar(symlink("esc", "../../../../tmp"));
    await refuses(
      "its parent esc is a symlink",
      tar(symlink("esc", "../../../../tmp"), file("esc/.layer-escape3")),
    );
    await refuses(/esc/, lower, tar(file("esc/.layer-escape3")));
    expect(existsSync("/tmp/.layer-escape3")).toBe(false);
  });

  it("symlink_kept_verbatim: a target is bytes", async () => {
    const targets = ["/abs", "../../../up", "a//b/./c/", "nowhere", "x".repeat(100)];
    const tree = await stack(tar(...targets.map((target, i) => symlink(`s${i}`, target))));
    expect(targets.map((_, i) => at(tree, `s${i}`).text)).toEqual(targets);
  });
});

describe("hard links", () => {
  it("hardlink_same_layer: one inode, two names", async () => {
    const tree = await stack(tar(file("a", "x"), hardlink("b", "a")));
    expect(at(tree, "b")).toMatchObject({ nlink: 2, text: "x", row: at(tree, "a").row });
  });

  it("hardlink_to_lower: the lower inode gets one more name", async () => {
    const tree = await stack(etc, tar(hardlink("h", "etc/a")));
    expect(at(tree, "h")).toMatchObject({ nlink: 2, text: "lower a", row: at(tree, "etc/a").row });
  });

  it("hardlink_to_lower_abs_and_dot: /etc/a and ./etc/a name the same", async () => {
    const tree = await stack(etc, tar(hardlink("h1", "/etc/a"), hardlink("h2", "./etc//a")));
    expect(at(tree, "etc/a").nlink).toBe(3);
  });

  it("hardlink_to_whited_out_lower: error", async () => {
    await refuses(
      "entry h: hard link target etc/a is removed by this layer",
      etc,
      tar(whiteout("etc/a"), hardlink("h", "etc/a")),
    );
    await refuses("removed by this layer", etc, tar(opaque("etc"), hardlink("h", "etc/a")));
  });

  it("hardlink_to_missing: error that names link and target", async () => {
    await refuses(/h\b.*never/, etc, tar(hardlink("h", "never")));
  });

  it("hardlink_forward: a target later in the layer is found", async () => {
    const tree = await stack(tar(hardlink("h", "later"), hardlink("h2", "h"), file("later", "x")));
    expect(at(tree, "later").nlink).toBe(3);
    expect(at(tree, "h").row).toBe(at(tree, "h2").row);
  });

  it("hardlink_to_symlink: the link is the same symlink", async () => {
    const tree = await stack(tar(file("f"), symlink("s", "f"), hardlink("hs", "s")));
    expect(at(tree, "hs")).toMatchObject({ type: "symlink", text: "f", nlink: 2, row: at(tree, "s").row });
  });

  it("hardlink_dotdot_clamped: a target is clamped to the root", async () => {
    const tree = await stack(
      etc,
      tar(hardlink("h", "../../../etc/a"), hardlink("i", "../../never/../etc/b")),
    );
    expect(at(tree, "h").text).toBe("lower a");
    expect(at(tree, "i").text).toBe("lower b");
  });

  it("hardlink_through_symlink_dir: resolved inside the root", async () => {
    const linked = await stack(
      tar(
        dir("real"),
        file("real/t", "x"),
        dir("d"),
        symlink("d/rel", "../../../real"),
        hardlink("h", "d/rel/t"),
      ),
    );
    expect(at(linked, "h").row).toBe(at(linked, "real/t").row);
    await refuses("passes too many symlinks", tar(symlink("loop", "loop"), hardlink("h", "loop/x")));
  });

  it("hardlink_to_dir_rejected: error", async () => {
    await refuses("entry h: hard link target d is a directory", tar(dir("d"), hardlink("h", "d")));
    await refuses("hard link target later is a directory", tar(hardlink("h", "later"), dir("later")));
    await refuses(/etc/, etc, tar(hardlink("h", "etc")));
  });

  it("hardlink_with_other_meta: the link's header sets the inode within a layer, not below it", async () => {
    const meta = { mode: 0o4711, uid: 11, gid: 12, mtime: 13 };
    const same = await stack(
      tar(file("a", "x", { pax: { "SCHILY.xattr.user.k": "old", "SCHILY.xattr.user.o": "o" } }), {
        ...hardlink("b", "a", meta),
        pax: { "SCHILY.xattr.user.k": "new" },
      }),
    );
    expect(at(same, "a")).toMatchObject({ mode: 0o4711, uid: 11, gid: 12, sec: 13, nlink: 2 });
    expect(at(same, "a").xattrs).toEqual({ "user.k": "new", "user.o": "o" });
    const lower = await stack(etc, tar(hardlink("h", "etc/a", meta)));
    expect(at(lower, "etc/a")).toMatchObject({ mode: 0o644, uid: 0, gid: 0, sec: 0 });
  });

  it("hardlink_chain_across_layers_then_replace: replacing one name leaves the others", async () => {
    const tree = await stack(
      tar(file("a", "one")),
      tar(hardlink("b", "a")),
      tar(hardlink("c", "b")),
      tar(file("a", "new")),
    );
    expect(at(tree, "a")).toMatchObject({ text: "new", nlink: 1 });
    expect(at(tree, "b")).toMatchObject({ text: "one", nlink: 2, row: at(tree, "c").row });
  });

  it("hardlink_survivor_after_whiteout: removing one name leaves the other", async () => {
    const tree = await stack(tar(file("a", "x"), hardlink("b", "a")), tar(whiteout("a")));
    expect(paths(tree)).toEqual(["b"]);
    expect(at(tree, "b")).toMatchObject({ text: "x", nlink: 1 });
  });
});

describe("names and PAX", () => {
  const long = `${"d".repeat(120)}/${"e".repeat(120)}/${"f".repeat(120)}`;

  it("long_name_pax: path and linkpath records", async () => {
    const tree = await stack(
      tar(
        { name: "short", body: "x", pax: { path: long } },
        { name: "l", type: "2", link: "cut", pax: { linkpath: "t".repeat(300) } },
      ),
    );
    expect(at(tree, long).text).toBe("x");
    expect(at(tree, "l").text).toBe("t".repeat(300));
  });

  it("long_name_gnu: L and K records", async () => {
    const tree = await stack(
      tar(
        gnuLong("L", long),
        file("cut", "x", { format: "gnu" }),
        gnuLong("K", "t".repeat(300)),
        symlink("l", "cut"),
      ),
    );
    expect(at(tree, long).text).toBe("x");
    expect(at(tree, "l").text).toBe("t".repeat(300));
  });

  it("long_name_ustar_prefix: prefix and name join, in ustar only", async () => {
    const tree = await stack(
      tar(
        { name: "name", prefix: "p/q", body: "x" },
        { name: "gnu", prefix: "atime", format: "gnu" },
        { name: "v7", prefix: "junk", format: "v7" },
      ),
    );
    expect(paths(tree)).toEqual(["gnu", "p/", "p/q/", "p/q/name", "v7"]);
  });

  it("name_255: a name of 255 bytes is kept", async () => {
    const name = "n".repeat(255);
    expect(paths(await stack(tar({ name: "x", pax: { path: name } })))).toEqual([name]);
  });

  it("name_256_rejected: error; so is a path beyond 4095 bytes", async () => {
    await refuses("name of 256 bytes, at most 255", tar({ name: "x", pax: { path: "n".repeat(256) } }));
    await refuses(
      "path of 4096 bytes, at most 4095",
      tar({ name: "x", pax: { path: `${"ab/".repeat(1365)}x` } }),
    );
  });

  it("pax_utf8_and_raw_bytes: names are bytes, not UTF-8 strings", async () => {
    const raw = Buffer.from([0x63, 0xe9, 0xff, 0xfe, 0x80]);
    const utf8 = Buffer.from("café");
    const tree = await stack(
      tar(
        { name: "a", pax: { path: utf8 } },
        { name: "b", pax: { hdrcharset: "BINARY", path: raw } },
        { name: "c\n\\" },
      ),
    );
    expect([...tree.keys()].sort()).toEqual(
      ["", "c\n\\", raw.toString("latin1"), utf8.toString("latin1")].sort(),
    );
  });

  it("pax_path_overrides_header: the record wins over name and prefix", async () => {
    expect(paths(await stack(tar({ name: "n", prefix: "p", pax: { path: "real" } })))).toEqual(["real"]);
  });

  it("pax_size_gt_header: the size record wins", async () => {
    const body = "y".repeat(1500);
    const tree = await stack(tar({ name: "f", body, size: 1, pax: { size: "1500" } }, file("after", "z")));
    expect(at(tree, "f").text).toBe(body);
    expect(at(tree, "after").text).toBe("z");
  });

  it("pax_global_header_ignored: a global header is no entry; what it sets is honoured", async () => {
    const tree = await stack(
      tar(
        paxHeader({ comment: "0123456789", uid: "1000", mtime: "12.5" }, "g"),
        file("a", "1", { uid: 5 }),
        { ...file("b", "2"), pax: { uid: "7" } },
        paxHeader({ uid: "" }, "g"),
        file("c", "3", { uid: 5 }),
      ),
    );
    expect(paths(tree)).toEqual(["a", "b", "c"]);
    expect(at(tree, "a")).toMatchObject({ uid: 1000, sec: 12, nsec: 500_000_000 });
    expect(at(tree, "b").uid).toBe(7);
    expect(at(tree, "c").uid).toBe(5);
  });
});

describe("extended attributes", () => {
  it("xattr_schily: on files, directories and symlinks; an empty one is kept", async () => {
    const pax = { "SCHILY.xattr.user.a": "1", "SCHILY.xattr.user.empty": "" };
    const tree = await stack(tar({ ...file("f"), pax }, { ...dir("d"), pax }, { ...symlink("s", "f"), pax }));
    for (const path of ["f", "d", "s"])
      expect(at(tree, path).xattrs).toEqual({ "user.a": "1", "user.empty": "" });
  });

  it("xattr_schily_capability: binary values with NUL bytes, newlines and = survive", async () => {
    const value = Buffer.from([1, 0, 0, 2, 0x0a, 0x3d, 0x20, 0xff, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    const tree = await stack(tar({ ...file("f"), pax: { "SCHILY.xattr.security.capability": value } }));
    expect(at(tree, "f").xattrs["security.capability"]).toBe(value.toString("latin1"));
  });

  it("xattr_libarchive: decoded where there is no SCHILY form, ignored where there is", async () => {
    const tree = await stack(
      tar({
        ...file("f"),
        pax: {
          "LIBARCHIVE.xattr.user.only%20one": Buffer.from([0, 1, 2]).toString("base64"),
          "LIBARCHIVE.xattr.user.both": Buffer.from("libarchive").toString("base64"),
          "SCHILY.xattr.user.both": "schily",
        },
      }),
    );
    expect(at(tree, "f").xattrs).toEqual({ "user.only one": "\0\x01\x02", "user.both": "schily" });
  });
});

describe("times, owners, modes", () => {
  const mtimeOf = async (entry: Entry): Promise<[number, number]> => {
    const { sec, nsec } = at(await stack(tar(entry)), "f");
    return [sec, nsec];
  };

  it("mtime_subsecond_pax: a float of a few digits", async () => {
    expect(await mtimeOf({ name: "f", pax: { mtime: "1700000000.5" } })).toEqual([
      1_700_000_000, 500_000_000,
    ]);
  });

  it("mtime_ns_exact_pax: nine digits exactly, more are cut", async () => {
    expect(await mtimeOf({ name: "f", pax: { mtime: "1700000000.123456789" } })).toEqual([
      1_700_000_000, 123456789,
    ]);
    expect(await mtimeOf({ name: "f", pax: { mtime: "1.0000000019" } })).toEqual([1, 1]);
  });

  it("mtime_negative: base-256", async () => {
    expect(await mtimeOf({ name: "f", mtime: base256(-5, 12) })).toEqual([-5, 0]);
    expect(await mtimeOf({ name: "f", mtime: base256(-315_532_800, 12) })).toEqual([-315_532_800, 0]);
  });

  it("mtime_negative_pax: with a fraction too", async () => {
    expect(await mtimeOf({ name: "f", pax: { mtime: "-5" } })).toEqual([-5, 0]);
    expect(await mtimeOf({ name: "f", pax: { mtime: "-1.25" } })).toEqual([-2, 750_000_000]);
  });

  it("mtime_2100: beyond 32 bits, octal and PAX", async () => {
    expect(await mtimeOf({ name: "f", mtime: 4_102_444_800 })).toEqual([4_102_444_800, 0]);
    expect(await mtimeOf({ name: "f", pax: { mtime: "99999999999.000000001" } })).toEqual([
      99_999_999_999, 1,
    ]);
  });

  it("mtime_zero: the epoch is a time", async () => {
    expect(await mtimeOf({ name: "f", mtime: 0 })).toEqual([0, 0]);
  });

  it("dir_mtime_kept_after_children: a directory's time is its entry's", async () => {
    const tree = await stack(tar(dir("d", { mtime: 42 }), file("d/x", "", { mtime: 50 }), dir("d/e")));
    expect(at(tree, "d").sec).toBe(42);
  });

  it("dir_mtime_upper_child_only: a child alone leaves the lower directory's time", async () => {
    expect(at(await stack(tar(dir("a", { mtime: 42 })), tar(file("a/x", "", { mtime: 50 }))), "a").sec).toBe(
      42,
    );
  });

  it("symlink_mtime: a symlink has a time of its own", async () => {
    expect(at(await stack(tar(symlink("s", "x", { mtime: 77 }))), "s").sec).toBe(77);
  });

  it("uid_gt_2_21_base256: ids beyond octal", async () => {
    const tree = await stack(tar(file("f", "", { uid: 3_000_000, gid: 4_294_967_294 })));
    expect(at(tree, "f")).toMatchObject({ uid: 3_000_000, gid: 4_294_967_294 });
    await refuses("uid 4294967295 is out of range", tar(file("f", "", { uid: 4_294_967_295 })));
    await refuses("gid -1 is out of range", tar(file("f", "", { gid: base256(-1, 8) })));
  });

  it("uid_pax: uid and gid records", async () => {
    const tree = await stack(tar({ ...file("f"), pax: { uid: "4294967294", gid: "123456789" } }));
    expect(at(tree, "f")).toMatchObject({ uid: 4_294_967_294, gid: 123_456_789 });
  });

  it("setuid_setgid_sticky: the special bits are kept", async () => {
    const tree = await stack(
      tar(file("u", "", { mode: 0o4755 }), file("g", "", { mode: 0o2755 }), dir("t", { mode: 0o1777 })),
    );
    expect([at(tree, "u").mode, at(tree, "g").mode, at(tree, "t").mode]).toEqual([0o4755, 0o2755, 0o1777]);
  });

  it("setuid_with_owner: an owner does not clear the setuid bit", async () => {
    const tree = await stack(tar(file("f", "x", { mode: 0o6755, uid: 33, gid: 33 })));
    expect(at(tree, "f")).toMatchObject({ mode: 0o6755, uid: 33, gid: 33 });
  });

  it("mode_with_file_type_bits: type bits in the mode field are dropped", async () => {
    const tree = await stack(tar(file("f", "", { mode: 0o100644 }), dir("d", { mode: 0o040755 })));
    expect([at(tree, "f").mode, at(tree, "d").mode]).toEqual([0o644, 0o755]);
  });

  it("mode_0000: no permission is a permission", async () => {
    expect(at(await stack(tar(file("f", "x", { mode: 0 }))), "f")).toMatchObject({ mode: 0, text: "x" });
  });
});

describe("special files", () => {
  it("char_block_fifo: types and device numbers", async () => {
    const tree = await stack(tar(device("c", "3", 1, 3), device("b", "4", 300, 70000), fifo("p")));
    expect(at(tree, "c")).toMatchObject({ type: "char", rdev: 0x0103 });
    expect(at(tree, "b")).toMatchObject({
      type: "block",
      rdev: (70000 & 0xff) | (300 << 8) | ((70000 & ~0xff) << 12),
    });
    expect(at(tree, "p").type).toBe("fifo");
  });

  it("char_0_0_is_not_magic: a device 0:0 in a layer is a device", async () => {
    const tree = await stack(etc, tar(device("etc/a", "3", 0, 0)));
    expect(at(tree, "etc/a")).toMatchObject({ type: "char", rdev: 0 });
  });

  it("overlay_xattr_in_layer_ignored: trusted.overlay.* and user.overlay.* are data", async () => {
    const pax = { "SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.overlay.opaque": "y" };
    const tree = await stack(etc, tar({ ...dir("etc"), pax }, file("etc/c")));
    expect(paths(tree)).toEqual(["etc/", "etc/a", "etc/b", "etc/c"]);
    expect(at(tree, "etc").xattrs).toEqual({ "trusted.overlay.opaque": "y", "user.overlay.opaque": "y" });
  });

  it("device_then_file_replaced: a file takes a device's place", async () => {
    const tree = await stack(tar(device("x", "3", 1, 3)), tar(file("x", "file now")));
    expect(at(tree, "x")).toMatchObject({ type: "file", text: "file now" });
  });
});

describe("sparse files and types", () => {
  it("sparse_gnu_old: type S, with extension blocks", async () => {
    const pieces = Array.from({ length: 30 }, (_, i) => [i * 8192, 512] as const);
    const put = (block: Buffer, start: number, list: readonly (readonly [number, number])[]): void =>
      list.forEach(([offset, length], i) => {
        block.write(offset.toString(8).padStart(11, "0"), start + i * 24, "latin1");
        block.write(length.toString(8).padStart(11, "0"), start + i * 24 + 12, "latin1");
      });
    const body = Buffer.concat(pieces.map((_, i) => Buffer.alloc(512, 65 + (i % 26))));
    const head = header({
      name: "s",
      type: "S",
      format: "gnu",
      body,
      patch: (block) => {
        put(block, 386, pieces.slice(0, 4));
        block[482] = 1;
        block.write((300000).toString(8).padStart(11, "0"), 483, "latin1");
      },
    });
    const extensions = [Buffer.alloc(512), Buffer.alloc(512)];
    put(extensions[0] as Buffer, 0, pieces.slice(4, 25));
    (extensions[0] as Buffer)[504] = 1;
    put(extensions[1] as Buffer, 0, pieces.slice(25));
    const tree = await stack(tar(head, ...extensions, padded(body), file("after", "ok")));
    const expected = Buffer.alloc(300000);
    for (const [i, [offset, length]] of pieces.entries())
      expected.fill(65 + (i % 26), offset, offset + length);
    expect(at(tree, "s").size).toBe(300000);
    expect(at(tree, "s").text).toBe(expected.subarray(0, 65536).toString("latin1"));
    expect(at(tree, "after").text).toBe("ok");
  });

  const pieces = Buffer.from("HEADTAIL");
  const expected = `HEAD${"\0".repeat(96)}TAIL${"\0".repeat(96)}`;

  it("sparse_pax_1_0: the map before the data", async () => {
    const map = padded(bytes("3\n0\n4\n100\n4\n200\n0\n"));
    const pax = {
      "GNU.sparse.major": "1",
      "GNU.sparse.minor": "0",
      "GNU.sparse.name": "sparse",
      "GNU.sparse.realsize": "200",
    };
    const tree = await stack(
      tar({ name: "GNUSparseFile.1/sparse", body: Buffer.concat([map, pieces]), pax }, file("after", "ok")),
    );
    expect(paths(tree)).toEqual(["after", "sparse"]);
    expect(at(tree, "sparse")).toMatchObject({ size: 200, text: expected });
  });

  it("sparse PAX 0.1 and 0.0: the map in the records", async () => {
    const one = { "GNU.sparse.size": "200", "GNU.sparse.map": "0,4,100,4", "GNU.sparse.name": "one" };
    const zero: [string, string][] = [
      ["GNU.sparse.size", "200"],
      ["GNU.sparse.numblocks", "2"],
      ["GNU.sparse.offset", "0"],
      ["GNU.sparse.numbytes", "4"],
      ["GNU.sparse.offset", "100"],
      ["GNU.sparse.numbytes", "4"],
    ];
    const tree = await stack(
      tar({ name: "x", body: pieces, pax: one }, { name: "zero", body: pieces, pax: zero }),
    );
    expect(at(tree, "one")).toMatchObject({ size: 200, text: expected });
    expect(at(tree, "zero")).toMatchObject({ size: 200, text: expected });
  });

  it("a sparse file may be one hole, as large as an image can have it", async () => {
    const pax = { "GNU.sparse.size": String(2 ** 40), "GNU.sparse.map": "" };
    expect(at(await stack(tar({ name: "hole", pax })), "hole").size).toBe(2 ** 40);
  });

  it("sparse files that together are larger than numbers can say are refused as a layer, and as an image", async () => {
    const huge = (name: string, size: number): ReturnType<typeof file> =>
      file(name, "abcd", { pax: { "GNU.sparse.map": "0,4", "GNU.sparse.size": String(size) } });
    const [one, two] = [huge("a", 2 ** 53 - 1), huge("b", 2 ** 53 - 2)];
    await expect(stack(tar(one, two))).rejects.toThrow(/^its files have 2\^53 bytes or more together$/);
    await expect(stack(tar(one), tar(two))).rejects.toThrow(/those below have 2\^53 bytes or more together$/);
  });

  it("contiguous_type7_and_v7_nul: 7 and NUL are files, NUL with a trailing slash is a directory", async () => {
    const tree = await stack(
      tar(file("seven", "7", { type: "7" }), file("nul", "0", { type: "\0", format: "v7" }), {
        name: "dir/",
        type: "\0",
        format: "v7",
      }),
    );
    expect(paths(tree)).toEqual(["dir/", "nul", "seven"]);
    expect(at(tree, "seven").text + at(tree, "nul").text).toBe("70");
  });

  it("unknown_type_skipped: error that names the type and the entry", async () => {
    await refuses(
      'entry odd: unknown type "Z" at offset 512',
      tar(file("a"), file("odd", "", { type: "Z" })),
    );
  });

  it("zero_size_file_and_dir_with_size: an empty file is one, a directory has no body", async () => {
    const tree = await stack(tar(file("empty"), dir("d", { size: 4096 }), file("after", "x")));
    expect(paths(tree)).toEqual(["after", "d/", "empty"]);
    expect(at(tree, "empty").size).toBe(0);
  });

  it("file_exactly_512_and_513: padding is right", async () => {
    const sizes = [511, 512, 513, 1024, 1025];
    const tree = await stack(tar(...sizes.map((size) => file(`f${size}`, "s".repeat(size)))));
    for (const size of sizes) expect(at(tree, `f${size}`).text).toBe("s".repeat(size));
  });
});

describe("archives", () => {
  it("empty_tar_layer: two zero blocks, or nothing at all", async () => {
    expect(paths(await stack(etc, tar(), new Uint8Array(0)))).toEqual(["etc/", "etc/a", "etc/b"]);
  });

  it("no_eof_blocks: accepted, with one zero block too", async () => {
    expect(paths(await stack(tarWithoutEnd(file("f", "x"))))).toEqual(["f"]);
    expect(paths(await stack(tarWithoutEnd(file("f", "x"), Buffer.alloc(512))))).toEqual(["f"]);
  });

  it("trailing_garbage_after_eof: content ends at the zero blocks", async () => {
    expect(paths(await stack(Buffer.concat([tar(file("f", "x")), bytes("garbage".repeat(1000))])))).toEqual([
      "f",
    ]);
  });

  it("truncated_tar: error, wherever it is cut", async () => {
    const whole = tarWithoutEnd(file("a", "x".repeat(600)), { name: "b", body: "y", pax: { path: "long" } });
    for (const cut of [100, 600, 1100, 1600, 2000, 2400, 3000, whole.length - 512]) {
      await refuses(/the tar ends inside the member at offset/, whole.subarray(0, cut));
    }
  });

  it("no padding after the last file: accepted when the file is whole", async () => {
    const whole = tarWithoutEnd(file("a", "x".repeat(600)), file("b", "y"));
    for (const cut of [512 + 600, whole.length - 511, whole.length - 1]) {
      expect(paths(await stack(whole.subarray(0, cut)))).toEqual(cut < 1600 ? ["a"] : ["a", "b"]);
    }
  });

  it("dir_many_entries: 5,000 names in one directory", async () => {
    const names = Array.from({ length: 5000 }, (_, i) => `d/file-${i}`);
    const tree = await stack(tar(dir("d"), ...names.map((name) => file(name, name))));
    expect(tree.size).toBe(5002);
    for (const name of [names[0], names[4999], names[2500]] as string[])
      expect(at(tree, name).text).toBe(name);
  });

  it("layers_128_stack: 128 layers, each with its own word", async () => {
    const layers = Array.from({ length: 128 }, (_, i) =>
      tar(
        file("same", `layer ${i}`),
        file(`d/f${i}`, `${i}`),
        ...(i % 2 === 1 ? [whiteout(`d/f${i - 1}`)] : []),
      ),
    );
    const tree = await stack(...layers);
    expect(at(tree, "same").text).toBe("layer 127");
    expect([...tree.keys()].filter((path) => path.startsWith("d/"))).toHaveLength(64);
  });

  it("whiteout_prefix_names: only the .wh. prefix is magic", async () => {
    const names = ["a.wh.b", ".whx", ".w", "wh.", ".WH.a", "x/.wha"];
    const tree = await stack(tar(...names.map((name) => file(name))));
    expect(paths(tree)).toEqual([...names, "x/"].sort());
  });

  it("whiteout_of_long_name: the 255th byte counts the prefix too", async () => {
    const name = "n".repeat(251);
    const lower = tar({ name: "x", pax: { path: `d/${name}` } }, file("d/keep"));
    const upper = tar({ name: "x", pax: { path: `d/.wh.${name}` } });
    expect(paths(await stack(lower, upper))).toEqual(["d/", "d/keep"]);
  });
});
