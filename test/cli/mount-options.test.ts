// What a `-o` list means, entry by entry.
import { describe, expect, it } from "vitest";
import { type Flag, parseOptionList, type SortedOptions, sortOptions } from "../../src/cli/mount-options.js";
import { MS_NOATIME, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY } from "../../src/sys/mount-flags.js";

const table: readonly Flag[] = [
  { name: "upper", takes: "a value" },
  { name: "work", takes: "a value" },
  { name: "uid-map", takes: "a value" },
  { name: "gid-map", takes: "a value" },
  { name: "squash-to-root", takes: "nothing" },
  { name: "devices", takes: "nothing" },
  { name: "no-colour", takes: "nothing" },
  { name: "tune", takes: "perhaps a value" },
];

const sort = (text: string, sloppy = false): SortedOptions =>
  sortOptions(parseOptionList(text), table, sloppy);

describe("the list of -o", () => {
  it.each([
    ["", []],
    ["ro", [["ro", undefined]]],
    [
      ",ro,,rw,",
      [
        ["ro", undefined],
        ["rw", undefined],
      ],
    ],
    [
      "a=1,b=",
      [
        ["a", "1"],
        ["b", ""],
      ],
    ],
    ["a=b=c", [["a", "b=c"]]],
    [
      String.raw`upper=/a\,b,ro`,
      [
        ["upper", "/a,b"],
        ["ro", undefined],
      ],
    ],
    [
      String.raw`upper=/a\\,ro`,
      [
        ["upper", "/a\\"],
        ["ro", undefined],
      ],
    ],
    [String.raw`upper=\\\,x`, [["upper", "\\,x"]]],
    [String.raw`lowerdir=/a\:b:/c\n`, [["lowerdir", String.raw`/a\:b:/c\n`]]],
    [
      "upper=/a\nb,ro",
      [
        ["upper", "/a\nb"],
        ["ro", undefined],
      ],
    ],
    ["upper=/a\\", [["upper", "/a\\"]]],
  ])("%j", (text, expected) => {
    expect(parseOptionList(text).map(({ key, value }) => [key, value])).toEqual(expected);
  });
});

describe("an option of -o", () => {
  it("is any long flag by name, with _ for - too, and no before one that takes nothing", () => {
    expect(
      sort("upper=/u,devices,nodevices,squash_to_root,squash-to-root,no-colour,tune,tune=3").flags,
    ).toEqual([
      ["upper", "/u"],
      ["devices", true],
      ["devices", false],
      ["squash-to-root", true],
      ["squash-to-root", true],
      ["no-colour", true],
      ["tune", true],
      ["tune", "3"],
    ]);
  });

  it("has the names that fuse-overlayfs uses", () => {
    const { flags, refused } = sort(
      "upperdir=/u,workdir=/w,uidmapping=0:1000:1:1:100000:65536,gidmapping=0:1:2",
    );
    expect(flags).toEqual([
      ["upper", "/u"],
      ["work", "/w"],
      ["uid-map", "0:1000:1"],
      ["uid-map", "1:100000:65536"],
      ["gid-map", "0:1:2"],
    ]);
    expect(refused).toBeUndefined();
    expect(sort(String.raw`lowerdir=/top:/a\:b:/bottom`).lower).toEqual(["/bottom", "/a:b", "/top"]);
  });

  it("is a flag of mount(2), the last word counting", () => {
    expect(sort("ro,nosuid,nodev,noexec,noatime").kernel).toEqual({
      set: MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME,
      clear: 0,
    });
    expect(sort("ro,rw,dev,nodev,suid").kernel).toEqual({ set: MS_NODEV, clear: MS_RDONLY | MS_NOSUID });
  });

  it("is one of FUSE's own", () => {
    expect(sort("allow_other,max_read=131072,fsname=a b,subtype=x").kernel).toEqual({
      allowOther: true,
      maxRead: 131_072,
      fsname: "a b",
      subtype: "x",
    });
    expect(sort("allow_other,noallow_other").kernel).toEqual({ allowOther: false });
  });

  it("is ignored when it is meant for others", () => {
    const others =
      "defaults,auto,noauto,nofail,_netdev,user,nouser,users,user=bob,owner,group,comment=a,x-systemd.requires=b,X-mount.mkdir=0755,x-gvfs-hide,default_permissions,uhelper=udisks2";
    expect(sort(others)).toMatchObject({ flags: [], kernel: {}, refused: undefined });
  });

  it.each([
    ["quota=1G", "unknown option quota"],
    ["ro,bogus,worse", "unknown option bogus"],
    ["noupper", "unknown option noupper"],
    ["nodefault_permissions", "unknown option nodefault_permissions"],
    ["remount,ro", "remount is not supported: unmount, then mount again"],
    ["upper", "option upper needs a value"],
    ["upper=", "option upper needs a value"],
    ["devices=yes", "option devices takes no value"],
    ["nodevices=1", "option nodevices takes no value"],
    ["ro=1", "option ro takes no value"],
    ["allow_other=1", "option allow_other takes no value"],
    ["max_read=-1", "option max_read needs a number of bytes"],
    ["fsname", "option fsname needs a value"],
    ["subtype=a b", "option subtype needs a name"],
    ["lowerdir=", "option lowerdir needs a value"],
  ])("is refused by name: %s", (text, refused) => {
    expect(sort(text).refused).toBe(refused);
  });

  it("that nobody knows is dropped for mount -s, a wrong one is not", () => {
    expect(sort("quota=1G,remount,upper=/u", true)).toMatchObject({
      flags: [["upper", "/u"]],
      refused: undefined,
    });
    expect(sort("upper", true).refused).toBe("option upper needs a value");
  });
});
