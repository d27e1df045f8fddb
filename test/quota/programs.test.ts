// Programs run into a full quota: each says so, leaves a filesystem that is whole and can be used, and what `df` shows is
// what a recount finds, after every step.
import { beforeAll, describe, expect, it } from "vitest";
import { build, cannotMount, titleOf } from "../e2e/mounted.js";
import { noNative } from "../e2e/transports.js";
import { byNative, makeSource, root, say, user, type Way, writeWorkImage } from "./programs.js";

const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
const EXCEEDED = "Disk quota exceeded";
const NO_SPACE = "No space left on device";

it.runIf(inCi)("programs in a full quota are tested in CI", () => expect(cannotMount).toBeUndefined());

/** Programs that copy `src` to m/work/to. */
const copiers: Readonly<Record<string, string>> = {
  tar: "tar xf src.tar -C m/work/to --strip-components=1",
  "cp -a": "cp -a src/. m/work/to",
  "cp --reflink=auto": "cp -R --reflink=auto src/. m/work/to",
  "rsync -aHAX": "rsync -aHAX src/ m/work/to",
};

let image: string;

describe.skipIf(cannotMount)(titleOf("in a full quota", cannotMount), () => {
  beforeAll(async () => {
    image = await build(`oci:${writeWorkImage()}`);
  });

  describe.each([user, root, ...(noNative === undefined ? [byNative] : [])])("by $name", (who) => {
    it("dd writes whole blocks, and no more", async () => {
      const text = await say(
        who,
        image,
        `begin --quota 10000
         full dd if=/dev/zero of=m/work/f bs=1000 count=11
         grep -o '${EXCEEDED}' said; stat -c %s m/work/f
         imgfs quota m --json | sed -n 's/^  "bytes": //p'
         rm m/work/f; again
         dd if=/dev/zero of=m/work/f bs=1000 count=8 2> /dev/null
         imgfs umount m; imgfs du up --json | sed -n 's/^  "bytes": //p'`,
      );
      expect(text).toBe(`${EXCEEDED}\n8192\n8192,\n8192,\n`);
    });

    const some = who === user ? Object.keys(copiers) : ["tar", "rsync -aHAX"];
    it.each(some)("%s", async (name) => {
      await copies(who, copiers[name] as string, "", EXCEEDED);
    });
  });

  it.each(["tar", "cp -a"])("%s, where that is to look like a full disk", async (name) => {
    await copies(user, copiers[name] as string, "--quota-errno ENOSPC", NO_SPACE);
  });

  async function copies(who: Way, copy: string, options: string, words: string): Promise<void> {
    const text = await say(
      who,
      image,
      `${makeSource} tar cf src.tar src
       begin --quota 1M ${options}
       mkdir m/work/to; agree "at the beginning"
       full ${copy}
       agree "when it is full"
       grep -o '${words}' said | sort -u
       whole src m/work/to
       # Nothing fits that takes a block.
       dd if=/dev/zero of=m/work/filler bs=4096 2> /dev/null || :
       full mkdir m/work/more; grep -q '${words}' said
       agree "when nothing fits"
       : > m/work/filler; agree "after truncate"
       rm -r m/work/to m/work/filler; agree "after rm"
       again; agree "after writing again"
       limit 16M; mkdir m/work/to; ${copy}; agree "with room"
       diff -r src m/work/to && echo the same
       finish`,
    );
    expect(text).toBe(`${words}\nthe same\n`);
  }

  it.each([user, root])("cp within the mount, and cp onto a file of the image, by $name", async (who) => {
    const text = await say(
      who,
      image,
      `begin --quota 1M
       full cp --reflink=auto m/work/large m/work/copy; grep -o '${EXCEEDED}' said
       agree "when it is full"
       cmp -n $(stat -c %s m/work/copy) m/work/large m/work/copy
       # Copying up takes all of the file or nothing.
       : > m/work/copy
       full dd if=/dev/zero of=m/work/large bs=1 count=1 conv=notrunc; grep -o '${EXCEEDED}' said
       agree "after what was not copied up"; [ "\${charged%% *}" = 0 ]
       limit 4M
       dd if=/dev/zero of=m/work/large bs=1 count=1 conv=notrunc 2> /dev/null; agree "after it was"
       [ "\${charged%% *}" = $((3 << 20)) ]
       rm m/work/large; agree "after its removal"; [ "\${charged%% *}" = 0 ]
       finish`,
    );
    expect(text).toBe(`${EXCEEDED}\n${EXCEEDED}\n`);
  });

  describe.each(["delete", "wal"])("sqlite3 in journal mode %s", (mode) => {
    it.each([
      { who: user, options: "--quota-errno ENOSPC", words: "database or disk is full" },
      { who: root, options: "", words: "disk I/O error" },
      ...(noNative === undefined ? [{ who: byNative, options: "", words: "disk I/O error" }] : []),
    ])("rolls back, is sound and goes on, by $who.name $options", async ({ who, options, words }) => {
      const rows = (count: number): string =>
        `with recursive c(n) as (select 1 union all select n + 1 from c where n < ${count})
         insert into t (s) select hex(randomblob(200)) from c;`;
      const text = await say(
        who,
        image,
        `begin --quota 1M ${options}
         db() { sqlite3 -batch -bail m/work/rows.db "$1"; }
         db 'pragma journal_mode = ${mode}; create table t (n integer primary key, s text); ${rows(500)}'
         agree "with some rows"
         full sqlite3 -batch -bail m/work/rows.db 'begin; ${rows(9000)} commit;'
         grep -o '${words}' said
         agree "after the transaction"
         db 'pragma integrity_check; select count(*) from t'
         # One that makes room, in what room there is.
         db 'delete from t where n > 100; vacuum'; agree "after the vacuum"
         db 'pragma integrity_check; select count(*) from t; ${rows(300)} select count(*) from t'
         limit 16M
         db 'begin; ${rows(9000)} commit; select count(*) from t; pragma integrity_check'
         finish
         begin --quota 16M; db 'pragma integrity_check; select count(*) from t'; imgfs umount m`,
      );
      expect(text).toBe(`${mode}\n${words}\nok\n500\nok\n100\n400\n9400\nok\nok\n9400\n`);
    });
  });

  it.each([user, root])("git cannot clone or commit, and is sound, by $name", async (who) => {
    const text = await say(
      who,
      image,
      `export GIT_CONFIG_GLOBAL=$PWD/config GIT_CONFIG_SYSTEM=/dev/null
       git config --file config user.name a; git config --file config user.email a@b
       git config --file config init.defaultBranch main; git config --file config safe.directory '*'
       ${makeSource}
       git init -q origin; cp -R src/d0 origin
       (cd origin; for each in 1 2 3; do echo $each > d0/count; git add -A; git commit -q -m "change $each"; done)
       begin --quota 600K
       full git clone -q --no-local origin m/work/clone; grep -o '${EXCEEDED}' said | sort -u
       agree "after the clone"; test ! -e m/work/clone && echo removed; again
       limit 8M; git clone -q --no-local origin m/work/clone; agree "with room"
       cp -R src/d1 src/d2 m/work/clone
       limit "$(imgfs quota m --json | sed -n 's/^  "bytes": \\([0-9]*\\).*/\\1/p')"
       full git -C m/work/clone add -A; grep -o '${EXCEEDED}' said | sort -u
       git -C m/work/clone fsck; git -C m/work/clone log --format=%s
       agree "after git add"
       limit 16M
       (cd m/work/clone; git add -A; git commit -q -m more; git fsck; git status --short; git log --format=%s -1)
       agree "after the commit"
       rm -r m/work/clone; agree "after rm"
       finish`,
    );
    expect(text).toBe(`${EXCEEDED}\nremoved\n${EXCEEDED}\nchange 3\nchange 2\nchange 1\nmore\n`);
  });

  it("10,000 small files in deep folders meet the limit of inodes", async () => {
    const text = await say(
      root,
      image,
      `${npm}
       begin --quota 64M --quota-inodes 3000
       python3 npm.py m/work/app > said; cut -d' ' -f2- said
       agree "without inodes"; [ "\${charged#* }" = "3000 " ] && echo all inodes
       rm -r m/work/app; agree "after rm"; again
       options="--quota 64M"; finish`,
    );
    expect(text).toBe(`${EXCEEDED}\nall inodes\n`);
  });

  it("10,000 small files in deep folders meet the limit of bytes, and are removed after a remount", async () => {
    const text = await say(
      user,
      image,
      `${npm}
       begin --quota 20M --quota-inodes 12000
       python3 npm.py m/work/app > said; cut -d' ' -f2- said
       agree "without bytes"; [ "\${charged%% *}" = $((20 << 20)) ] && echo all bytes
       imgfs umount m; begin --quota 20M --quota-inodes 12000; agree "after a remount"
       rm -r m/work/app; agree "after rm of what was there"; [ "\${charged%% *}" = 0 ]
       limit 64M
       python3 npm.py m/work/app; agree "with room"`,
    );
    expect(text).toBe(`${EXCEEDED}\nall bytes\n10000\n`);
  });
});

/** A script that makes 100 packages of 100 files, as far as it can: how many, and what the others failed with. */
const npm = `cat > npm.py << 'END'
import os, sys
root, count, made = sys.argv[1], 0, 0
errors = set()
for p in range(100):
    folder = os.path.join(root, *(f"node_modules/package-{(p // 5 ** k) % 5}-{k}" for k in range(4)), f"p{p}", "dist")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as e:
        errors.add(e.strerror)
        continue
    for i in range(100):
        try:
            with open(f"{folder}/module-{i}.js", "w") as f:
                made += 1
                f.write(f"module.exports = {p * i};\\n" * (1 + i % 5))
            count += 1
        except OSError as e:
            errors.add(e.strerror)
print(count, *sorted(errors))
END`;
