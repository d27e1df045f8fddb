// Owners, modes and kinds that the mounting process may not give, kept through copy-up, changes and remounts: a mount by an
// ordinary user through fusermount3, in user namespaces with one id and with a map of many, and as root of a container
// that may do little. Real users, in a corner of the machine; nothing of it is skipped in CI.
import { appendFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { build, cannotMount, type Outcome, scratch, shell, titleOf } from "./mounted.js";
import { writeLayout } from "./oci-writer.js";
import { type Corner, makeCorner } from "./private.js";
import { layerTar, type TarEntry } from "./tar-writer.js";

const ID = 54_242;
const time = "1400000000.123456789";
const foreign = { uid: 1000, gid: 1001, time };
const capability = Buffer.from("0100000200240000000000000000000000000000", "hex");

/** One of everything, in a folder in which anybody may rename, whose owner is `owner`. */
function everything(prefix: string, owner: Partial<TarEntry>): TarEntry[] {
  const at = (name: string, more: Partial<TarEntry>): TarEntry => ({
    name: `open/${prefix}${name}`,
    time,
    ...owner,
    ...more,
  });
  const text = { data: Buffer.from("content\n") };
  return [
    at("file", { ...text, mode: 0o640 }),
    at("closed", { ...text, mode: 0 }),
    at("suid", { ...text, mode: 0o6755 }),
    at("able", {
      ...text,
      mode: 0o755,
      xattrs: { "security.capability": capability, "user.note": Buffer.from("kept") },
    }),
    at("link", { type: "symlink", link: "to/nowhere" }),
    at("pipe", { type: "fifo", mode: 0o622 }),
    at("char", { type: "char", rdev: [1, 3], mode: 0o666 }),
    at("block", { type: "block", rdev: [7, 300], mode: 0o660 }),
    at("dir/", { type: "dir", mode: 0o2550 }),
    at("dir/in", { ...text, mode: 0o604 }),
  ];
}

function layer(): Buffer {
  const mine = { uid: ID, gid: ID };
  return layerTar([
    { name: "./", type: "dir", mode: 0o755 },
    { name: "open/", type: "dir", mode: 0o777 },
    ...everything("r", { uid: 0, gid: 0 }),
    ...everything("f", foreign),
    { name: "open/shared", data: Buffer.from("shared\n"), mode: 0o666, ...foreign },
    { name: "open/own", type: "symlink", link: "a/target", ...mine },
    { name: "open/gone", data: Buffer.from("to be deleted\n") },
    { name: "far/", type: "dir", mode: 0o750, ...foreign },
    { name: "near/", type: "dir", mode: 0o755, ...foreign },
    { name: "near/within/", type: "dir", mode: 0o777, uid: 0, gid: 0 },
    { name: "mine/", type: "dir", mode: 0o700, ...mine },
    { name: "mine/file", data: Buffer.from("of the user\n"), ...mine },
  ]);
}

const names = (prefix: string): string =>
  ["file", "closed", "suid", "able", "link", "pipe", "char", "block", "dir"]
    .map((name) => prefix + name)
    .join(" ");

/**
 * `look` tells all of `$names`, under their own name or with `.new` behind. `act` changes what is in the mount, and `use`
 * has it mounted before and after, and again: in a folder with `m`, `up` and `$image`.
 */
const helpers = `
look() {
  for name in $names; do
    for at in open/$name open/$name.new; do
      if test -L $at || test -e $at; then
        echo "$name $(stat -c '%F %u:%g %a %y %t:%T' $at) $(readlink $at)"
      fi
    done
  done
  find open -maxdepth 1 ! -name gone ! -name open -printf '%f %y\\n' | sed 's/\\.new//' | sort
  for name in $able; do
    for at in open/$name open/$name.new; do if test -e $at; then getfattr -dm- -e hex $at | grep =; fi; done
  done
}
act() {
  for name in $names; do mv open/$name open/$name.new; done
  mkdir near/within/new
  rm open/gone
}
use() {
  imgfs mount "$image" m --upper up --devices
  cd m; look > ../before; act; look > ../after; mine; cd ..
  imgfs umount m; imgfs mount "$image" m --upper up --devices
  cd m; look > ../again; ls -A near/within; ! ls open/gone 2>/dev/null || echo back; cd ..
  imgfs umount m
  cmp before after; cmp before again
  find up -name gone -printf '%y\\n'
}
`;

/** A file of the user's own: modes that close it, and back. */
const closing = `
mine() {
  chmod 0000 mine/file; stat -c %a mine/file; (cat mine/file) 2>/dev/null || echo closed
  chmod 600 mine/file; echo more >> mine/file; cat mine/file
  mkdir mine/sub; echo in > mine/sub/in; chmod 0 mine/sub; (ls mine/sub) 2>/dev/null || echo closed
  chmod 700 mine/sub; cat mine/sub/in
  chmod 0 mine/file mine/sub
}
`;

const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";

it.runIf(inCi)("owners that cannot be given are tested in CI", () => expect(cannotMount).toBeUndefined());

describe.skipIf(cannotMount)(titleOf("owners that cannot be given", cannotMount), () => {
  let image: string;
  let corner: Corner;

  beforeAll(async () => {
    const layout = scratch("layout");
    writeLayout(layout, [layer()]);
    image = await build(`oci:${layout}`);
    await shell(`chmod -R a+rX '${image}'`);
  });

  beforeEach(() => {
    corner = makeCorner();
  });

  /**
   * Runs `inner` as the user by way of `by` (a command in front of `sh`), in its home; then `after` as root there. All must
   * end well and say nothing on stderr.
   */
  async function say(by: string, inner: string, after = ""): Promise<string> {
    const outcome = await tell(by, inner, after);
    expect(outcome).toMatchObject({ code: 0, stderr: "" });
    return outcome.stdout;
  }

  const setup = (script: string): string =>
    `image='${image}'\nnames='${names("r")}'\nable=rable\n${helpers}${script}`;

  function tell(by: string, inner: string, after = "", prepare = ""): Promise<Outcome> {
    writeFileSync(join(corner.folder, "inner"), setup(inner));
    const become = `setpriv --reuid ${ID} --regid ${ID} --clear-groups --inh-caps=-all`;
    return corner.asRoot(`${prepare}
      cd "$home"; ${become} mkdir m up
      ${become} env HOME="$home" ${by} sh -eu "$folder/inner"
      ${setup(after)}`);
  }

  /** What a mount by root shows of the upper that the user has written. */
  const byRoot = `
    mkdir rootm; imgfs mount "$image" rootm --upper up --devices
    grep -o ' .*' /proc/self/mountinfo | grep "/rootm " | grep -c nosuid,nodev
    cd rootm; look > ../root; stat -c '%n %u:%g %a' . near near/within/new mine/*; cd ..; imgfs umount rootm
  `;

  it("stay through fusermount3, whoever mounts the upper next", async () => {
    const text = await say(
      "",
      `names="$names ${names("f")}"; able="rable fable"; ${closing} use; stat -c %u:%a up/mine/file up/mine/sub`,
      `names="$names ${names("f")}"; able="rable fable"; ${byRoot} cmp before root`,
    );
    const own = `${ID}:${ID}`;
    expect(text.split("\n")).toEqual([
      ..."0 closed".split(" "),
      "of the user",
      "more",
      "closed",
      "in",
      "new",
      "c",
      `${ID}:600`,
      `${ID}:700`,
      "1",
      ". 0:0 755",
      "near 1000:1001 755",
      `near/within/new ${own} 755`,
      `mine/file ${own} 0`,
      `mine/sub ${own} 0`,
      "",
    ]);
  });

  // The kernel refuses changes of what belongs to an id that a namespace lacks; of folders above a change it says nothing.
  const single = `
    mine() { chown 0:0 near/within/new; chmod 0000 near/within/new; stat -c %a near/within/new; }
    use
    imgfs mount "$image" m --upper up --devices
    cd m; stat -c '%n %u:%g %a' near near/within/new
    (chown 5:5 near/within) 2>/dev/null || echo refused
    cd ..; imgfs umount m`;
  /** Natives show as the user's there, what is kept as it was said inside. */
  const singleByRoot = `able=; ${byRoot} sed '/^[a-z]*\\./d' before > plain; sed 's/ ${ID}:${ID} / 0:0 /' root | cmp plain -`;
  const singleText = `0\nnew\nc\nnear 65534:65534 755\nnear/within/new 0:0 0\nrefused\n1\n. 0:0 755\nnear 1000:1001 755\nnear/within/new ${ID}:${ID} 0\n`;

  it("stay in a user namespace with one id", async () => {
    const text = await say("unshare -Urm", single, singleByRoot);
    expect(text).toContain(singleText);
  });

  it("stay for the root of a container that an ordinary user runs", async () => {
    const bwrap =
      "bwrap --unshare-user --unshare-pid --uid 0 --gid 0 --cap-add ALL --dev-bind / / --proc /proc --";
    const text = await say(bwrap, single, singleByRoot);
    expect(text).toContain(singleText);
  });

  it("stay in a user namespace with a map of many", async () => {
    const outcome = await tell(
      "unshare -Um --map-root-user --map-auto",
      `names="$names ${names("f")}"; able="rable fable"
       mine() {
         chown 7:8 near/within/new; ln -s target mine/link; chown -h 9:10 mine/link
         echo x >> open/shared; chown 7:8 open/shared
         stat -c '%n %u:%g %a' near/within/new mine/link open/shared
         chmod 0 open/shared; cat open/shared
       }
       use
       imgfs mount "$image" m --upper up --devices
       cd m; stat -c '%n %u:%g %a' near/within/new mine/link open/shared; cd ..; imgfs umount m`,
      `mkdir rootm; imgfs mount "$image" rootm --upper up --devices
       stat -c '%n %u:%g %a' rootm/near/within/new rootm/mine/link; imgfs umount rootm`,
      `for each in subuid subgid; do
         echo "imgfs-tester:200000:65536" > "$folder/$each"; mount --bind "$folder/$each" /etc/$each
       done`,
    );
    expect(outcome.stderr).toBe("");
    expect(outcome.stdout).toContain(
      "near/within/new 7:8 755\nmine/link 9:10 777\nopen/shared 7:8 666\nshared\nx\n",
    );
    expect(outcome.stdout).toContain("near/within/new 7:8 755\nmine/link 9:10 777\nopen/shared 7:8 0\n");
    // The first id of the map is the user's own, the others begin at 200000 for 1.
    expect(outcome.stdout).toContain(
      "rootm/near/within/new 200006:200007 755\nrootm/mine/link 200008:200009 777\n",
    );
  });

  // As in a container with few capabilities: no chown, no devices, and modes bind.
  it("stay for a root that may do nothing but mount", async () => {
    const outcome = await corner.asRoot(`
      mkdir -p work/m; cd work
      cat > inner <<'END'
${setup(`names="$names ${names("f")}"; able="rable fable"
      mine() {
        chown 7:8 near/within/new 2>/dev/null || echo refused
        echo > near/within/file; chmod 0 near/within/file; stat -c '%u:%g %a' near/within/file
        (cat near/within/file) 2>/dev/null || echo closed; chmod 600 near/within/file; cat near/within/file
      }
      use`)}
END
      capsh --drop=cap_chown,cap_dac_override,cap_dac_read_search,cap_fowner,cap_fsetid,cap_mknod,cap_setfcap,cap_setuid,cap_setgid -- -c "exec sh -eu inner"
      ${setup(`names="$names ${names("f")}"; able="rable fable"`)}
      mkdir rootm; imgfs mount "$image" rootm --upper up --devices
      cd rootm; look > ../root; cd ..; imgfs umount rootm
      cmp before root
      echo the same`);
    expect(outcome).toMatchObject({ code: 0, stderr: "" });
    expect(outcome.stdout).toBe("refused\n0:0 0\nclosed\n\nfile\nnew\nc\nthe same\n");
  });

  it("are kept where allow_other lets root give things away, and xattrs that the user may not set", async () => {
    appendFileSync(join(corner.folder, "fuse.conf"), "user_allow_other\n");
    const outcome = await tell(
      "",
      `chmod 755 .; imgfs mount "$image" m --upper up -o allow_other
       touch "$home/up1"; until test -e "$home/done"; do sleep 0.05; done
       imgfs umount m; imgfs mount "$image" m --upper up -o allow_other
       stat -c '%n %u:%g %a' m/mine/file m/open/new; stat -c '%N %u:%g' m/open/own
       stat -c %i m/open/own | cmp - number; getfacl -cn m/open/new
       touch "$home/up2"; until test -e "$home/done2"; do sleep 0.05; done
       imgfs umount m`,
      "wait",
      `(until test -e "$home/up1"; do sleep 0.05; done; cd "$home/m"
        stat -c %i open/own > ../number; chown -h 8:9 open/own; chown 8:9 mine/file; echo x > open/new; chmod 711 open/new; echo x > open/suid; chmod 4777 open/suid
        setcap cap_net_raw+ep open/new; setfattr -n trusted.a -v b open/new
        setfacl -m u:7:rw open/new; cp open/new open/other
        cd /; touch "$home/done"; until test -e "$home/up2"; do sleep 0.05; done; cd "$home/m"
        getcap open/new; getfattr --only-values -n trusted.a open/new; echo
        echo more >> open/new; getcap open/new; echo more >> open/suid; stat -c %a open/suid
        setpriv --reuid 7 --clear-groups sh -c 'echo more >> open/suid; echo more >> open/new'; stat -c %a open/suid
        setfacl -b open/new; stat -c %a open/new; getfattr --only-values -n trusted.a open/new; echo
        cd /; touch "$home/done2") &`,
    );
    expect(outcome.stderr).toBe("");
    expect(outcome.stdout.split("\n")).toEqual([
      "m/mine/file 8:9 644",
      "m/open/new 0:0 771",
      "'m/open/own' -> 'a/target' 8:9",
      "user::rwx",
      "user:7:rw-",
      "group::--x",
      "mask::rwx",
      "other::--x",
      "",
      "open/new cap_net_raw=ep",
      "b",
      "4777",
      "777",
      "711",
      "b",
      "",
    ]);
  });

  it("need xattrs: an upper on a filesystem without is refused in one line", async () => {
    const outcome = await corner.asRoot(
      `mkdir ram m; mount -t ramfs none ram; imgfs mount '${image}' m --upper ram/up`,
    );
    expect(outcome).toMatchObject({ code: 32, stdout: "" });
    expect(outcome.stderr).toMatch(
      /^imgfs: mount \S+: upper directory \S+\/ram\/up keeps no user xattrs: [^\n]+\n$/,
    );
  });

  // The kernel's overlayfs refuses device 0:0, even as a rename leaves it.
  it("are kept beside whiteouts that are files, where the filesystem makes no devices", async () => {
    const text = await say(
      "unshare -Urm",
      `mkdir l u w o; mount -t overlay none o -o lowerdir=l,upperdir=u,workdir=w,userxattr
       rmdir up; cd o; mkdir m up
       mine() { mknod near/within/zero c 0 0; rm -r near/within/new; stat -c '%n %F %t:%T' near/within/*; }
       use; getfattr --only-values -n user.overlay.whiteout up/open/gone; echo; cd ..; umount o`,
    );
    expect(text).toBe("near/within/zero character special file 0:0\nzero\nf\ny\n");
  });
});
