// OCI archives, and what both kinds of archive may hold that no tool writes.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { openSource } from "../../src/oci/open.js";
import { amd64, digest, dockerArchive, gzip, Layout, layout } from "../fixtures/oci.js";
import {
  base256,
  dir,
  type Entry,
  file,
  hardlink,
  header,
  paxHeader,
  sha256Hex,
  symlink,
  tar,
  tarWithoutEnd,
} from "../fixtures/tar.js";
import { readLayer } from "./support.js";

const root = mkdtempSync(join(tmpdir(), "imgfs-archives-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let folder = "";
let path = "";
let serial = 0;
beforeEach(() => {
  folder = join(root, `case-${serial++}`);
  path = `${folder}.tar`;
});

const one = tar(file("one", "1"));
const two = tar(file("two", "2".repeat(5000)));
const opens = async (source: string, platform?: string): Promise<string[]> =>
  (await openSource(source, { platform })).layers.map((layer) => sha256Hex(readLayer(layer)));
const refuses = async (source: string, message: RegExp | string): Promise<void> => {
  const error = await openSource(source).catch((cause: Error) => cause);
  expect(error).toBeInstanceOf(Error);
  const said = (error as Error).message;
  if (typeof message === "string") expect(said).toContain(message);
  else expect(said).toMatch(message);
  expect((error as Error).message).not.toContain("\n");
};
const archive = (...members: readonly (Entry | Uint8Array)[]): void => writeFileSync(path, tar(...members));
const both = [one, two].map(sha256Hex);

describe("an OCI archive", () => {
  it("gives each layer's range in the archive, in any order of members and under ./ too", async () => {
    const members = layout(folder, [one, two]).members();
    const dotted = members.map((member) => ({ ...member, name: `./${member.name}` }));
    for (const list of [members, [...members].reverse(), [dir("./"), dir("./blobs"), ...dotted]]) {
      archive(...list);
      const image = await openSource(`oci-archive:${path}`);
      expect(image.layers.map(({ bytes }) => bytes.kind === "file" && bytes.path)).toEqual([path, path]);
      expect(await opens(`oci-archive:${path}`)).toEqual(both);
      expect(await opens(path)).toEqual(both);
    }
  });

  it("has tags, nested indexes and platforms like a folder", async () => {
    const made = new Layout(folder);
    const platforms = [
      { ...made.image([one], { architecture: "amd64" }), platform: { os: "linux", architecture: "amd64" } },
      { ...made.image([two], { architecture: "arm64" }), platform: { os: "linux", architecture: "arm64" } },
    ];
    made
      .tag(made.index([made.index(platforms)]), "multi")
      .tag(made.image([two, one]), "docker.io/library/x:2");
    archive(...made.members());
    expect(await opens(`${path}:multi`, "linux/arm64")).toEqual([both[1]]);
    expect(await opens(`oci-archive:${path}:multi`, "linux/amd64")).toEqual([both[0]]);
    expect(await opens(`${path}:x:2`)).toEqual([both[1], both[0]]);
    expect(await opens(`${path}:@1`)).toEqual([both[1], both[0]]);
    expect(await opens(`${path}@${made.manifests[1]?.digest}`)).toEqual([both[1], both[0]]);
    await refuses(
      path,
      `${path}: several images, choose one by oci-archive:FILE:TAG; it has multi, docker.io/`,
    );
    await refuses(`${path}:none`, `${path}: no tag "none"; it has multi, docker.io/library/x:2`);
    await refuses(`${path}:@2`, 'no tag "@2"');
    await refuses(`${path}@${digest(one)}`, `no tag "@${digest(one)}"`);
  });

  it("takes the last of members with one name, and blobs that are links to others", async () => {
    const members = layout(folder, [one, two]).members();
    const name = `blobs/sha256/${sha256Hex(one)}`;
    const rest = members.filter((member) => member.name !== name);
    archive(file(name, "not the layer"), ...members);
    expect(await opens(path)).toEqual(both);
    archive(file("aside", one), hardlink(name, "aside"), ...rest);
    expect(await opens(path)).toEqual(both);
    archive(file("aside", one), symlink(name, "../../aside"), ...rest);
    expect(await opens(path)).toEqual(both);
    archive(...members, file("index.json", "{}"));
    await refuses(path, `${path}/index.json: schemaVersion`);
  });

  it("that lacks something names it", async () => {
    const members = layout(folder, [one, two]).members();
    const without = (part: string): void =>
      archive(...members.filter(({ name }) => !String(name).includes(part)));
    without("oci-layout");
    await refuses(`oci-archive:${path}`, `${path}: not an OCI archive: the archive has no "oci-layout"`);
    without("index.json");
    await refuses(path, `${path}: not an OCI archive: the archive has no "index.json"`);
    without(sha256Hex(two));
    await refuses(path, `${path}: layer 2 (${digest(two)}): the blob is missing`);
    archive(
      ...members.map((member) => (member.body?.length === two.length ? file(member.name, "cut") : member)),
    );
    await refuses(path, `layer 2 (${digest(two)}): the blob has 3 bytes, the descriptor says ${two.length}`);
    await refuses(`oci-archive:${root}`, `${root}: not a file`);
    await refuses(`oci-archive:${path}.none`, `${path}.none: no such file or folder`);
  });

  it("never reaches out of the archive by a member's name or link", async () => {
    const secret = join(root, "secret");
    writeFileSync(secret, one);
    const members = layout(folder, [one, two]).members();
    const name = `blobs/sha256/${sha256Hex(one)}`;
    const rest = members.filter((member) => member.name !== name);
    for (const target of [secret, `../../../../../../../..${secret}`, name, "blobs/.."]) {
      for (const link of [symlink(name, target), hardlink(name, target)]) {
        archive(link, ...rest);
        await refuses(`oci-archive:${path}`, `layer 1 (${digest(one)}): the blob is missing`);
      }
    }
  });
});

describe("an archive of either kind", () => {
  const kinds: [string, () => Buffer][] = [
    ["oci-archive", () => tar(...layout(folder, [one, two]).members())],
    ["docker-archive", () => dockerArchive([one, two])],
  ];

  it.each(kinds)("%s with a damaged or cut header says so in one line", async (kind, make) => {
    const whole = make();
    const unreadable = `${path}: not a readable tar archive: `;
    for (const cut of [0, 1, 511, 513, 1000]) {
      writeFileSync(path, whole.subarray(0, cut));
      await refuses(`${kind}:${path}`, unreadable);
      await refuses(path, /not a readable tar archive: .*; looked for an OCI layout, a skopeo folder/);
    }
    const damaged = Buffer.from(whole);
    damaged[5] = 0x80;
    writeFileSync(path, damaged);
    await refuses(`${kind}:${path}`, `${unreadable}invalid tar header`);
  });

  const size = (value: bigint | number): Buffer => base256(value, 12);
  it.each<[string, Uint8Array]>([
    ["more bytes than there are", header(file("blobs/x", "", { size: 1 << 30 }))],
    ["2^62 bytes", header(file("blobs/x", "", { size: size(2n ** 62n) }))],
    ["2^90 bytes", header(file("blobs/x", "", { size: size(2n ** 90n) }))],
    ["less than no bytes", header(file("blobs/x", "", { size: size(-512n) }))],
    ["a size that is no number", header(file("blobs/x", "", { size: Buffer.from("zzzzzzzzzzz\0") }))],
    ["a PAX size of 2^70", Buffer.concat([paxHeader({ size: String(2n ** 70n) }), header(file("blobs/x"))])],
    ["a PAX size below nothing", Buffer.concat([paxHeader({ size: "-1" }), header(file("blobs/x"))])],
    ["an extended header of 1 GiB", header({ name: "x", type: "x", size: 1 << 30 })],
    ["a long name of 1 GiB", header({ name: "x", type: "L", format: "gnu", size: 1 << 30 })],
    [
      "a sparse file",
      Buffer.concat([
        paxHeader({ "GNU.sparse.major": "1", "GNU.sparse.minor": "0" }),
        header(file("blobs/x")),
      ]),
    ],
  ])("refuses a member with %s, and says where", async (_, member) => {
    for (const [kind, make] of kinds) {
      writeFileSync(path, Buffer.concat([member, make()]));
      await refuses(`${kind}:${path}`, `${path}: not a readable tar archive: `);
    }
  });

  it("of more members than an image can have is refused", async () => {
    const members = Array.from({ length: 65_600 }, (_, i) => header(file(`f${i}`)));
    writeFileSync(path, tarWithoutEnd(...members));
    await refuses(`oci-archive:${path}`, "more than 65536 members");
  });

  it("is read up to its end and no further: what follows two zero blocks is nothing", async () => {
    for (const [kind, make] of kinds) {
      writeFileSync(path, Buffer.concat([make(), Buffer.alloc(4096, 0x41)]));
      expect(await opens(`${kind}:${path}`)).toEqual(both);
    }
  });

  it("compressed as a whole is refused where nobody can unpack it", async () => {
    for (const [kind, make] of kinds) {
      writeFileSync(path, gzip(make()));
      await refuses(`${kind}:${path}`, "it is compressed (gzip): decompress it first");
    }
  });
});

describe("a docker archive", () => {
  it("is found by digest, by place, and by a name with either", async () => {
    const config = JSON.stringify({
      os: "linux",
      architecture: amd64,
      rootfs: { type: "layers", diff_ids: [digest(one)] },
    });
    const name = `${sha256Hex(Buffer.from(config))}.json`;
    const manifest = ["a", "b"].map((tag) => ({ Config: name, RepoTags: [`x:${tag}`], Layers: ["l.tar"] }));
    archive(file("l.tar", one), file(name, config), file("manifest.json", JSON.stringify(manifest)));
    const id = digest(Buffer.from(config));
    for (const selector of ["x:a", "@1", `@${id}`, `x:b@${id}`, "x:a@0"]) {
      expect(await opens(`docker-archive:${path}:${selector}`)).toEqual([both[0]]);
    }
    for (const selector of ["x:c", "@2", `@${digest(one)}`, "x:a@1"]) {
      await refuses(`docker-archive:${path}:${selector}`, /no image .*; it has x:a, x:b$/);
    }
  });
});
