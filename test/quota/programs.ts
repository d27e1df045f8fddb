// Scripts that run programs into a full quota, by whoever mounts: root, an ordinary user, root through fuse-native.
// Each runs in a corner of its own (see private.ts), with the functions of the prelude.
import { expect } from "vitest";
import { noise } from "../e2e/make-image.js";
import { type Outcome, scratch } from "../e2e/mounted.js";
import { writeLayout } from "../e2e/oci-writer.js";
import { makeCorner } from "../e2e/private.js";
import { layerTar } from "../e2e/tar-writer.js";

/**
 * What a script has:
 *   begin OPTION...   mounts the image at m, with the upper `up`, made before or not
 *   agree STEP        the quota of the mount, `df` and a recount of the upper say the same; use is not past the limit
 *   limit SIZE        another limit, live
 *   full COMMAND...   runs it: it must fail, and its output go to the file `said`
 *   again             there is room: what is written now can be read
 *   finish            unmounts, has the upper checked, mounts again: it costs the same; and unmounts
 *   whole SOURCE COPY each file in COPY is one of SOURCE, or how one begins
 */
const prelude = `
set -eu
mkdir -p m
begin() {
  options="$*"
  imgfs mount "$image" m --upper up $transport "$@" 2> mount-said || { cat mount-said; exit 1; }
}
# Bytes and inodes, of what has these keys of its own first.
figures() { sed -n 's/^  "bytes": \\([0-9]*\\).*/\\1/p; s/^  "inodes": \\([0-9]*\\).*/\\1/p' | tr '\\n' ' '; }
agree() {
  # What the kernel has not forgotten yet is still charged.
  for i in $(seq 60); do
    imgfs quota m --json > quota-said
    charged=$(figures < quota-said)
    counted=$(imgfs du up --json 2> /dev/null | figures)
    [ "$charged" != "$counted" ] || break
    sleep 0.05
  done
  [ "$charged" = "$counted" ] || { echo "$1: charged $charged, counted $counted"; exit 1; }
  shown=$(stat -f -c '%S %b %f %c %d' m | { read -r size all free inodes left; echo "$(((all - free) * size)) $((inodes - left)) "; })
  [ "$charged" = "$shown" ] || { echo "$1: charged $charged, df shows $shown"; exit 1; }
  limit=$(sed -n 's/^  "byteLimit": \\([0-9]*\\).*/\\1/p' quota-said)
  [ "\${charged%% *}" -le "$limit" ] || { echo "$1: $charged of $limit"; exit 1; }
}
limit() { imgfs quota m --set "$1" > /dev/null; options="--quota $1"; }
full() {
  if "$@" > said 2>&1; then echo "$1 did not fail"; cat said; exit 1; fi
}
again() {
  echo again > m/work/again
  grep -qx again m/work/again || { echo "cannot write again"; exit 1; }
  rm m/work/again
}
finish() {
  agree "at the end"
  before=$charged
  imgfs umount m
  imgfs check --upper up "$image" > checked 2>&1 || { cat checked; exit 1; }
  begin $options
  agree "after a remount"
  [ "$charged" = "$before" ] || { echo "was $before, is $charged after a remount"; exit 1; }
  imgfs umount m
}
whole() {
  python3 - "$1" "$2" << 'END'
import os, sys
source, copy = map(os.fsencode, sys.argv[1:])
count = 0
for folder, _, names in os.walk(copy):
    for name in names:
        path = os.path.join(folder, name)
        of = os.path.join(source, os.path.relpath(path, copy))
        if os.path.islink(path):
            assert os.readlink(path) == os.readlink(of), path
        elif os.path.isfile(path):
            text = open(path, "rb").read()
            # rsync has its temporary names, and removes them.
            assert open(of, "rb").read(len(text)) == text, path
        count += 1
assert count > 0
END
}
`;

/** Somebody who mounts. */
export interface Way {
  readonly name: string;
  tell(image: string, script: string): Promise<Outcome>;
}

function way(name: string, as: "asRoot" | "asUser", transport = ""): Way {
  return {
    name,
    tell: (image, script) =>
      makeCorner()[as](`image='${image}'; transport='${transport}'\n${prelude}\n${script}`),
  };
}

export const user: Way = way("an ordinary user", "asUser");
export const root: Way = way("root", "asRoot");
export const byNative: Way = way("root through fuse-native", "asRoot", "--transport fuse-native");

/** Runs a script that must end well; what it prints. */
export async function say(who: Way, image: string, script: string): Promise<string> {
  const outcome = await who.tell(image, script);
  expect(outcome, `${who.name}: ${script}\n${outcome.stdout}${outcome.stderr}`).toMatchObject({
    code: 0,
    stderr: "",
  });
  return outcome.stdout;
}

/** An OCI layout with a directory that all may write to, and a file of 3 MiB. */
export function writeWorkImage(): string {
  const layout = scratch("layout");
  const work = { name: "work", type: "dir", mode: 0o777 } as const;
  writeLayout(layout, [layerTar([work, { name: "work/large", data: noise(3 << 20), mode: 0o666 }])]);
  return layout;
}

/** Makes the tree `src`, of some 3 MiB: files of many sizes, links of both kinds, an xattr, a hole, in folders. */
export const makeSource = `
python3 - << 'END'
import os, random
r = random.Random(7)
for d in range(12):
    folder = f"src/d{d % 4}/e{d}"
    os.makedirs(folder)
    for i in range(25):
        with open(f"{folder}/f{i}", "wb") as f:
            f.write(r.randbytes(r.choice([0, 1, 100, 4096, 5000, 20000, 40000])))
    os.symlink("f1", f"{folder}/link")
    os.link(f"{folder}/f2", f"{folder}/hard")
    os.setxattr(f"{folder}/f3", "user.note", b"text")
with open("src/d0/hole", "wb") as f:
    f.truncate(1 << 20)
    f.write(b"x")
END
`;
