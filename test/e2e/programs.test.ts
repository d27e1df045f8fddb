// Programs that run inside a mount, by chroot. The self-made image holds a shell and a few tools of
// this machine; with IMGFS_CORPUS a real python, node, git, apt and sqlite run, and what they wrote
// is there after a remount.
import { existsSync, realpathSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { manyLayers, userland } from "./make-image.js";
import { build, cannotMount, hasCommand, type Mounted, mount, scratch, succeed, titleOf } from "./mounted.js";
import { writeLayout } from "./oci-writer.js";
import { transports } from "./transports.js";

const tools = ["/bin/sh", "/bin/cat", "/bin/ls", "/bin/rm", "/bin/mv", "/bin/cp", "/bin/mkdir", "/bin/ln"];
const missing = tools.find((path) => !existsSync(path));
const reason =
  cannotMount ??
  (missing === undefined ? undefined : `this machine has no ${missing}`) ??
  (hasCommand("ldd") ? undefined : "ldd is missing");
const corpus = process.env["IMGFS_CORPUS"];
const noCorpus = cannotMount ?? (corpus === undefined ? "IMGFS_CORPUS is not set" : undefined);

const inside = ({ path }: Mounted, script: string): Promise<string> =>
  succeed("chroot", [path, "/bin/sh", "-euc", script], {
    env: {
      PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      HOME: "/root",
      LC_ALL: "C.UTF-8",
    },
  });

const title = titleOf("programs of this machine, inside a mount by $name", reason);
describe.skipIf(reason).each(transports)(title, ({ mount }) => {
  let image: string;

  beforeAll(async () => {
    const layout = scratch("layout");
    writeLayout(layout, [userland(tools), ...manyLayers(4)]);
    image = await build(`oci:${layout}`);
  });

  it("run from a read-only mount", async () => {
    const mounted = await mount(image);
    expect(await inside(mounted, "cat /stack/top; ls /stack")).toMatch(/^last written by layer 3\nlayer-1\n/);
  });

  it("write, rename, link and delete; after a remount all of it is there", async () => {
    const upper = scratch("upper");
    const mounted = await mount(image, "--upper", upper, "--devices");
    await inside(
      mounted,
      `mkdir -p /task/deep; echo one > /task/deep/file; ln /task/deep/file /task/link
       cp /bin/cat /task/cat; /task/cat /task/link > /dev/null; mv /task/deep /task/moved
       echo more >> /stack/top; rm /stack/layer-1; rm -r /stack/shared; mv /stack/layer-2 /stack/two`,
    );
    await mounted.unmount();
    const again = await mount(image, "--upper", upper, "--devices");
    expect(await inside(again, "/task/cat /task/moved/file /stack/top /stack/two; ls /stack /task")).toBe(
      [
        "one\nlast written by layer 3\nmore\nmade by layer 2\n/stack:\n",
        "layer-3\nlink-1\ntop\ntwo\n\n/task:\ncat\nlink\nmoved\n",
      ].join(""),
    );
  });

  it("can be replaced while they run", async () => {
    const mounted = await mount(image, "--upper", scratch("upper"));
    const said = await inside(
      mounted,
      "cp /bin/sh /bin/sh.new; mv /bin/sh.new /bin/sh; /bin/sh -c 'echo replaced'",
    );
    expect(said).toBe("replaced\n");
    const original = await readFile(realpathSync("/bin/sh"));
    expect((await readFile(mounted.at("bin/sh"))).equals(original)).toBe(true);
  });
});

describe.skipIf(noCorpus)(titleOf("a real userland inside a mount", noCorpus), () => {
  it("runs python, node, git, apt and sqlite, and keeps what they write", { timeout: 900_000 }, async () => {
    const image = await build(`oci:${join(corpus as string, "python-node")}`);
    const upper = scratch("upper");
    const mounted = await mount(image, "--upper", upper, "--devices");
    await inside(mounted, "python3 -c 'import json, ssl, asyncio; print(json.dumps(ssl.OPENSSL_VERSION))'");
    await inside(mounted, `node -e 'require("/app/node_modules/webpack")'`);
    expect(await inside(mounted, "apt-get --version")).toMatch(/^apt /);
    await inside(
      mounted,
      `git init -q /srv/repo; cd /srv/repo; echo text > file; git add file
       git -c user.name=e2e -c user.email=e2e@localhost commit -qm 'The first'`,
    );
    await inside(
      mounted,
      `sqlite3 /srv/rows.db 'create table t (n integer primary key, s text);
       with recursive c(n) as (select 1 union all select n + 1 from c where n < 2000)
       insert into t select n, hex(n) from c;'
       for i in 1 2 3; do sqlite3 /srv/rows.db "insert into t (s) values ('single')"; done`,
    );
    await mounted.unmount();
    const again = await mount(image, "--upper", upper, "--devices");
    expect(await inside(again, "cd /srv/repo; git log --format=%s; git fsck; git status --short")).toBe(
      "The first\n",
    );
    expect(await inside(again, "sqlite3 /srv/rows.db 'pragma integrity_check; select count(*) from t'")).toBe(
      "ok\n2003\n",
    );
    await again.unmount();
  });
});
