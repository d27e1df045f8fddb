import { describe, expect, it } from "vitest";
import { findAccount } from "../../src/run/account.js";

const passwd = `root:x:0:0:root:/root:/bin/sh
web:x:1000:1001:,,,:/home/web:/bin/sh
# a comment, and lines that are none
broken
short:x
1234:x:77:78::/numbers:/bin/sh
nohome:x:5:6:::
`;
const group = "root:x:0:\nweb:x:1001:\nextra:x:2000:other,web\nall:x:2001:root,web\n";
const find = (user: string) => findAccount(user, passwd, group);

describe("who a command runs as", () => {
  it("is root when nobody is named, also without a passwd", () => {
    expect(find("")).toEqual({ uid: 0, gid: 0, groups: [2001], home: "/root", name: "root" });
    expect(findAccount("", "", "")).toEqual({ uid: 0, gid: 0, groups: [], home: "/", name: undefined });
  });

  it("is found by name and by number, with group, groups and home", () => {
    const web = { uid: 1000, gid: 1001, groups: [2000, 2001], home: "/home/web", name: "web" };
    expect(find("web")).toEqual(web);
    expect(find("1000")).toEqual(web);
    expect(find("nohome")).toMatchObject({ home: "/" });
  });

  it("is the name before it is the number", () => {
    expect(find("1234")).toMatchObject({ uid: 77, gid: 78, home: "/numbers" });
  });

  it("need not be in passwd as a number", () => {
    expect(find("4321")).toEqual({ uid: 4321, gid: 0, groups: [], home: "/", name: undefined });
    expect(find("4321:99")).toMatchObject({ uid: 4321, gid: 99 });
  });

  it("has the group that is named, and no other", () => {
    expect(find("web:extra")).toMatchObject({ uid: 1000, gid: 2000, groups: [] });
    expect(find("web:7")).toMatchObject({ gid: 7, groups: [] });
    expect(find(":extra")).toMatchObject({ uid: 0, gid: 2000 });
  });

  it("must be there as a name", () => {
    expect(() => find("nobody")).toThrow("no user nobody in the image's /etc/passwd");
    expect(() => find("web:nogroup")).toThrow("no group nogroup in the image's /etc/group");
    expect(() => find("-1")).toThrow("no user -1");
  });
});
