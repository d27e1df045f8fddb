// A store of an ordinary user: no privileges, no set-up, a quota that bites, and a container on it.
import { beforeAll, describe, expect, it } from "vitest";
import { userland } from "../e2e/make-image.js";
import { cannotMount, hasCommand, type Outcome, shell, titleOf } from "../e2e/mounted.js";
import { type Corner, makeCorner } from "../e2e/private.js";
import { layerTar } from "../e2e/tar-writer.js";
import { folder, layoutOf } from "./kit.js";

const inCi = process.env["CI"] !== undefined;
const missing = cannotMount ?? (hasCommand("fusermount3") ? undefined : "fusermount3 is missing");
it.runIf(inCi)("an ordinary user's store is tested in CI", () => expect(missing).toBeUndefined());

describe.skipIf(missing)(titleOf("an ordinary user's store", missing), () => {
  let layout: string;
  let corner: Corner;

  beforeAll(async () => {
    const folders = [folder("proc"), folder("dev"), folder("sys"), folder("root", { mode: 0o550 })];
    layout = layoutOf(userland(["/bin/sh", "/bin/cat", "/bin/dd"]), layerTar(folders));
    await shell(`chmod -R a+rX '${layout}'`);
    corner = makeCorner();
    for (const path of [layout, `${layout}/..`]) await shell(`chmod a+rx '${path}'`);
  });

  // What crun of Debian 12 wants: no version 1 of cgroups beside version 2.
  const cgroups = `if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
    umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup
  fi`;
  const clean = "unset XDG_DATA_HOME XDG_CONFIG_HOME IMGFS_STORE IMGFS_CONFIG";
  const asUser = (script: string): Promise<Outcome> =>
    corner.asUser(`layout='${layout}'\n${clean}\n${script}`, cgroups);

  it("is made by the first create, is the user's alone, and limits what is written", async () => {
    const outcome = await asUser(`
      imgfs create --format path --disk-limit-size-bytes 1M --exclude-image-from-quota "oci:$layout" my-id
      store="$HOME/.local/share/imgfs"
      stat -c '%a %U' "$store"
      rootfs="$store/images/my-id/rootfs"
      ls "$rootfs"
      dd if=/dev/zero of="$rootfs/big" bs=64k count=32 2>&1 | sed -n 's/.*: //p'
      imgfs list
      imgfs stats my-id | tr -d '{}'
      imgfs delete my-id
      imgfs clean
      ls "$store/content" | wc -l
      imgfs delete-store
      ls "$store" 2>&1 | sed 's/.*: //'`);
    const store = `${corner.folder}/home/.local/share/imgfs`;
    expect(outcome).toMatchObject({ code: 0, stderr: "" });
    const lines = outcome.stdout.split("\n");
    expect(lines[0]).toBe(`${store}/images/my-id`);
    expect(lines[1]).toBe("700 imgfs-tester");
    expect(outcome.stdout).toContain("root\n");
    expect(lines).toContain("Disk quota exceeded");
    expect(lines).toContain(`${store}/images/my-id`);
    expect(outcome.stdout).toMatch(
      /^"disk_usage":"total_bytes_used":\d+,"exclusive_bytes_used":1048576,"quota_size_bytes":1048576,/m,
    );
    expect(outcome.stdout).toContain("Image my-id deleted\nclean completed\n0\nNo such file or directory\n");
  });

  it("stays whole under twenty creates, twenty deletes and three cleans at once", async () => {
    const outcome = await asUser(`
      cleans() { for i in 1 2 3; do imgfs clean > clean.$i 2>&1 || cat clean.$i; done; }
      each() { for i in $(seq 20); do { "$@" > "$1.$i" 2>&1 || { echo "$1 $i"; cat "$1.$i"; }; } & done; }
      create() { imgfs create --format path "oci:$layout" "$prefix$i"; }
      delete() { imgfs delete "n$i"; }
      store="$HOME/.local/share/imgfs"
      imgfs init-store
      prefix=n; each create
      cleans & wait
      ls "$store/images" | wc -l
      each delete
      prefix=m; each create
      cleans & wait
      for i in $(seq 20); do ls -d "$store/images/m$i/rootfs/root"; done | wc -l
      ls "$store/images" | wc -l
      imgfs check --data --store "$store"
      for i in $(seq 20); do imgfs delete "m$i" > out; done
      imgfs clean
      imgfs check --store "$store"
      imgfs delete-store
      rm create.* delete.* clean.* out`);
    expect(outcome).toMatchObject({ code: 0, stderr: "" });
    expect(outcome.stdout).toBe(
      "20\n20\n20\nno damage found in 20 images and 3 files of content\nclean completed\nno damage found in 0 images and 0 files of content\n",
    );
  }, 240_000);

  it("has what its config file says", async () => {
    const outcome = await asUser(`
      mkdir -p .config/imgfs
      printf 'store: %s/elsewhere\\nlog_timestamp_format: x\\n' "$HOME" > .config/imgfs/config.yaml
      imgfs init-store
      imgfs create "oci:$layout" x > out
      imgfs list
      imgfs delete-store
      rm -r .config out`);
    const file = `${corner.folder}/home/.config/imgfs/config.yaml`;
    const warning = `imgfs: warning: config file ${file}: unknown key log_timestamp_format\n`;
    expect(outcome).toMatchObject({
      code: 0,
      stdout: `${corner.folder}/home/elsewhere/images/x\n`,
      stderr: warning.repeat(4),
    });
  });

  it("refuses maps that are not the user's to give", async () => {
    const outcome = await asUser(`
      imgfs init-store --store s --uid-mapping 0:0:1 || echo "exit $?"
      imgfs init-store --store s --uid-mapping 0:$(id -u):1 --uid-mapping 1:1:100 || echo "exit $?"
      ls`);
    expect(outcome.stdout).toBe("exit 2\nexit 2\n");
    expect(outcome.stderr).toBe(
      "imgfs: uid mappings: root must be mapped to its own id: 0:54242:1\nimgfs: uid range [1-101) -> [1-101) not allowed\n",
    );
  });

  it.each(["runc", "crun"])(
    "has the ids that are set aside for the user, in a container by %s",
    async (runtime) => {
      const ranges = `
      echo imgfs-tester:100000:65536 > "$folder/sub"
      for each in uid gid; do mount --bind "$folder/sub" /etc/sub$each; done`;
      const outcome = await corner.asUser(
        `layout='${layout}'\n${clean}
      imgfs init-store --uid-mapping 0:$(id -u):1 --uid-mapping 1:100000:65536 \\
                       --gid-mapping 0:$(id -g):1 --gid-mapping 1:100000:65536
      imgfs create "oci:$layout" "mapped-${runtime}" > out
      imgfs bundle "mapped-${runtime}" bundle
      sed -i 's|"/bin/sh"$|"/bin/sh", "-c", "cat /proc/self/uid_map; echo written > /written"|' bundle/config.json
      ${runtime === "crun" ? "crun --cgroup-manager=disabled" : "runc"} --root "$HOME/run" run --bundle bundle "imgfs-${process.pid}-m-${runtime}" < /dev/null
      stat -c '%u %n' .local/share/imgfs/images/*/rootfs/written
      imgfs delete "mapped-${runtime}"
      rm -rf bundle run out
      imgfs delete-store`,
        `${cgroups}\n${ranges}`,
      );
      expect(outcome).toMatchObject({ code: 0, stderr: "" });
      expect(outcome.stdout).toMatch(
        /^ *0 +54242 +1\n *1 +100000 +65536\n54242 \S+\nImage mapped-\w+ deleted\n$/,
      );
    },
  );

  it.each(["runc", "crun"])(
    "runs a container by %s, as root of a user namespace of its own, whose quota bites inside",
    async (runtime) => {
      const outcome = await asUser(`
      imgfs create --disk-limit-size-bytes 1M --exclude-image-from-quota "oci:$layout" "of-${runtime}" > out
      imgfs bundle "of-${runtime}" bundle
      sed -i 's|"/bin/sh"$|"/bin/sh", "-c", "cat /proc/self/uid_map; echo written > /written; dd if=/dev/zero of=/big bs=64k count=32 2>\\&1"|' bundle/config.json
      ${runtime === "crun" ? "crun --cgroup-manager=disabled" : "runc"} --root "$HOME/run" run --bundle bundle "imgfs-${process.pid}-${runtime}" < /dev/null | sed 's/^dd: .*: //' | grep -v records
      cat ".local/share/imgfs/images/of-${runtime}/diff/written"
      imgfs delete "of-${runtime}"
      rm -rf bundle run out
      imgfs delete-store`);
      expect(outcome).toMatchObject({
        code: 0,
        stderr: "",
        stdout: expect.stringMatching(
          /^\s*0\s+54242\s+1\nDisk quota exceeded\n[^\n]* copied, [^\n]*\nwritten\nImage of-\w+ deleted\n$/,
        ),
      });
    },
  );
});
