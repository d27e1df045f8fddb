// `dir:PATH`: a tree on the disk becomes an image, and what the mount shows is the tree.
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { treeTar } from "../../src/builder/tree/stream.js";
import { layout } from "../fixtures/oci.js";
import { sha256Hex } from "../fixtures/tar.js";
import {
  build,
  cannotMount,
  command,
  compareTrees,
  hasCommand,
  imgfs,
  mount,
  python,
  run,
  scratch,
  scratchDirectory,
  shell,
  shownTree,
  succeed,
  titleOf,
} from "./mounted.js";
import { fillOddTree } from "./odd-tree.js";

const reason = cannotMount ?? (hasCommand("python3") ? undefined : "python3 is missing");

/** What GNU tar cannot carry, or would not. */
const more = `
import struct
os.setxattr('attrs', 'user.a=b%', b'equals'); os.setxattr('attrs', 'user.empty', b''); os.setxattr('attrs', b'user.\\xff\\n', b'odd')
os.setxattr('suid', 'security.capability', bytes.fromhex('0100000200240000000000000000000000000000'))
os.chmod('suid', 0o4755)
os.setxattr('dir', 'trusted.note', b'\\0')
acl = lambda *rows: struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *row) for row in rows)
none = 0xffffffff
rows = ((1, 7, none), (2, 5, 1000), (4, 5, none), (16, 7, none), (32, 0, none))
os.setxattr('dir', 'system.posix_acl_access', acl(*rows)); os.setxattr('dir', 'system.posix_acl_default', acl(*rows))
os.makedirs('.wh..wh.plnk/.wh.sub'); put('.wh.plain', b'p'); put('.wh..wh..opq', b'o'); put('.wh.', b'e')
put('.wh..wh.plnk/1.2', b'l'); os.link('.wh..wh.plnk/1.2', 'dir/from-plnk'); os.symlink('.wh.', '.wh..wh.link')
os.mknod('dir/zero', 0o600 | stat.S_IFCHR, 0)
put('dir/huge-ids'); os.chown('dir/huge-ids', 4000000000, 4294967294)
with open('dir/hole-last', 'wb') as f: f.write(b'd' * 4096); f.truncate(123456)
os.symlink('loop', 'loop'); os.symlink('/etc/passwd', 'outside')
`;

describe.skipIf(reason)(titleOf("a tree of files as a source", reason), () => {
  let tree: string;
  beforeAll(async () => {
    tree = scratchDirectory("tree");
    await fillOddTree(tree, "1600000000123456789", more);
  });

  it("is what its mount shows, names, modes, owners, times, xattrs, links, holes and devices", async () => {
    const image = await build(`dir:${tree}`);
    const mounted = await mount(image, "--devices");
    const expected = await shownTree(tree, "--holes");
    const shown = await shownTree(mounted.path, "--holes");
    expect(await compareTrees(expected, shown)).toBeGreaterThan(40);
    await mounted.unmount();
    const { code, stderr } = await imgfs("check", "--data", image);
    expect([code, stderr]).toEqual([0, ""]);
  });

  it("gives the same files from a copy of it, through a symlink and as a bare path", async () => {
    const copy = `${scratchDirectory("copies")}/copy`;
    await succeed("cp", ["-a", "--sparse=auto", tree, copy]);
    // cp does not carry a socket's or the default order of a directory: what remains must not matter.
    await shell(`ln -s '${copy}' '${copy}-link'; touch -a '${copy}/plain'`);
    const first = await contentsOf(await build(`dir:${tree}`));
    expect(await contentsOf(await build(`dir:${copy}-link`))).toEqual(first);
    expect(await contentsOf(await build(copy))).toEqual(first);
  });

  it("is a canonical tar: its diffID is that of the stream, which tar programs read and tar: builds alike", async () => {
    const plain = scratchDirectory("plain");
    await fillOddTree(
      plain,
      "1600000000123456789",
      "put('dir/equals'); os.setxattr('dir/equals', 'user.x', b'')",
    );
    const stream = streamOf(plain);
    const file = scratch("canonical.tar");
    writeFileSync(file, stream);
    const image = await build(`dir:${plain}`);
    expect(readdirSync(image)).toContain(`${sha256Hex(stream)}.imgfs`);
    expect(await contentsOf(await build(`tar:${file}`))).toEqual(await contentsOf(image));
    await shell(`'${command}' extract --tar '${image}' > '${file}-again'`);
    expect(readFileSync(`${file}-again`).equals(stream)).toBe(true);
    const unpacked = scratchDirectory("unpacked");
    await succeed("tar", ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", file, "-C", unpacked]);
    expect(
      await compareTrees(await shownTree(plain, "--holes"), await shownTree(unpacked, "--holes")),
    ).toBeGreaterThan(30);
  });

  it("has literal names that no layer of an image may have", async () => {
    const marked = scratchDirectory("marked");
    await shell(`touch '${marked}/.wh.x'`);
    const file = scratch("marked.tar");
    writeFileSync(file, streamOf(marked));
    const image = await build(marked);
    expect(await contentsOf(await build(file))).toEqual(await contentsOf(image));
    const made = layout(scratch("layout"), [readFileSync(file)]);
    const { code, stderr } = await imgfs("build", made.folder, scratch("image"));
    expect([code, stderr]).toEqual([
      1,
      expect.stringContaining("entry .wh.x: pax IMGFS.literal is not for layers of an image"),
    ]);
  });

  it("may hold a file of any size, of which holes cost nothing", async () => {
    const large = scratchDirectory("large");
    await shell(
      `truncate -s 20G '${large}/file'; printf end >> '${large}/file'; cp --sparse=always /bin/sh '${large}/sh'`,
    );
    const { stdout } = await imgfs("ls", "--json", await build(large));
    expect(stdout).toContain('"size":21474836483');
  });

  it("leaves out sockets, and says which", async () => {
    const sockets = scratchDirectory("sockets");
    await python(
      "import socket, sys, os; os.chdir(sys.argv[1]); [socket.socket(socket.AF_UNIX).bind(f's{i}') for i in range(7)]; open('file', 'w')",
      sockets,
    );
    const dest = scratch("image");
    const { code, stderr } = await imgfs("build", sockets, dest, "--progress=none");
    expect(code).toBe(0);
    expect(stderr.match(/^imgfs: warning: s\d: a socket, left out/gm)).toHaveLength(5);
    expect(stderr).toContain("imgfs: warning: 2 more sockets left out");
    expect((await imgfs("ls", dest)).stdout).toBe("file\n");
  });

  it("leaves out the marks of the storage it lies in, and keeps the user's attributes", async () => {
    const marked = scratchDirectory("marked");
    await python(
      `import os, sys; os.chdir(sys.argv[1])
for name in ('trusted.overlay.opaque', 'user.overlay.opaque', 'user.fuseoverlayfs.opaque', 'user.imgfs.origin', 'user.overlays', 'user.mine'): os.setxattr('.', name, b'y')`,
      marked,
    );
    const { stdout } = await imgfs("ls", "--json", await build(marked), "/");
    expect(stdout).toBe("");
    const mounted = await mount(await build(marked));
    expect(await python("import os, sys; print(sorted(os.listxattr(sys.argv[1])))", mounted.path)).toBe(
      "['user.mine', 'user.overlays']",
    );
  });

  it("takes what is mounted inside it", async () => {
    const outer = scratchDirectory("outer");
    await shell(
      `mkdir '${outer}/inner'; mount -t tmpfs none '${outer}/inner'; echo x > '${outer}/inner/file'`,
    );
    try {
      expect((await imgfs("cat", await build(outer), "inner/file")).stdout).toBe("x\n");
    } finally {
      await shell(`umount '${outer}/inner'`);
    }
  });

  it("that a build writes into is refused, and nothing is made in it", async () => {
    const own = scratchDirectory("own");
    await shell(`echo x > '${own}/file'; ln -s '${own}' '${own}-link'`);
    for (const dest of [`${own}/image`, own, `${own}-link/a/b`]) {
      const { code, stderr } = await imgfs("build", `dir:${own}`, dest);
      expect([code, stderr]).toEqual([
        1,
        expect.stringContaining(`${dest}: inside the tree that the image is made of`),
      ]);
    }
    expect(readdirSync(own)).toEqual(["file"]);
  });

  it("that changes while it is read is an error that names the object, or is read whole", async () => {
    const busy = scratchDirectory("busy");
    await shell(
      `cd '${busy}'; for i in $(seq 300); do mkdir d$i; echo $i > d$i/f; done; echo secret > '${busy}-secret'`,
    );
    const writer = `
import os, sys
os.chdir(sys.argv[1])
while os.path.exists(sys.argv[1] + '-secret'):
    for i in range(1, 301, 7):
        os.rename(f'd{i}', 'aside'); os.symlink('/', f'd{i}'); os.unlink(f'd{i}'); os.rename('aside', f'd{i}')
        os.unlink(f'd{i}/f'); os.mkfifo(f'd{i}/f'); os.unlink(f'd{i}/f'); os.symlink(sys.argv[1] + '-secret', f'd{i}/f')
        os.unlink(f'd{i}/f'); open(f'd{i}/f', 'w').write('x' * 5000)
`;
    const writing = run("python3", ["-c", writer, busy]);
    let failures = 0;
    for (let i = 0; i < 20 && failures < 3; i++) {
      const dest = scratch("image");
      const { code, stderr } = await imgfs("build", `dir:${busy}`, dest, "--progress=none");
      if (code !== 0) {
        failures++;
        expect(stderr).toMatch(
          /^imgfs: build dir:\S+: layer 1: .*: it (changed|became shorter) while it was being read\n$/,
        );
        expect(existsSync(dest)).toBe(false);
      } else {
        const found = await imgfs("ls", "-R", "--json", dest);
        expect(found.stdout).not.toContain("passwd");
        rmSync(dest, { recursive: true });
      }
    }
    rmSync(`${busy}-secret`);
    await writing;
    expect(failures).toBe(3);
  });

  it("that cannot be read names the object", async () => {
    const deep = scratchDirectory("deep");
    await python(
      "import os, sys; os.chdir(sys.argv[1])\nfor i in range(20): os.mkdir('d' * 250); os.chdir('d' * 250)",
      deep,
    );
    const { code, stderr } = await imgfs("build", `dir:${deep}`, scratch("image"));
    // Node's own rm goes by whole paths, which no call takes here.
    await shell(`rm -r '${deep}'`);
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/: layer 1: entry (d{250}\/)+: path of 4\d+ bytes, at most 4095 are accepted\n$/),
    ]);
    const file = scratch("file");
    await shell(`echo > '${file}'`);
    expect((await imgfs("build", `dir:${file}`, scratch("image"))).stderr).toContain(`${file}: not a folder`);
    expect((await imgfs("build", `dir:${file}-none`, scratch("image"))).code).toBe(10);
  });
});

/** The tar that a tree is as a layer. Its pieces share one buffer. */
function streamOf(tree: string): Buffer {
  const pieces: Buffer[] = [];
  for (const piece of treeTar(tree, () => {})) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

/** Digests of an image's files by name. */
async function contentsOf(image: string): Promise<Record<string, string>> {
  return Object.fromEntries(
    readdirSync(image)
      .sort()
      .map((name) => [name, sha256Hex(readFileSync(join(image, name)))]),
  );
}
