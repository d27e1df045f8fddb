// A private corner of the machine: a mount and pid namespace in which /dev/fuse is open to all, as udev
// makes it on ordinary systems, and in which there is a user `imgfs-tester`. Files there may be bound
// over the machine's own. When the script ends everything in the corner ends, mounts and daemons too.
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { command, type Outcome, run, scratchDirectory } from "./mounted.js";

const ID = 54_242;
const USER = "imgfs-tester";

export interface Corner {
  /** Open to the user; `home` in it is the user's. */
  readonly folder: string;
  /** Runs a script as root. `imgfs` is the command; `$folder`, `$prefix` and `$home` are set. */
  asRoot(script: string): Promise<Outcome>;
  /**
   * Prepares as root, then runs the script as the user, in its home. What was prepared with `&` goes on beside it: the
   * script may wait for it with `until test -e "$folder/done"`.
   */
  asUser(script: string, prepare?: string): Promise<Outcome>;
}

/**
 * The command is installed as `npm install -g` does it: links in PREFIX/bin, beside the node that goes with it. The
 * way to the repository and to this node may be closed to the user, so both are bound there.
 */
const prelude = `
mknod -m 666 "$folder/fuse" c 10 229 2>/dev/null || :
mount --bind "$folder/fuse" /dev/fuse
mount --bind "$folder/passwd" /etc/passwd
mount --bind "$folder/fuse.conf" /etc/fuse.conf
mount --bind "$repository" "$prefix/lib/node_modules/imgfs"
mount --bind "$node" "$prefix/bin/node"
`;

/**
 * A prelude to a script as root: the installation is that of /usr/local, and mount(8) finds its helper in /sbin. The
 * corner's own /sbin is links to the machine's.
 */
export const installed = `
mkdir "$folder/sbin" "$folder/real-sbin"
mount --bind /usr/sbin "$folder/real-sbin"
for each in "$folder"/real-sbin/*; do ln -s "$each" "$folder/sbin/"; done
ln -s /usr/local/bin/mount.imgfs "$folder/sbin/"
mount --bind "$folder/sbin" /usr/sbin
mount --rbind "$prefix" /usr/local
`;

/** Makes the corner's folder and files. */
export function makeCorner(): Corner {
  const folder = scratchDirectory("corner");
  for (let at = folder; at.includes("imgfs-e2e-"); at = dirname(at)) chmodSync(at, 0o755);
  const home = join(folder, "home");
  const prefix = join(folder, "prefix");
  const bin = join(prefix, "bin");
  for (const path of [home, bin, join(prefix, "lib/node_modules/imgfs")])
    mkdirSync(path, { recursive: true });
  execFileSync("chown", [`${ID}:${ID}`, home]);
  const passwd = readFileSync("/etc/passwd", "utf8");
  writeFileSync(join(folder, "passwd"), `${passwd}${USER}:x:${ID}:${ID}::${home}:/bin/sh\n`);
  writeFileSync(join(folder, "fuse.conf"), "# nothing is allowed\n");
  writeFileSync(join(bin, "node"), "");
  for (const name of ["imgfs", "mount.imgfs", "fuse3.imgfs"]) {
    symlinkSync("../lib/node_modules/imgfs/bin/imgfs", join(bin, name));
  }
  const repository = dirname(dirname(command));
  const env = { folder, home, prefix, repository, node: process.execPath, LC_ALL: "C" };
  const start = (script: string): Promise<Outcome> =>
    run(
      "unshare",
      ["-m", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-euc", `${prelude}\n${script}`],
      { env },
    );
  const path = 'PATH="$prefix/bin:$PATH"';
  return {
    folder,
    asRoot: (script) => start(`export ${path}\ncd "$folder"\n${script}`),
    asUser: (script, prepare = "") => {
      writeFileSync(join(folder, "script"), script);
      const become = `setpriv --reuid ${ID} --regid ${ID} --clear-groups --inh-caps=-all`;
      return start(
        `${prepare}\ncd "$home"\n${become} env HOME="$home" USER=${USER} ${path} sh -eu "$folder/script"`,
      );
    },
  };
}
