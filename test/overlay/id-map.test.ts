// Id maps: what of the image's ids shows, what a copy gets, and that no id is lost on the way.
import { closeSync, existsSync, openSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { nameFromText } from "../../src/base/bytes.js";
import { FATTR_GID, FATTR_MODE, FATTR_UID } from "../../src/fuse/operations.js";
import type { FileInode } from "../../src/imgfs/tree.js";
import { InodeType } from "../../src/imgfs/tree.js";
import {
  createOwnerMap,
  hostId,
  type IdRange,
  type NamespaceIds,
  type OwnerMap,
  shownId,
} from "../../src/overlay/id-map.js";
import { readXattrFd } from "../../src/sys/xattr.js";
import { device, directory, file, symlink } from "../imgfs/support.js";
import { code, fresh, imageOf, type Mounted, mount } from "./harness.js";

const OVERFLOW = 65_533;
const all: NamespaceIds = {
  uids: undefined,
  gids: undefined,
  overflowUid: OVERFLOW,
  overflowGid: OVERFLOW + 1,
};
const range = (image: number, host: number, count: number): IdRange => ({ image, host, count });

/** The same ranges for users and groups. */
function mapOf(ranges: readonly IdRange[], squashToRoot = false, here = all): OwnerMap {
  const map = createOwnerMap({ uids: ranges, gids: ranges, squashToRoot }, here);
  if (map === undefined) throw new Error("no map");
  return map;
}

const container = mapOf([range(0, 100_000, 65_536)]);

/** An ACL: tag, permissions and id of each entry. */
function acl(...entries: [number, number, number][]): Buffer {
  const out = Buffer.alloc(4 + 8 * entries.length);
  out.writeUInt32LE(2);
  entries.forEach(([tag, permissions, id], i) => {
    out.writeUInt16LE(tag, 4 + 8 * i);
    out.writeUInt16LE(permissions, 6 + 8 * i);
    out.writeUInt32LE(id, 8 + 8 * i);
  });
  return out;
}

const NONE = 0xffff_ffff;
const aclOf = (user: number, group: number): Buffer =>
  acl([1, 6, NONE], [2, 4, user], [4, 4, NONE], [8, 2, group], [16, 6, NONE], [32, 0, NONE]);
const capability2 = Buffer.from("0100000200240000000000000000000000000000", "hex");
const capability3 = (root: number): Buffer => {
  const id = Buffer.alloc(4);
  id.writeUInt32LE(root);
  return Buffer.concat([Buffer.from("0100000300240000000000000000000000000000", "hex"), id]);
};

const owned = (uid: number, gid: number, more: Parameters<typeof file>[1] = {}): FileInode =>
  file(`${uid}:${gid}\n`, { uid, gid, ...more });
const withXattr = (name: string, value: Buffer, uid = 0): FileInode =>
  owned(uid, uid, { xattrs: [{ name: nameFromText(name), value }] });

function image(): string {
  return imageOf(
    directory({
      root: owned(0, 0),
      user: owned(1000, 1001, { mode: 0o4755 }),
      last: owned(65_535, 65_535),
      far: owned(65_536, 0),
      farGroup: owned(0, 70_000),
      most: owned(4_294_967_294, 4_294_967_294),
      home: directory({ file: owned(1000, 1000) }, { uid: 1000, gid: 1000, mode: 0o700 }),
      away: directory({ file: owned(5, 5) }, { uid: 90_000, gid: 5 }),
      link: symlink("root", { uid: 3, gid: 4 }),
      pipe: device(InodeType.fifo, 0, { uid: 3, gid: 4 }),
      acl: withXattr("system.posix_acl_access", aclOf(1234, 55)),
      farAcl: withXattr("system.posix_acl_access", aclOf(99_999, 55)),
      odd: withXattr("system.posix_acl_access", Buffer.from("no ACL")),
      capable: withXattr("security.capability", capability2),
      rooted: withXattr("security.capability", capability3(1000)),
    }),
  );
}

const ownerOf = (fs: Mounted, path: string): string => {
  const { uid, gid } = fs.stat(path);
  return `${uid}:${gid}`;
};
const onDisk = (...path: string[]): string => {
  const { uid, gid } = statSync(join(...path));
  return `${uid}:${gid}`;
};
const xattrOnDisk = (path: string, name: string): Buffer | number => {
  const fd = openSync(path, "r");
  try {
    return readXattrFd(fd, Buffer.from(name));
  } finally {
    closeSync(fd);
  }
};

describe("an owner map", () => {
  it("moves each range by itself and knows its ends", () => {
    const { user } = mapOf([range(0, 1000, 1), range(1, 100_000, 10), range(4_294_967_290, 5, 5)]);
    expect([0, 1, 10, 11, 4_294_967_290, 4_294_967_294].map((id) => hostId(user, id))).toEqual([
      1000, 100_000, 100_009, -1, 5, 9,
    ]);
    expect([11, 12].map((id) => shownId(user, id))).toEqual([OVERFLOW, OVERFLOW]);
  });

  it("is none where nothing is to be changed", () => {
    expect(createOwnerMap({ squashToRoot: false }, all)).toBeUndefined();
  });

  it("maps users and groups apart: the kind without a map shows as it is", () => {
    const owners = createOwnerMap({ uids: [range(0, 500, 5)], squashToRoot: false }, all) as OwnerMap;
    expect(hostId(owners.user, 3)).toBe(503);
    expect(hostId(owners.group, 3)).toBe(3);
  });

  it("cannot squash to a root that it does not have", () => {
    expect(() => mapOf([range(1, 1, 5)], true)).toThrow("cannot squash to root: the uid map has no id for 0");
  });
});

describe("a mount with an id map", () => {
  it("shows the image's owners moved, and the overflow id for those without one", () => {
    const fs = mount(image(), undefined, { owners: container });
    expect(["root", "user", "last", "home/file", "link", "pipe"].map((path) => ownerOf(fs, path))).toEqual([
      "100000:100000",
      "101000:101001",
      "165535:165535",
      "101000:101000",
      "100003:100004",
      "100003:100004",
    ]);
    expect(["far", "farGroup", "most"].map((path) => ownerOf(fs, path))).toEqual([
      `${OVERFLOW}:100000`,
      `100000:${OVERFLOW + 1}`,
      `${OVERFLOW}:${OVERFLOW + 1}`,
    ]);
  });

  it("shows them without a map as they are, up to the largest", () => {
    expect(ownerOf(mount(image()), "most")).toBe("4294967294:4294967294");
  });

  it("gives copies the ids it shows, directories and what is not a file too", () => {
    const upper = fresh();
    const fs = mount(image(), upper, { owners: container });
    for (const path of ["user", "home/file", "pipe"]) fs.setattr(path, { valid: FATTR_MODE, mode: 0o600 });
    fs.setattr("link", { valid: FATTR_UID, uid: 100_009 });
    expect(onDisk(upper)).toBe("100000:100000");
    expect(onDisk(upper, "user")).toBe("101000:101001");
    expect(onDisk(upper, "home")).toBe("101000:101000");
    expect(onDisk(upper, "home/file")).toBe("101000:101000");
    expect(onDisk(upper, "pipe")).toBe("100003:100004");
    expect(ownerOf(fs, "link")).toBe("100009:100004");
    expect(fs.stat("user").mode & 0o7777).toBe(0o600);
  });

  it("takes owners of new objects and of chown as they come: they are ids of the host", () => {
    const upper = fresh();
    const fs = mount(image(), upper, { owners: container });
    fs.uid = 101_000;
    fs.gid = 101_000;
    fs.create("home/new");
    fs.setattr("root", { valid: FATTR_UID | FATTR_GID, uid: 7, gid: 8 });
    expect(onDisk(upper, "home/new")).toBe("101000:101000");
    expect(ownerOf(fs, "home/new")).toBe("101000:101000");
    expect(ownerOf(fs, "root")).toBe("7:8");
  });

  it("refuses to change what has an id without a place, and can remove and read it", () => {
    const upper = fresh();
    const fs = mount(image(), upper, { owners: container });
    for (const path of ["far", "farGroup", "farAcl", "most"]) {
      expect(
        code(() => fs.setattr(path, { valid: FATTR_MODE, mode: 0o600 })),
        path,
      ).toBe("EOVERFLOW");
      expect(
        code(() => fs.write(path, "x")),
        path,
      ).toBe("EOVERFLOW");
    }
    expect(code(() => fs.create("away/new"))).toBe("EOVERFLOW");
    expect(code(() => fs.write("away/file", "x"))).toBe("EOVERFLOW");
    expect(code(() => fs.rename("far", "near"))).toBe("EOVERFLOW");
    expect(fs.read("far")).toBe("65536:0\n");
    expect(readdirSync(upper)).toEqual([]);
    fs.unlink("far");
    expect(fs.exists("far")).toBe(false);
    expect(fs.exists("most")).toBe(true);
  });

  it("keeps nothing of the map for what is not copied: another one shows the image's ids anew", () => {
    const path = image();
    const upper = fresh();
    const first = mount(path, upper, { owners: container });
    first.setattr("user", { valid: FATTR_MODE, mode: 0o600 });
    first.close();
    const second = mount(path, upper, { owners: mapOf([range(0, 300_000, 100_000)]) });
    expect(ownerOf(second, "user")).toBe("101000:101001");
    expect(ownerOf(second, "root")).toBe("300000:300000");
    expect(ownerOf(second, "far")).toBe("365536:300000");
    second.setattr("far", { valid: FATTR_MODE, mode: 0o600 });
    second.close();
    const none = mount(path, upper);
    expect(ownerOf(none, "far")).toBe("365536:300000");
    expect(ownerOf(none, "root")).toBe("0:0");
    expect(ownerOf(none, "farGroup")).toBe("0:70000");
  });
});

describe("extended attributes that hold ids", () => {
  const access = "system.posix_acl_access";
  const value = (fs: Mounted, path: string, name: string): Buffer =>
    Buffer.from(fs.getxattr(path, name), "latin1");

  it("show an ACL's users and groups moved, and a copy has them so", () => {
    const upper = fresh();
    const fs = mount(image(), upper, { owners: container });
    expect(value(fs, "acl", access)).toEqual(aclOf(101_234, 100_055));
    fs.setattr("acl", { valid: FATTR_UID, uid: 100_001 });
    expect(value(fs, "acl", access)).toEqual(aclOf(101_234, 100_055));
    expect(xattrOnDisk(join(upper, "acl"), access)).toEqual(aclOf(101_234, 100_055));
  });

  it("leave out of an ACL whom there is not, and leave alone what is no ACL", () => {
    const fs = mount(image(), undefined, { owners: container });
    expect(value(fs, "farAcl", access)).toEqual(
      acl([1, 6, NONE], [4, 4, NONE], [8, 2, 100_055], [16, 6, NONE], [32, 0, NONE]),
    );
    expect(fs.getxattr("odd", access)).toBe("no ACL");
    expect(fs.listxattr("farAcl")).toEqual([access]);
  });

  it("show capabilities as those of the root that the map has, as the kernel writes them in a namespace", () => {
    const upper = fresh();
    const fs = mount(image(), upper, { owners: container });
    expect(value(fs, "capable", "security.capability")).toEqual(capability3(100_000));
    expect(value(fs, "rooted", "security.capability")).toEqual(capability3(101_000));
    fs.setattr("capable", { valid: FATTR_MODE, mode: 0o700 });
    expect(xattrOnDisk(join(upper, "capable"), "security.capability")).toEqual(capability3(100_000));
  });

  it("show capabilities as they are where root stays root, and not at all where there is no root", () => {
    const same = mount(image(), undefined, { owners: mapOf([range(0, 0, 1), range(1, 100_000, 5000)]) });
    expect(value(same, "capable", "security.capability")).toEqual(capability2);
    const none = mount(image(), fresh(), { owners: mapOf([range(1, 100_000, 65_000)]) });
    expect(code(() => none.getxattr("capable", "security.capability"))).toBe("ENODATA");
    expect(none.listxattr("capable")).toEqual([]);
  });
});

describe("in a user namespace", () => {
  const small: NamespaceIds = { ...all, uids: Uint32Array.of(0, 2000), gids: Uint32Array.of(0, 1, 1, 99) };
  const owners = createOwnerMap({ squashToRoot: false }, small) as OwnerMap;

  it("owners are left to the kernel to show, and a copy has them all the same", () => {
    const fs = mount(image(), fresh(), { owners });
    expect(ownerOf(fs, "last")).toBe("65535:65535");
    expect(code(() => fs.setattr("last", { valid: FATTR_MODE, mode: 0o600 }))).toBe("ok");
    expect(ownerOf(fs, "last")).toBe("65535:65535");
    expect(code(() => fs.setattr("root", { valid: FATTR_MODE, mode: 0o600 }))).toBe("ok");
  });

  // The kernel refuses the whole ACL (EINVAL, on every access check) for one id that the namespace lacks.
  it("an ACL does not name whom the namespace does not have", () => {
    const fs = mount(image(), undefined, { owners });
    const name = "system.posix_acl_access";
    expect(Buffer.from(fs.getxattr("acl", name), "latin1")).toEqual(aclOf(1234, 55));
    expect(Buffer.from(fs.getxattr("farAcl", name), "latin1").length).toBe(aclOf(0, 0).length - 8);
  });
});

describe("--squash-to-root", () => {
  it("shows everything as root's, upper and image; chown is taken", () => {
    const upper = fresh();
    const path = image();
    const fs = mount(path, upper, { owners: createOwnerMap({ squashToRoot: true }, all) });
    fs.uid = 1000;
    fs.gid = 1000;
    fs.create("new");
    fs.setattr("most", { valid: FATTR_MODE, mode: 0o600 });
    fs.setattr("user", { valid: FATTR_UID | FATTR_GID, uid: 12, gid: 13 });
    for (const name of ["new", "most", "user", "far", "away", "away/file", ""]) {
      expect(ownerOf(fs, name), name).toBe("0:0");
    }
    expect(onDisk(upper, "most")).toBe("0:0");
    fs.close();
    // What was asked for is there for a mount that shows it.
    const plain = mount(path, upper);
    expect(ownerOf(plain, "user")).toBe("12:13");
    expect(ownerOf(plain, "new")).toBe("1000:1000");
  });

  it("means the root of the map", () => {
    const fs = mount(image(), undefined, { owners: mapOf([range(0, 1000, 1)], true) });
    expect(["root", "most", "home/file"].map((path) => ownerOf(fs, path))).toEqual([
      "1000:1000",
      "1000:1000",
      "1000:1000",
    ]);
  });
});

describe("--strict-id-map", () => {
  const refusal = (ranges: readonly IdRange[], root: string, squash = false, here = all): string => {
    const upper = fresh();
    try {
      mount(root, upper, { owners: mapOf(ranges, squash, here), strictIds: true });
    } catch (cause) {
      expect(existsSync(upper)).toBe(false);
      return (cause as Error).message;
    }
    return "none";
  };
  const nested = (leaf: FileInode): string =>
    imageOf(directory({ a: directory({ "b\n": directory({ c: leaf }) }), b: owned(5, 5) }));

  it("names the first object with an id that is not in the map, and the id", () => {
    const ten = [range(0, 100_000, 10)];
    expect(refusal(ten, nested(owned(9, 9)))).toBe("none");
    expect(refusal(ten, nested(owned(10, 9)))).toBe("/a/b\\x0a/c: uid 10 is not in the map");
    expect(refusal(ten, nested(owned(9, 10)))).toBe("/a/b\\x0a/c: gid 10 is not in the map");
    expect(refusal(ten, imageOf(directory({ d: directory({}, { uid: 33 }) })))).toBe(
      "/d: uid 33 is not in the map",
    );
  });

  it("looks into ACLs and capabilities", () => {
    const ten = [range(0, 100_000, 10)];
    expect(refusal(ten, nested(withXattr("system.posix_acl_access", aclOf(10, 9))))).toBe(
      "/a/b\\x0a/c: uid 10 of an ACL is not in the map",
    );
    expect(refusal(ten, nested(withXattr("system.posix_acl_default", aclOf(9, 10))))).toBe(
      "/a/b\\x0a/c: gid 10 of an ACL is not in the map",
    );
    expect(refusal(ten, nested(withXattr("security.capability", capability3(11))))).toBe(
      "/a/b\\x0a/c: uid 11 of a file capability is not in the map",
    );
    expect(refusal(ten, nested(withXattr("system.posix_acl_access", aclOf(9, 9))))).toBe("none");
  });

  it("asks for ids that the user namespace has", () => {
    const here = { ...all, uids: Uint32Array.of(0, 1, 1000, 5) };
    expect(refusal([range(0, 1000, 10)], nested(owned(4, 9)), false, here)).toMatch(
      /b: uid 5 would be 1005, which does not exist/,
    );
    expect(
      refusal([range(0, 1000, 4), range(4, 0, 1), range(5, 1004, 1)], nested(owned(4, 4)), false, here),
    ).toBe("none");
  });

  it("has nothing against devices that are not shown, nor where everything is root's", () => {
    const root = imageOf(directory({ null: device(InodeType.char, 0x103, { uid: 77 }) }));
    expect(refusal([range(0, 0, 10)], root)).toBe("none");
    expect(refusal([range(0, 0, 10)], nested(owned(77, 77)), true)).toBe("none");
  });
});
