// An ordinary user's mounts, through fusermount3: nothing of this needs root, and nothing of it may be
// skipped where root runs the tests. Each test has a private corner with a user of its own.
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { build, cannotMount, type Outcome, scratch, shell, titleOf } from "./mounted.js";
import { writeLayout } from "./oci-writer.js";
import { type Corner, makeCorner } from "./private.js";
import { layerTar, type TarEntry } from "./tar-writer.js";

const ID = 54_242;
const folder = (name: string, more: Partial<TarEntry> = {}): TarEntry => ({ name, type: "dir", ...more });
const file = (name: string, text: string, more: Partial<TarEntry> = {}): TarEntry => ({
  name,
  data: Buffer.from(text),
  ...more,
});

/** What an ordinary user meets in an image: root's things, things open to all, and things of its own. */
function layer(): Buffer {
  const mine = { uid: ID, gid: ID };
  return layerTar([
    folder("./", { mode: 0o755 }),
    folder("etc/"),
    file("etc/hostname", "image\n"),
    file("etc/shadow", "secret\n", { mode: 0o640, gid: 42 }),
    folder("tmp/", { mode: 0o1777 }),
    folder("open/", { mode: 0o777 }),
    file("open/roots", "of root\n", { mode: 0o666 }),
    file("open/suid", "#!/bin/sh\n", { mode: 0o6777 }),
    file("open/gone", "to be deleted\n"),
    folder("closed/", { mode: 0o555 }),
    folder("closed/within/", { mode: 0o2777, gid: 50 }),
    folder("mine/", mine),
    file("mine/file", "of the user\n", mine),
    file("mine/fixed", "read only\n", { ...mine, mode: 0o444 }),
    file("mine/big", "x".repeat(6 << 20), mine),
    folder("mine/sub/", mine),
    file("mine/sub/deep", "deep\n", mine),
  ]);
}

const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";

it.runIf(inCi)("mounts by an ordinary user are tested in CI", () => expect(cannotMount).toBeUndefined());

describe.skipIf(cannotMount)(titleOf("an ordinary user's mount", cannotMount), () => {
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

  /** Runs a script as the user with `$image`; it must end well and say nothing on stderr. */
  async function say(script: string, prepare = ""): Promise<string> {
    const outcome = await tell(script, prepare);
    expect(outcome).toMatchObject({ code: 0, stderr: "" });
    return outcome.stdout;
  }

  const tell = (script: string, prepare = ""): Promise<Outcome> =>
    corner.asUser(`image='${image}'\nmkdir -p m up\n${script}`, prepare);

  it("reads all it may, is the user's alone, and ends with imgfs umount", async () => {
    const text = await say(`
      id -u
      imgfs mount "$image" m --pid-file pid
      grep " $home/m " /proc/self/mountinfo | sed 's/.* - //'
      cat m/etc/hostname m/mine/sub/deep
      stat -c '%u %a' m/etc/shadow m/mine/file
      cat m/etc/shadow 2>/dev/null || echo refused
      (echo > m/tmp/x) 2>/dev/null || echo read-only
      pid=$(cat pid)
      imgfs umount m
      grep -c " $home/m " /proc/self/mountinfo || :
      test ! -e /proc/$pid && test ! -e pid && echo ended`);
    expect(text.split("\n")).toEqual([
      `${ID}`,
      `fuse.imgfs ${image} ro,user_id=${ID},group_id=${ID},default_permissions`,
      "image",
      "deep",
      "0 640",
      `${ID} 644`,
      "refused",
      "read-only",
      "0",
      "ended",
      "",
    ]);
  });

  it("keeps root and other users out unless asked otherwise", async () => {
    const outcome = await corner.asUser(
      `mkdir m; imgfs mount '${image}' m; cat m/etc/hostname; until test -e "$folder/done"; do sleep 0.05; done`,
      `(until grep -q " $home/m " /proc/self/mountinfo; do sleep 0.05; done
        ls "$home/m" 2>&1 | sed 's/^/root: /'; setpriv --reuid 7 --clear-groups ls "$home/m" 2>&1 | sed 's/^/other: /'
        touch "$folder/done") &`,
    );
    expect(outcome.stdout).toMatch(/root: .*Permission denied/);
    expect(outcome.stdout).toMatch(/other: .*Permission denied/);
  });

  it("is open to others with allow_other where root has allowed that, and a clear refusal where not", async () => {
    const refused = await tell(`imgfs mount "$image" m -o allow_other`);
    expect(refused).toMatchObject({ code: 32, stdout: "" });
    expect(refused.stderr).toMatch(
      /^imgfs: mount \S+\/m: fusermount3: option allow_other only allowed if 'user_allow_other' is set in \/etc\/fuse.conf\nhint: [^\n]+\n$/,
    );
    appendFileSync(join(corner.folder, "fuse.conf"), "user_allow_other\n");
    const text = await say(
      `imgfs mount "$image" m -o allow_other; grep " $home/m " /proc/self/mountinfo; imgfs umount m`,
    );
    expect(text).toContain("allow_other");
  });

  it("says that fuse3 is missing where it is", async () => {
    const outcome = await tell(
      `imgfs mount "$image" m`,
      `for each in /usr/bin/fusermount3 /usr/bin/fusermount; do
         ! test -e $each || mount --bind "$folder/fuse.conf" $each
       done`,
    );
    expect(outcome.code).toBe(32);
    expect(outcome.stderr).toMatch(/fusermount3 is not installed\nhint: [^\n]*fuse3[^\n]*\n$/);
  });

  it("hands on what fusermount3 says, and a device that is closed", async () => {
    const notMine = await tell(`imgfs mount "$image" "$folder/roots"`, 'mkdir "$folder/roots"');
    expect(notMine).toMatchObject({ code: 32, stdout: "" });
    expect(notMine.stderr).toMatch(
      /^imgfs: mount \S+: fusermount3: user has no write access to mountpoint \S+\n$/,
    );
    const closed = await tell(`imgfs mount "$image" m`, "chmod 600 /dev/fuse");
    expect(closed.stderr).toMatch(
      /^imgfs: mount \S+: fusermount3: failed to open \/dev\/fuse: Permission denied\n$/,
    );
  });

  it("passes the options of mount(8) on, whatever characters a name has", async () => {
    const text = await say(String.raw`
      imgfs mount "$image" m -o 'noexec,noatime,sync,dirsync,max_read=65536,fsname=a\,b\\c d,subtype=other'
      sed -n "s|.* $home/m ||p" /proc/self/mountinfo
      fusermount3 -u m`);
    expect(text).toMatch(/^ro,nosuid,nodev,noexec,noatime - fuse\.other a,b\\134c\\040d ro,sync,dirsync,/);
    expect(text).toContain("max_read=65536");
  });

  it("creates, writes, deletes and renames, and keeps it all in the upper for the next mount", async () => {
    const look = `
      ls -A m/open m/mine m/tmp; cat m/mine/file m/mine/moved/deep m/open/roots m/tmp/new
      stat -c '%n %a' m/open/suid m/closed/within; ls m/closed/within; wc -c < m/mine/big`;
    const text = await say(`
      imgfs mount "$image" m --upper up
      echo new > m/tmp/new
      rm m/open/gone
      echo changed >> m/mine/file
      echo "root's too" >> m/open/roots
      mv m/mine/sub m/mine/moved 2>/dev/null || { mkdir m/mine/moved; mv m/mine/sub/deep m/mine/moved; rmdir m/mine/sub; }
      echo x >> m/mine/big
      mv m/open/suid m/open/other; mv m/open/other m/open/suid
      echo below > m/closed/within/made
      ${look} > before
      imgfs umount m
      find up -name gone -printf '%y %l\\n'
      imgfs mount "$image" m --upper up
      ${look} > after
      cmp before after
      cat after
      imgfs umount m`);
    expect(text).toContain("of the user\nchanged\ndeep\nof root\nroot's too\nnew\n");
    expect(text).toContain("m/open/suid 6777\n");
    expect(text).not.toContain("gone\n");
    expect(text).toMatch(/^c $/m);
    expect(text).toContain("made\n6291458\n");
  });

  it("leaves what it has copied up of root's to root, at once and after a remount", async () => {
    const look = "stat -c '%n %u %g %a' m m/open m/open/roots m/etc/hostname m/closed m/closed/within m/tmp";
    const text = await say(`
      imgfs mount "$image" m --upper up
      ${look}
      echo more >> m/open/roots
      echo > m/closed/within/made
      ${look}
      stat -c '%u %g' m/closed/within/made
      (echo > m/closed/made) 2>/dev/null || echo refused
      imgfs umount m; imgfs mount "$image" m --upper up
      ${look}
      imgfs umount m`);
    const [before, after, again] = text.split(/^(?=m \d)/m);
    expect(before).toBe(
      "m 0 0 755\nm/open 0 0 777\nm/open/roots 0 0 666\nm/etc/hostname 0 0 644\nm/closed 0 0 555\n" +
        "m/closed/within 0 50 2777\nm/tmp 0 0 1777\n",
    );
    expect(after).toBe(`${before}${ID} 50\nrefused\n`);
    expect(again).toBe(before);
  });

  it("can write to a file of its own that was read-only when it was first read", async () => {
    const text = await say(`
      imgfs mount "$image" m --upper up
      chmod 400 m/mine/file; cat m/mine/file
      (echo no >> m/mine/file) 2>/dev/null || echo refused
      exec 7< m/mine/file
      chmod u+w m/mine/file; echo yes >> m/mine/file; cat m/mine/file
      exec 7<&-
      cat m/mine/fixed; chmod 600 m/mine/fixed; echo yes >> m/mine/fixed; tail -n 1 m/mine/fixed
      # Open for writing, it stays so whatever its mode becomes, as git does with its objects.
      exec 8> m/mine/late; chmod 444 m/mine/late; echo late >&8; exec 8>&-; cat m/mine/late
      imgfs umount m`);
    expect(text).toBe("of the user\nrefused\nof the user\nyes\nread only\nyes\nlate\n");
  });

  it("whose daemon was killed is cleaned by imgfs umount, and by the next mount there", async () => {
    const text = await say(`
      imgfs mount "$image" m --upper up --pid-file pid
      echo kept > m/tmp/kept
      kill -9 $(cat pid); while kill -0 $(cat pid) 2>/dev/null; do sleep 0.02; done
      ls m 2>/dev/null || echo dead
      imgfs umount m
      imgfs mount "$image" m --upper up --pid-file pid
      kill -9 $(cat pid); while kill -0 $(cat pid) 2>/dev/null; do sleep 0.02; done
      imgfs mount "$image" m --upper up
      cat m/tmp/kept
      imgfs umount m
      grep -c " $home/m " /proc/self/mountinfo || :`);
    expect(text).toBe("dead\nkept\n0\n");
  });

  it("ends at a signal, and with -z while it is in use", async () => {
    const text = await say(`
      imgfs mount "$image" m --pid-file pid
      pid=$(cat pid); kill $pid; while kill -0 $pid 2>/dev/null; do sleep 0.02; done
      grep -c " $home/m " /proc/self/mountinfo || :
      imgfs mount "$image" m --pid-file pid
      pid=$(cat pid)
      (cd m; imgfs umount ../m 2>../said || echo $?; imgfs umount -z ../m)
      cat said
      grep -c " $home/m " /proc/self/mountinfo || :
      while kill -0 $pid 2>/dev/null; do sleep 0.02; done`);
    expect(text).toMatch(/^0\n32\nimgfs: umount: \S+\/m: target is busy\n0\n$/);
  });

  it("in the foreground ends with 0 when it is unmounted by fusermount3", async () => {
    const text = await say(`
      imgfs mount -f "$image" m & while ! test -e m/etc; do sleep 0.02; done
      fusermount3 -u m; wait $! && echo ended`);
    expect(text).toBe("ended\n");
  });

  it("does not stand alone: several at a time, each with its own writes", async () => {
    const text = await say(`
      mkdir m1 m2 m3 up1 up2 up3
      for i in 1 2 3; do imgfs mount "$image" m$i --upper up$i & done; wait
      for i in 1 2 3; do echo $i > m$i/tmp/mine & done; wait
      cat m1/tmp/mine m2/tmp/mine m3/tmp/mine
      for i in 1 2 3; do imgfs umount m$i & done; wait
      grep -c " $home/m" /proc/self/mountinfo || :`);
    expect(text).toBe("1\n2\n3\n0\n");
  });

  it("gives other users what they make, where they may use it at all", async () => {
    appendFileSync(join(corner.folder, "fuse.conf"), "user_allow_other\n");
    const outcome = await corner.asUser(
      `mkdir m; chmod 755 .; imgfs mount '${image}' m --upper up -o allow_other; until test -e "$folder/done"; do sleep 0.05; done
       imgfs umount m; imgfs mount '${image}' m --upper up
       stat -c '%n %u %g %a %F' m/open/* ; find up/open -printf '%f %u\n' | sort; cat m/open/roots`,
      `(until grep -q " $home/m " /proc/self/mountinfo; do sleep 0.05; done
        cd "$home"
        for uid in 0 7; do
          setpriv --reuid $uid --regid $uid --clear-groups sh -ec '
            cat m/etc/hostname; echo > m/open/new$1; mkdir m/open/made$1; ln -s target m/open/link$1
            mkfifo -m 600 m/open/pipe$1; echo more >> m/open/roots' - $uid 2>&1 || :
        done
        setpriv --reuid 7 --clear-groups sh -c 'echo >> m/open/new0' 2>&1 || :
        mknod -m 640 m/open/null c 1 3; chown -h 8:9 m/open/link0; chown 8:9 m/open/pipe0
        touch "$folder/done") &`,
    );
    expect(outcome.stderr).toBe("");
    expect(outcome.stdout).toBe(
      `image\nimage\nsh: 1: cannot create m/open/new0: Permission denied\n${[
        "m/open/gone 0 0 644 regular file",
        "m/open/link0 8 9 777 symbolic link",
        "m/open/link7 7 7 777 symbolic link",
        "m/open/made0 0 0 755 directory",
        "m/open/made7 7 7 755 directory",
        "m/open/new0 0 0 644 regular file",
        "m/open/new7 7 7 644 regular file",
        "m/open/null 0 0 640 character special file",
        "m/open/pipe0 8 9 600 fifo",
        "m/open/pipe7 7 7 600 fifo",
        "m/open/roots 0 0 666 regular file",
        "m/open/suid 0 0 6777 regular file",
      ].join("\n")}\n${[
        "link0",
        "link7",
        "made0",
        "made7",
        "new0",
        "new7",
        "null",
        "open",
        "pipe0",
        "pipe7",
        "roots",
      ]
        .map((name) => `${name} imgfs-tester\n`)
        .join("")}of root\nmore\nmore\n`,
    );
  });

  it("cannot be taken away by another user", async () => {
    const outcome = await corner.asUser(
      `mkdir m; chmod 755 .; imgfs mount '${image}' m; until test -e "$folder/done"; do sleep 0.05; done`,
      `(until grep -q " $home/m " /proc/self/mountinfo; do sleep 0.05; done
        setpriv --reuid 7 --clear-groups "$prefix/bin/imgfs" umount "$home/m" 2>&1 || echo "exit $?"
        grep -c " $home/m " /proc/self/mountinfo; touch "$folder/done") &`,
    );
    expect(outcome.stdout).toMatch(
      /imgfs: umount: \S+\/m: must be who mounted it, or root[^\n]*\nexit 32\n1\n/,
    );
  });
});
