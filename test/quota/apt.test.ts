// apt-get and dpkg in a chroot on a full quota. With IMGFS_CORPUS it is the Debian there, else one made of this machine's
// programs; packages come from a repository in the image, so nothing is asked of the network.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { noise, userland } from "../e2e/make-image.js";
import { build, cannotMount, hasCommand, scratch, scratchDirectory, titleOf } from "../e2e/mounted.js";
import { sha256, writeLayout } from "../e2e/oci-writer.js";
import { layerTar, type TarEntry } from "../e2e/tar-writer.js";
import { noNative } from "../e2e/transports.js";
import { byNative, root, say } from "./programs.js";

const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
const corpus = process.env["IMGFS_CORPUS"];
const needed = ["apt-get", "dpkg", "dpkg-deb", "ldd"].find((name) => !hasCommand(name));
const reason = cannotMount ?? (needed === undefined ? undefined : `this machine has no ${needed}`);

it.runIf(inCi)("apt-get in a full quota is tested in CI", () => expect(reason).toBeUndefined());

const folder = (name: string, mode = 0o755): TarEntry => ({ name, type: "dir", mode });
const file = (name: string, data: string | Buffer, mode = 0o644): TarEntry => ({
  name,
  data: Buffer.from(data),
  mode,
});

/** What apt-get and dpkg call, where Debian has it. */
const programs = (
  "apt-get apt-cache dpkg dpkg-deb dpkg-split dpkg-query tar gzip sh rm cat ls find sort " +
  "sha256sum diff ldconfig start-stop-daemon"
)
  .split(" ")
  .map((name) => ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map((at) => `${at}/${name}`).find(existsSync))
  .filter((path) => path !== undefined);
const methods = ["copy", "file", "gpgv", "store"].map((name) => `/usr/lib/apt/methods/${name}`);

/** A Debian that has nothing installed, as dpkg sees it. */
function debian(): Buffer[] {
  const tables = ["abitable", "cputable", "ostable", "tupletable"].map((name) => `usr/share/dpkg/${name}`);
  const dirs = (
    "tmp etc/apt/apt.conf.d etc/apt/preferences.d etc/apt/trusted.gpg.d etc/dpkg/dpkg.cfg.d var/lib/dpkg/info " +
    "var/lib/dpkg/updates var/lib/dpkg/triggers var/lib/apt/lists/partial var/cache/apt/archives/partial " +
    "var/log/apt usr/share usr/lib/dpkg/methods root"
  ).split(" ");
  return [
    userland([...programs, ...methods.filter(existsSync)]),
    layerTar([
      ...dirs.map((name) => folder(name)),
      file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
      file("etc/group", "root:x:0:\n"),
      file("var/lib/dpkg/status", ""),
      file("var/lib/dpkg/available", ""),
      ...tables.filter((name) => existsSync(`/${name}`)).map((name) => file(name, readFileSync(`/${name}`))),
    ]),
  ];
}

/** A repository: one small package, and one of 4 MiB in 40 files. */
function repository(): Buffer {
  const entries: TarEntry[] = [folder("repo")];
  let index = "";
  for (const [name, count, size] of [
    ["small", 2, 1000],
    ["large", 40, 100 << 10],
  ] as const) {
    const tree = scratchDirectory(name);
    mkdirSync(join(tree, "DEBIAN"));
    mkdirSync(join(tree, "usr/share", name), { recursive: true });
    for (let i = 0; i < count; i++) writeFileSync(join(tree, "usr/share", name, `f${i}`), noise(size, i + 1));
    const control =
      `Package: ${name}\nVersion: 1.0\nArchitecture: all\n` +
      `Maintainer: A <a@localhost>\nDescription: for a test\n`;
    writeFileSync(join(tree, "DEBIAN/control"), control);
    const made = scratch(`${name}.deb`);
    execFileSync("dpkg-deb", ["--build", "--root-owner-group", "-Zgzip", tree, made], { stdio: "ignore" });
    const data = readFileSync(made);
    index += `${control}Filename: ./${name}.deb\nSize: ${data.length}\nSHA256: ${sha256(data)}\n\n`;
    entries.push(file(`repo/${name}.deb`, data));
  }
  entries.push(
    file("repo/Packages", index),
    folder("etc/apt/sources.list.d"),
    file("etc/apt/sources.list.d/.wh..wh..opq", ""),
    file("etc/apt/sources.list", "deb [trusted=yes] file:/repo ./\n"),
    // Without accounts of its own, and without what wants the network.
    file("etc/apt/apt.conf.d/99test", 'APT::Sandbox::User "root";\nAcquire::Languages "none";\n'),
  );
  return layerTar(entries);
}

/** The layers of a layout with one image, unpacked. */
function layersOf(layout: string): Buffer[] {
  const blob = (digest: string): Buffer => readFileSync(join(layout, "blobs", digest.replace(":", "/")));
  const index = JSON.parse(readFileSync(join(layout, "index.json"), "utf8"));
  const manifest = JSON.parse(blob(index.manifests[0].digest).toString());
  return manifest.layers.map(({ digest }: { digest: string }) => gunzipSync(blob(digest)));
}

const ways = noNative === undefined ? [root, byNative] : [root];

describe.skipIf(reason).each(ways)(titleOf("apt-get in a chroot, by $name", reason), (who) => {
  it("cannot install what is too large, is sound, and can when there is room", {
    timeout: 300_000,
  }, async () => {
    const layout = scratch("layout");
    writeLayout(layout, [
      ...(corpus === undefined ? debian() : layersOf(join(corpus, "debian"))),
      repository(),
    ]);
    const image = await build(`oci:${layout}`);
    const text = await say(
      who,
      image,
      `inside() {
         env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive chroot m "$@"
       }
       begin --quota 4M --devices
       inside apt-get -qq update; agree "after update"
       inside apt-get -qq install small > installed 2>&1 || { cat installed; exit 1; }
       agree "with the small one"
       full inside apt-get -qq -y install large; grep -o 'Disk quota exceeded' said | sort -u
       agree "when it is full"
       inside dpkg --audit; inside dpkg-query -f '\${Package} \${db:Status-Abbrev}\\n' -W small
       test ! -e m/usr/share/large/f0 && echo nothing of the large one
       limit 24M
       inside apt-get -qq -y install large > installed 2>&1 || { cat installed; exit 1; }
       agree "with room"
       inside dpkg --audit; inside dpkg-query -f '\${Package} \${db:Status-Abbrev}\\n' -W small large
       cat m/usr/share/large/f* | wc -c
       finish`,
    );
    expect(text).toBe(
      `Disk quota exceeded\nsmall ii \nnothing of the large one\nlarge ii \nsmall ii \n${40 * (100 << 10)}\n`,
    );
  });
});
