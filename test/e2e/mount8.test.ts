// mount(8), fstab and umount(8) on an installed command, in the three forms: `fuse.imgfs` and
// `fuse3.imgfs` through mount.fuse3, `imgfs` through mount.imgfs. mount(8) runs its helpers with no
// PATH and with nothing but HOME, so most scripts here call it that way. Also the mounts that others
// have opened: mount.fuse3's drop_privileges, and a plain /dev/fd/N.
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { build, cannotMount, type Outcome, scratch, shell, titleOf } from "./mounted.js";
import { writeLayout } from "./oci-writer.js";
import { type Corner, installed, makeCorner } from "./private.js";
import { layerTar, type TarEntry } from "./tar-writer.js";

const file = (name: string, text: string, more: Partial<TarEntry> = {}): TarEntry => ({
  name,
  data: Buffer.from(text),
  ...more,
});
const folder = (name: string, more: Partial<TarEntry> = {}): TarEntry => ({ name, type: "dir", ...more });

describe.skipIf(cannotMount)(titleOf("mount(8)", cannotMount), () => {
  let image: string;
  let corner: Corner;

  beforeAll(async () => {
    const layout = scratch("layout");
    const base = [folder("etc/"), file("etc/hostname", "image\n"), folder("tmp/", { mode: 0o1777 })];
    const top = [
      file("etc/of-daemon", "daemon\n", { uid: 2, gid: 2 }),
      file("etc/suid", "", { mode: 0o4755 }),
    ];
    writeLayout(layout, [layerTar(base), layerTar(top)]);
    image = await build(`oci:${layout}`);
    await shell(`chmod -R a+rX '${image}'`);
  });

  beforeEach(() => {
    corner = makeCorner();
  });

  const preface = (): string => `${installed}
    image='${image}'
    mount() { env -i HOME=/root LC_ALL=C /bin/mount "$@"; }
    shown() { sed -n "s|.* $folder/$1 ||p" /proc/self/mountinfo; }
    mkdir a b c
  `;
  const tell = (script: string): Promise<Outcome> => corner.asRoot(preface() + script);

  /** Runs a script that must end well and say nothing on stderr. */
  async function say(script: string): Promise<string> {
    const outcome = await tell(script);
    expect(outcome).toMatchObject({ code: 0, stderr: "" });
    return outcome.stdout;
  }

  it("mounts the lines of an fstab of all three forms, once, and umount(8) ends each", async () => {
    const text = await say(`
      cat > fstab <<END
$image $folder/a fuse.imgfs ro,_netdev,nofail,x-systemd.requires=network.target,comment=first 0 0
$image $folder/b fuse3.imgfs upper=$folder/ub,nodev,nosuid,noatime,pid-file=$folder/pid,auto,x-gvfs-hide 0 0
$image $folder/c imgfs defaults,upperdir=$folder/uc,workdir=$folder/wc,_netdev,users,exec 0 0
$image $folder/none imgfs noauto 0 0
END
      mount -T fstab -a
      mount -T fstab -a
      for each in a b c; do shown $each; cat $each/etc/hostname; done
      (echo > a/tmp/x) 2>/dev/null || echo read-only
      echo b > b/tmp/x; echo c > c/tmp/x; cat ub/tmp/x uc/tmp/x; ls wc/format
      pid=$(cat pid)
      umount a b c
      shown a; shown b; shown c
      while test -e /proc/$pid; do sleep 0.02; done; ls pid 2>/dev/null || echo ended`);
    expect(text.split("\n")).toEqual([
      expect.stringMatching(
        /^ro,relatime - fuse\.imgfs \S+image ro,user_id=0,group_id=0,default_permissions,allow_other$/,
      ),
      "image",
      expect.stringMatching(/^rw,nosuid,nodev,noatime - fuse\.imgfs /),
      "image",
      expect.stringMatching(/^rw,nosuid,nodev,relatime - fuse\.imgfs \S+image rw,/),
      "image",
      "read-only",
      "b",
      "c",
      "wc/format",
      "ended",
      "",
    ]);
  });

  it("mounts read-only what has an upper directory, whose changes show", async () => {
    const text = await say(`
      mount -t imgfs "$image" a -o upper=$folder/up
      echo changed > a/etc/hostname; rm a/etc/suid; umount a
      mount -t fuse.imgfs "$image" a -o ro,upper=$folder/up
      cat a/etc/hostname; ls a/etc
      (echo > a/tmp/x) 2>/dev/null || echo read-only
      umount a
      mount -t imgfs "$image" a -o rw; shown a; umount a`);
    expect(text).toMatch(/^changed\nhostname\nof-daemon\nread-only\nro,/);
  });

  it("limits what an upper directory may take, in each form of the options, and refuses what is no size", async () => {
    const text = await say(`
      for type in imgfs fuse.imgfs fuse3.imgfs; do
        mount -t $type "$image" a -o upper=$folder/$type,quota=40960,quota-inodes=5,quota-errno=ENOSPC
        stat -f -c '%b %c' a
        dd if=/dev/zero of=a/tmp/x bs=4096 count=11 2>&1 | sed -n 's/.*: //p; s/ records out//p'
        umount a
        stat -c %s $folder/$type/tmp/x
        code=0; mount -t $type "$image" a -o upper=$folder/$type,quota=1X >said 2>&1 || code=$?
        echo $code $(grep -c 1X said); shown a
      done`);
    expect(text).toBe("10 5\nNo space left on device\n10+0\n40960\n1 1\n".repeat(3));
  });

  it("gets its exit codes: 1 for usage, 32 for what cannot be mounted, 0 for a fake", async () => {
    const outcome = await tell(`
      try() { code=0; "$@" || code=$?; echo $code; }
      for type in imgfs fuse.imgfs fuse3.imgfs; do
        try mount -t $type "$image" a -o shards=1G
        try mount -t $type "$image" a -o remount,ro
        try mount -t $type "$image" a -o upper
        try mount -t $type "$folder/none" a
        try mount -t $type "$image" a -o upper=/proc/none
      done
      try mount -t imgfs "$image" a -f; shown a
      try mount -t imgfs "$folder/none" a -f
      try mount -t imgfs "$image" a -s -o shards=1G; umount a
      try mount.imgfs "$image"
      try mount.imgfs "$image" a -x
      try mount.imgfs "$image" a -nvo; try mount.imgfs "$image" a -nvoro -t imgfs.other; shown a; umount a
      try imgfs mount "$image" a -o shards=1G
      try imgfs xyzzy a
    `);
    const [one, usage, place] = [
      "1\n1\n1\n32\n32\n".repeat(3),
      "1\n1\n1\n",
      /mount\.imgfs: \S+ mounted on a\.\n0\nro,/,
    ];
    expect(outcome.stdout.startsWith(`${one}0\n32\n0\n${usage}`)).toBe(true);
    expect(outcome.stdout).toMatch(place);
    expect(outcome.stdout).toMatch(/\n2\n2\n$/);
    const lines = outcome.stderr.trimEnd().split("\n");
    expect(lines.filter((line) => !/^(imgfs|hint): /.test(line))).toEqual([]);
    expect(lines.filter((line) => line === "imgfs: mount: -o: unknown option shards")).toHaveLength(4);
    expect(outcome.stderr).toContain(
      "imgfs: mount: -o: remount is not supported: unmount, then mount again\n",
    );
    expect(outcome.stderr).toContain("imgfs: unknown option -x\n");
  });

  it("mounts in another namespace with -N", async () => {
    const text = await say(`
      unshare -m sleep 1000 & other=$!
      while test "$(readlink /proc/self/ns/mnt)" = "$(readlink /proc/$other/ns/mnt)"; do sleep 0.02; done
      env -i HOME=/root /sbin/mount.imgfs "$image" "$folder/a" -N $other
      shown a
      grep -c " $folder/a " /proc/$other/mountinfo
      cat /proc/$other/root/$folder/a/etc/hostname
      nsenter -m -t $other umount "$folder/a"
      kill $other`);
    expect(text).toBe("1\nimage\n");
  });

  it("lets a user mount and unmount what fstab says users may", async () => {
    const outcome = await corner.asUser(
      `PATH=/usr/bin:/bin
      mkdir m; mount "$home/m"; id -u
      sed -n "s|.* $home/m ||p" /proc/self/mountinfo; cat m/etc/hostname; echo mine > m/tmp/x; cat up/tmp/x
      umount "$home/m"; grep -c " $home/m " /proc/self/mountinfo || :`,
      `${installed}
      echo "${image} $home/m imgfs user,noauto,upper=$home/up 0 0" > "$folder/fstab"
      touch /etc/fstab; mount --bind "$folder/fstab" /etc/fstab`,
    );
    expect(outcome).toMatchObject({ code: 0, stderr: "" });
    expect(outcome.stdout).toMatch(
      /^54242\nrw,nosuid,nodev,noexec,relatime - fuse\.imgfs \S+ rw,user_id=54242,group_id=54242,default_permissions\nimage\nmine\n0\n$/,
    );
  });

  it("runs it without any privilege with drop_privileges, by the descriptor it opens", async () => {
    const text = await say(`
      mkdir up
      mount -t fuse.imgfs "$image" a -o drop_privileges,allow_other,upper=$folder/up,pid-file=$folder/pid
      pid=$(cat pid)
      shown a
      sed -n 's/^CapEff:\\t//p;s/^NoNewPrivs:\\t//p' /proc/$pid/status
      echo changed >> a/etc/of-daemon; cat a/etc/of-daemon; stat -c %u a/etc/of-daemon up/etc/of-daemon
      chmod 600 a/etc/suid; rm a/etc/hostname; ls a/etc; stat -c %F up/etc/hostname
      umount a
      while test -e /proc/$pid; do sleep 0.02; done; ls pid 2>/dev/null || echo ended`);
    expect(text.split("\n")).toEqual([
      expect.stringMatching(
        /^rw,relatime - fuse\.imgfs \S+ rw,user_id=0,group_id=0,default_permissions,allow_other$/,
      ),
      "0000000000000000",
      "1",
      "daemon",
      "changed",
      // The owner that it may not give away is kept beside the file.
      "2",
      "0",
      "of-daemon",
      "suid",
      "character special file",
      "ended",
      "",
    ]);
  });

  it("serves a descriptor that somebody else has mounted, detached and in the foreground", async () => {
    const text = await say(`
      exec 7<>/dev/fuse
      mount -i -t fuse.imgfs -o fd=7,rootmode=40000,user_id=0,group_id=0,allow_other mine a
      imgfs mount "$image" /dev/fd/7 --pid-file pid
      exec 7>&-
      shown a; cat a/etc/hostname
      pid=$(cat pid); umount a; while test -e /proc/$pid; do sleep 0.02; done; ls pid 2>/dev/null || echo ended
      exec 3<>/dev/fuse
      mount -i -t fuse.imgfs -o fd=3,rootmode=40000,user_id=0,group_id=0 mine b
      imgfs mount -f "$image" /dev/fd/3 & exec 3>&-
      cat b/etc/hostname; umount b; wait $! && echo ended too`);
    expect(text).toMatch(/^rw,relatime - fuse\.imgfs mine \S+\nimage\nended\nimage\nended too\n$/);
  });

  it("leaves a mount that is somebody else's where it is when it is stopped", async () => {
    const text = await say(`
      exec 7<>/dev/fuse
      mount -i -t fuse.imgfs -o fd=7,rootmode=40000,user_id=0,group_id=0 mine a
      imgfs mount "$image" /dev/fd/7 --pid-file pid --log log
      exec 7>&-
      pid=$(cat pid); kill $pid; while test -e /proc/$pid; do sleep 0.02; done
      ls a 2>/dev/null || echo dead; shown a; grep -c 'until whoever opened it' log; ls pid 2>/dev/null || echo gone
      imgfs umount a; shown a`);
    expect(text).toMatch(/^dead\nrw,relatime - fuse\.imgfs mine \S+\n1\ngone\n$/);
  });

  it("refuses a descriptor that is no /dev/fuse", async () => {
    const outcome = await tell(`
      for fd in 1 99 6; do imgfs mount "$image" /dev/fd/$fd 6< /dev/null || echo $?; done
      imgfs mount -f "$image" /dev/fd/99 || echo $?`);
    expect(outcome.stdout).toBe("32\n32\n32\n32\n");
    expect(outcome.stderr.split("\n")).toEqual([
      "imgfs: mount /dev/fd/1: not an open /dev/fuse",
      "imgfs: mount /dev/fd/99: no such descriptor",
      "imgfs: mount /dev/fd/6: not an open /dev/fuse",
      "imgfs: mount /dev/fd/99: no such descriptor",
      "",
    ]);
  });

  it("is not needed: imgfs -o lowerdir=..., as fuse-overlayfs is called", async () => {
    const text = await say(`
      index=$(ls "$image"/index.imgfs); set -- $(ls "$image"/*.imgfs | grep -v /index.imgfs)
      imgfs -o "lowerdir=$index,upperdir=$folder/up,workdir=$folder/work,nodev" a
      cat a/etc/hostname a/etc/of-daemon; echo > a/tmp/x; ls work/format; umount a
      imgfs mount label b -o "lowerdir=$1:$2,fsname=shown"; shown b; ls b/etc; umount b
      cd "$image"; imgfs . "$folder/c" -o ro; ls "$folder/c/etc"; umount "$folder/c"`);
    expect(text).toMatch(/^image\ndaemon\nwork\/format\nro,\S+ - fuse\.imgfs shown \S+\n/);
    expect(text.split("hostname\nof-daemon\nsuid\n")).toHaveLength(3);
  });

  it("cannot be used twice on one place", async () => {
    const outcome = await tell(`
      mount -t imgfs "$image" a; mount -t imgfs "$image" "$folder/a" || echo $?; umount a; shown a`);
    expect(outcome.stdout).toBe("32\n");
    expect(outcome.stderr).toMatch(/^imgfs: mount \S+a: an imgfs mount is already there \(process \d+\)\n$/);
  });
});
