// The mixed work of the load test: eight loops, each of programs that check what they do themselves. A task ends with the
// first failure or when its time is up; then it leaves its last results in place, for the comparison after a remount.
import { join } from "node:path";
import { type RunOptions, run } from "../e2e/mounted.js";

/**
 * Filesystem stressors of stress-ng that pass on a plain directory of ext4 with --verify (mixed.test.ts), in groups
 * that share a loop: names, data, and attributes with locks.
 */
export const stressors = {
  names: ["dentry", "dir", "dirdeep", "dirmany", "filename", "getdent", "link", "mknod", "rename", "symlink"],
  data: [
    ["aio", "copy-file", "fallocate", "fpunch", "fsize", "hdd", "io", "iomix", "mmap", "mmapfork"],
    ["msync", "readahead", "revio", "seek", "sendfile", "splice", "sync-file"],
  ].flat(),
  attributes: [
    ["access", "chattr", "chdir", "chmod", "chown", "fcntl", "file-ioctl", "flock", "fstat", "full"],
    ["handle", "inotify", "lease", "locka", "lockf", "lockofd", "open", "touch", "utime", "xattr"],
  ].flat(),
} as const;

/** Where the image has what the tasks begin with. */
export const places = {
  repository: "repository.git",
  tree: "tree",
  archive: "tree.tar",
  churn: ["churn-a", "churn-b"],
} as const;

async function must(program: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, signal, stdout, stderr } = await run(program, args, options);
  if (code === 0) return stdout;
  const how = signal ?? `exit ${code}`;
  throw new Error(`${program} ${args.join(" ").slice(0, 500)}: ${how}\n${(stdout + stderr).slice(-4000)}`);
}

/** Runs a script with the mount as its folder; $1 is a name for what it makes, of its own each time. */
const script = (root: string, text: string, name: string): Promise<string> =>
  must("sh", ["-euc", text, "sh", name], { cwd: root });

/** Runs stressors for `seconds`, `count` processes of each, in `folder`. */
export function stress(
  folder: string,
  kinds: readonly string[],
  count: number,
  seconds: number,
): Promise<string> {
  return must("stress-ng", [
    ...kinds.flatMap((kind) => [`--${kind}`, String(count)]),
    ...["--hdd-bytes", "16M", "--iomix-bytes", "16M", "--fallocate-bytes", "64M", "--mmap-bytes", "8M"],
    ...[
      "--copy-file-bytes",
      "128M",
      "--readahead-bytes",
      "16M",
      "--revio-bytes",
      "16M",
      "--sync-file-bytes",
      "16M",
    ],
    ...["--verify", "--timeout", String(seconds), "--temp-path", folder, "--log-brief"],
  ]);
}

/** Repeats a round, at least twice, until the time is up. */
async function repeat(until: number, round: (number: number) => Promise<unknown>): Promise<number> {
  let number = 0;
  while (number < 2 || Date.now() < until) await round(number++);
  return number;
}

const stressLoop =
  (kinds: readonly string[]) =>
  (root: string, until: number): Promise<number> => {
    const folder = join(root, "stress", kinds[0] as string);
    return repeat(until, async (number) => {
      await must("mkdir", ["-p", folder]);
      const from = (number * 3) % kinds.length;
      await stress(folder, [...kinds, ...kinds].slice(from, from + 3), 1, 2);
      // Whatever a stressor leaves behind can be removed.
      await must("rm", ["-rf", folder]);
    });
  };

const cloneLoop =
  (name: string) =>
  (root: string, until: number): Promise<number> =>
    repeat(until, (number) =>
      script(
        root,
        `rm -rf "$1-old"; if [ -e "$1" ]; then mv "$1" "$1-old"; fi
         git clone -q --no-local ${places.repository} "$1"
         cd "$1"
         git -c user.name=a -c user.email=a@b commit -q --allow-empty -m ${number}
         git checkout -q -b side HEAD~20
         git checkout -q -
         git repack -adq
         git fsck --strict --full --no-progress
         test -z "$(git status --porcelain)"
         git diff --quiet HEAD`,
        name,
      ),
    );

const untarLoop = (root: string, until: number): Promise<number> =>
  repeat(until, () =>
    script(
      root,
      `rm -rf "$1"; mkdir "$1"
       tar -xf ${places.archive} -C "$1"
       tar -df ${places.archive} -C "$1"
       diff -r ${places.tree} "$1"/${places.tree}`,
      "untarred",
    ),
  );

const copyLoop = (root: string, until: number): Promise<number> =>
  repeat(until, () =>
    script(
      root,
      `rm -rf "$1" "$1-links"
       cp -a ${places.tree} "$1"
       diff -r ${places.tree} "$1"
       find "$1" -type f -exec chmod u+x,o-r {} +
       cp -al "$1" "$1-links"
       mv "$1" "$1-moved"
       diff -r ${places.tree} "$1-moved"
       rm -rf "$1-moved"
       diff -r ${places.tree} "$1-links"
       mv "$1-links" "$1"`,
      "copied",
    ),
  );

const churn = join(import.meta.dirname, "churn.py");
const modelOf = (folder: string, models: string): string => join(models, `${folder}.json`);

const churnTask =
  (folder: string, seed: number, models: string) =>
  (root: string, until: number): Promise<string> => {
    const seconds = Math.max(1, (until - Date.now()) / 1000);
    const args = [churn, "run", join(root, folder), String(seed), String(seconds), modelOf(folder, models)];
    return must("python3", args, { timeout: Math.ceil(seconds + 100) * 1000 });
  };

/** The eight tasks by name; each is given the folder to work in and when to end, in milliseconds of Date.now(). */
export function tasks(
  seed: number,
  models: string,
): Record<string, (root: string, until: number) => Promise<number | string>> {
  const [a, b] = places.churn;
  return {
    names: stressLoop(stressors.names),
    data: stressLoop(stressors.data),
    attributes: stressLoop(stressors.attributes),
    clones: async (root, until) =>
      (await Promise.all(["clone-a", "clone-b"].map((name) => cloneLoop(name)(root, until)))).join(" and "),
    untars: untarLoop,
    copies: copyLoop,
    [a]: churnTask(a, seed, models),
    [b]: churnTask(b, seed + 1, models),
  };
}

/** Compares what the churning tasks left with what they say they left. */
export async function verifyChurn(root: string, models: string): Promise<void> {
  for (const folder of places.churn) {
    await must("python3", [churn, "verify", join(root, folder), modelOf(folder, models)]);
  }
}
