// Id maps on real mounts: what the kernel makes of mapped owners, ACLs and capabilities, for processes of the host and
// for those of a user namespace; and mounts made inside of one.
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { userland } from "./make-image.js";
import {
  build,
  cannotMount,
  cleanLater,
  command,
  imgfs,
  isMounted,
  type Mounted,
  mount,
  type Outcome,
  run,
  scratch,
  scratchDirectory,
  succeed,
  titleOf,
} from "./mounted.js";
import { writeLayout } from "./oci-writer.js";
import { makeCorner } from "./private.js";
import { layerTar } from "./tar-writer.js";

const mapped = ["--uid-map", "0:100000:65536", "--gid-map", "0:100000:65536"];

/** user::rw-, user:1234:r--, group::---, mask::r--, other::--- */
const acl = Buffer.from(
  "02000000 01000600ffffffff 02000400d2040000 04000000ffffffff 10000400ffffffff 20000000ffffffff".replace(
    / /g,
    "",
  ),
  "hex",
);
/** CAP_NET_RAW permitted, with the effective flag, revision 2. */
const netRaw = Buffer.from("0100000200200000000000000000000000000000", "hex");

/** Runs a command as an id of a user namespace whose 0 is 100000 here: `python3 -c inside ID COMMAND...`. */
const inside = `
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
made, mapped = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    if libc.unshare(0x10000000) != 0:
        os._exit(99)
    os.write(made[1], b"x")
    os.read(mapped[0], 1)
    os.setgroups([])
    os.setresgid(*[int(sys.argv[1])] * 3)
    os.setresuid(*[int(sys.argv[1])] * 3)
    os.execvp(sys.argv[2], sys.argv[2:])
os.read(made[0], 1)
for kind in "ug":
    with open(f"/proc/{child}/{kind}id_map", "w") as f:
        f.write("0 100000 65536")
os.write(mapped[1], b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
`;

const noNamespace =
  spawnSync("unshare", ["-Urm", "true"]).status === 0 ? undefined : "this machine makes no user namespaces";
const reason = cannotMount ?? noNamespace;

const owner = (path: string): string => {
  const { uid, gid } = statSync(path);
  return `${uid}:${gid}`;
};

describe.skipIf(reason)(titleOf("an id map", reason), () => {
  let image: string;

  beforeAll(async () => {
    const layout = scratch("layout");
    const text = (name: string, uid: number, more = {}) => ({
      name,
      data: Buffer.from(`${name}\n`),
      uid,
      gid: uid,
      ...more,
    });
    writeLayout(layout, [
      userland(["/bin/cat"]),
      layerTar([
        { name: "home/user/", type: "dir", uid: 1000, gid: 1000, mode: 0o700 },
        text("home/user/notes", 1000, { mode: 0o600 }),
        text("etc/motd", 0),
        text("etc/far", 70_000),
        text("etc/acl", 0, { mode: 0o640, xattrs: { "system.posix_acl_access": acl } }),
      ]),
    ]);
    image = await build(`oci:${layout}`);
  });

  /** Mounts where ordinary users of the host can come, too. */
  async function mountOpen(...options: string[]): Promise<Mounted> {
    const mounted = await mount(image, ...options);
    chmodSync(dirname(mounted.path), 0o711);
    return mounted;
  }

  const as = ({ path }: Mounted, id: number, script: string): Promise<Outcome> =>
    run("setpriv", [`--reuid=${id}`, `--regid=${id}`, "--clear-groups", "sh", "-euc", script], { cwd: path });
  const asInside = ({ path }: Mounted, id: number, script: string): Promise<Outcome> =>
    run("python3", ["-c", inside, String(id), "sh", "-euc", script], { cwd: path });
  const owners = async ({ path }: Mounted, ...names: string[]): Promise<string[]> =>
    (await succeed("stat", ["-c", "%u:%g", ...names.map((name) => join(path, name))])).trim().split("\n");

  it("gives the user of the host at whose id a user of the image is the rights of that user", async () => {
    const upper = scratch("upper");
    const mounted = await mountOpen("--upper", upper, ...mapped);
    expect(await owners(mounted, ".", "home/user/notes", "etc/far")).toEqual([
      "100000:100000",
      "101000:101000",
      "65534:65534",
    ]);
    const work = "cat home/user/notes; echo more >> home/user/notes; mkdir home/user/made";
    expect(await as(mounted, 101_000, work)).toMatchObject({ code: 0, stdout: "home/user/notes\n" });
    expect((await as(mounted, 1000, work)).stderr).toContain("Permission denied");
    expect(owner(join(upper, "home/user"))).toBe("101000:101000");
    expect(owner(join(upper, "home/user/notes"))).toBe("101000:101000");
    expect(owner(join(upper, "home/user/made"))).toBe("101000:101000");
    await mounted.unmount();
  });

  it("moves the users that an ACL names", async () => {
    const mounted = await mountOpen("--upper", scratch("upper"), ...mapped);
    expect(await as(mounted, 101_234, "cat etc/acl")).toMatchObject({ code: 0, stdout: "etc/acl\n" });
    expect((await as(mounted, 1234, "cat etc/acl")).stderr).toContain("Permission denied");
    // The same of its copy.
    await succeed("chmod", ["u+x", mounted.at("etc/acl")]);
    expect(await as(mounted, 101_234, "cat etc/acl")).toMatchObject({ code: 0, stdout: "etc/acl\n" });
    expect((await as(mounted, 1234, "cat etc/acl")).stderr).toContain("Permission denied");
  });

  it("shows a user namespace at those ids its own, whose root may do there as it likes", async () => {
    const upper = scratch("upper");
    const mounted = await mountOpen("--upper", upper, ...mapped);
    const script = `stat -c %u:%g . home/user etc/far
      echo new > etc/new; chown 5:6 etc/new etc/motd; chmod 4755 etc/motd; rm -r home/user
      stat -c %u:%g:%a etc/new etc/motd`;
    expect(await asInside(mounted, 0, script)).toMatchObject({
      code: 0,
      stdout: "0:0\n1000:1000\n65534:65534\n5:6:644\n5:6:4755\n",
    });
    expect(owner(join(upper, "etc/motd"))).toBe("100005:100006");
    expect(owner(join(upper, "etc/new"))).toBe("100005:100006");
  });

  it("makes file capabilities those of that namespace's root", async () => {
    const layout = scratch("layout");
    writeLayout(layout, [
      layerTar([
        {
          name: "cat",
          data: readFileSync("/bin/cat"),
          mode: 0o755,
          xattrs: { "security.capability": netRaw },
        },
      ]),
    ]);
    const mounted = await mount(await build(`oci:${layout}`), "--upper", scratch("upper"), ...mapped);
    chmodSync(dirname(mounted.path), 0o711);
    const effective = "./cat /proc/self/status";
    const has = "CapEff:\t0000000000002000\n";
    expect((await asInside(mounted, 1000, effective)).stdout).toContain(has);
    await succeed("touch", [mounted.at("cat")]);
    expect((await asInside(mounted, 1000, effective)).stdout).toContain(has);
    // They count in that namespace, not outside.
    expect((await as(mounted, 101_000, effective)).stdout).toContain("CapEff:\t0000000000000000\n");
  });

  it("is one of the mount: the image shows another at once, the upper keeps what it has", async () => {
    const upper = scratch("upper");
    const first = await mountOpen("--upper", upper, ...mapped);
    const second = await mountOpen("--uid-map", "0:5000:80000");
    expect(await owners(second, "etc/motd", "etc/far")).toEqual(["5000:0", "75000:70000"]);
    await succeed("touch", [first.at("home/user/notes")]);
    await first.unmount();
    const again = await mountOpen("--upper", upper, "--uid-map", "0:5000:80000");
    expect(await owners(again, "home/user/notes", "etc/motd")).toEqual(["101000:101000", "5000:0"]);
  });

  it("with --squash-to-root shows everything as root's, and takes every chown", async () => {
    const upper = scratch("upper");
    const mounted = await mountOpen("--upper", upper, "--squash-to-root", "--uid-map", "0:1000:1");
    expect(await owners(mounted, ".", "home/user/notes", "etc/far")).toEqual(["1000:0", "1000:0", "1000:0"]);
    const script = "echo more >> etc/far; echo new > home/user/new";
    expect(await as(mounted, 1000, script)).toMatchObject({ code: 0, stderr: "" });
    await succeed("chown", ["7:7", mounted.at("etc/far")]);
    expect(await owners(mounted, "etc/far", "home/user/new")).toEqual(["1000:0", "1000:0"]);
  });

  it("makes a whole image an ordinary user's own", async () => {
    await succeed("chmod", ["-R", "a+rX", image]);
    const outcome = await makeCorner().asUser(`
      mkdir m; me=$(id -u):$(id -g)
      imgfs mount '${image}' m --upper up --squash-to-root --uid-map 0:$(id -u):1 --gid-map 0:$(id -g):1
      stat -c %u:%g m m/etc/motd m/home/user/notes m/etc/far | sed "s/^$me$/mine/" | uniq -c | tr -s ' '
      cat m/home/user/notes; echo more >> m/etc/motd; mkdir m/home/user/made; chown $me m/etc/far
      imgfs umount m; cat up/etc/motd`);
    expect(outcome).toEqual({
      code: 0,
      signal: null,
      stdout: " 4 mine\nhome/user/notes\netc/motd\nmore\n",
      stderr: "",
    });
  });

  it("comes as fuse-overlayfs's mount options, too", async () => {
    const path = scratchDirectory("mnt");
    cleanLater(path, scratch("no-pid-file"));
    const ids = "uidmapping=0:1000:1:1:100000:65535,gidmapping=0:100:5";
    await succeed(command, ["mount", image, path, "-o", ids]);
    const owned = ["etc/motd", "home/user", "etc/far"].map((name) => join(path, name));
    expect(await succeed("stat", ["-c", "%u:%g", ...owned])).toBe("1000:100\n100999:65534\n65534:65534\n");
    await imgfs("umount", path);
    await succeed(command, ["mount", image, path, "-o", "squash_to_root"]);
    expect(await succeed("stat", ["-c", "%u:%g", ...owned])).toBe("0:0\n0:0\n0:0\n");
  });

  it("with --strict-id-map refuses an image with more ids, by path and id, and leaves nothing", async () => {
    const mountpoint = scratchDirectory("mnt");
    const upper = scratch("upper");
    const refused = await imgfs("mount", image, mountpoint, "--upper", upper, "--strict-id-map", ...mapped);
    expect(refused.code).toBe(32);
    expect(refused.stderr).toBe(`imgfs: mount ${mountpoint}: /etc/far: uid 70000 is not in the map\n`);
    expect(isMounted(mountpoint)).toBe(false);
    expect(existsSync(upper)).toBe(false);
    const large = ["--uid-map", "0:100000:70001", "--gid-map", "0:100000:70001"];
    const mounted = await mount(image, "--strict-id-map", ...large);
    expect(await owners(mounted, "etc/far")).toEqual(["170000:170000"]);
  });

  it.each([
    ["--uid-map", "0:1", `"0:1" is not IMAGE-ID:HOST-ID:COUNT`],
    ["--gid-map", "0:100000:0", "0:100000:0 maps no ids"],
    ["--uid-map", "0:1:10:9:20:1", "0:1:10 and 9:20:1 overlap in the image"],
    ["--gid-map", "0:4294967295:1", "0:4294967295:1 goes beyond the largest id, 4294967294"],
  ])("%s %s is wrong usage, and says what is wrong", async (flag, text, said) => {
    const outcome = await imgfs("mount", flag, text, image, scratchDirectory("mnt"));
    expect(outcome.code).toBe(2);
    expect(outcome.stderr).toContain(flag);
    expect(outcome.stderr).toContain(said);
    expect(outcome.stderr.trimEnd()).not.toContain("\n");
  });

  it("without root has nothing to squash to", async () => {
    const squash = ["--squash-to-root", "--uid-map", "0:100000:10", "--gid-map", "1:100000:10"];
    expect(await imgfs("mount", image, scratchDirectory("mnt"), ...squash)).toMatchObject({
      code: 2,
      stderr: "imgfs: mount: --squash-to-root needs maps with an id for 0\n",
    });
  });

  it("of a user namespace is what a mount inside it has: what lacks an id can be read, not changed", async () => {
    const mountpoint = scratchDirectory("mnt");
    const upper = scratch("upper");
    const script = `
      imgfs=$1 image=$2 mountpoint=$3 upper=$4
      ! $imgfs mount $image $mountpoint --strict-id-map || exit 5
      $imgfs mount $image $mountpoint --upper $upper
      cd $mountpoint
      stat -c %u:%g etc/motd etc/far; cat etc/far
      ! echo more >> etc/far || exit 6
      python3 -c 'import os; print(len(os.getxattr("etc/acl", "system.posix_acl_access")))'
      cat etc/acl; echo more >> etc/motd
      cd /
      $imgfs umount $mountpoint
      $imgfs mount $image $mountpoint --upper $upper --squash-to-root
      cd $mountpoint
      stat -c %u:%g etc/far home/user; echo more >> etc/far; cat home/user/notes
      cd /
      $imgfs umount $mountpoint`;
    const args = ["-Urm", "sh", "-euc", script, "sh", command, image, mountpoint, upper];
    const { code, stdout, stderr } = await run("unshare", args);
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: `0:0\n65534:65534\netc/far\n${acl.length - 8}\netc/acl\n0:0\n0:0\nhome/user/notes\n`,
    });
    expect(stderr).toMatch(/: uid 1000 does not exist in this user namespace\n/);
    expect(stderr).toContain("etc/far: Permission denied");
    expect(owner(join(upper, "etc/far"))).toBe("0:0");
  });
});
