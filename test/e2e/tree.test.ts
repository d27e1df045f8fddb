// What a mount shows is what the layers say: every path with type, mode, owner, size, time to the
// nanosecond, links, target, device, xattrs and content, against a second implementation (oracle.py).
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { manyLayers, oddLayers } from "./make-image.js";
import {
  build,
  cannotMount,
  compareTrees,
  expectedTree,
  hasCommand,
  mount,
  scratch,
  shownTree,
  titleOf,
} from "./mounted.js";
import {
  hostPlatform,
  sha256,
  writeDockerArchive,
  writeLayout,
  writeMultiPlatformLayout,
} from "./oci-writer.js";

const reason = cannotMount ?? (hasCommand("python3") ? undefined : "python3 is missing");
const corpus = process.env["IMGFS_CORPUS"];
const noCorpus = reason ?? (corpus === undefined ? "IMGFS_CORPUS is not set" : undefined);

/** Builds a source, mounts it, and compares the mount with the source; the number of paths. */
async function compare(source: string, plainSource: string, ...mountOptions: string[]): Promise<number> {
  const image = await build(source);
  const { path } = await mount(image, ...mountOptions);
  const columns = mountOptions.includes("--devices") ? [] : ["--no-devices"];
  const expected = await expectedTree(plainSource, ...columns);
  return compareTrees(expected, await shownTree(path));
}

describe.skipIf(reason)(titleOf("the mounted tree is what the layers say", reason), () => {
  const layers = oddLayers();
  let gzip: string;

  beforeAll(() => {
    gzip = scratch("gzip");
    writeLayout(gzip, layers);
  });

  it("for gzip layers, devices hidden", async () => {
    expect(await compare(`oci:${gzip}`, gzip)).toBeGreaterThan(2700);
  });

  it("for gzip layers, devices shown", async () => {
    expect(await compare(`oci:${gzip}:latest`, gzip, "--devices")).toBeGreaterThan(2700);
  });

  it("for a writable mount that nobody has written to", async () => {
    await compare(`oci:${gzip}`, gzip, "--devices", "--upper", scratch("upper"));
  });

  it("for plain layers", async () => {
    const plain = scratch("plain");
    writeLayout(plain, layers, { compression: "none" });
    await compare(`oci:${plain}`, plain, "--devices");
  });

  it("for a docker archive", async () => {
    const archive = scratch("archive.tar");
    writeDockerArchive(archive, layers);
    await compare(`docker-archive:${archive}`, archive, "--devices");
    await compare(`docker-archive:${archive}:e2e/image:latest`, archive, "--devices");
  });

  it("for a lone layer tar", async () => {
    const layout = scratch("one-layer");
    writeLayout(layout, [layers[0] as Buffer], { compression: "none" });
    const tar = join(layout, "blobs/sha256", sha256(layers[0] as Buffer));
    await compare(`tar:${tar}`, tar, "--devices");
  });

  it("for 130 layers", async () => {
    const tall = scratch("tall");
    writeLayout(tall, manyLayers(130));
    expect(await compare(`oci:${tall}`, tall, "--devices")).toBeGreaterThan(200);
  });

  it("for the platform that was asked for, and for this machine's without asking", async () => {
    const layout = scratch("platforms");
    const other = hostPlatform.architecture === "arm64" ? "amd64" : "arm64";
    writeMultiPlatformLayout(layout, {
      [other]: manyLayers(3),
      [hostPlatform.architecture]: manyLayers(5),
    });
    await compare(`oci:${layout}`, layout, "--devices");
    const image = await build(`oci:${layout}`, "--platform", `linux/${other}`);
    const { path } = await mount(image);
    const expected = await expectedTree(layout, "--platform", `linux/${other}`);
    expect(await compareTrees(expected, await shownTree(path))).toBeGreaterThan(5);
  });

  it("for blobs stacked by hand, and for the lowest alone", async () => {
    const image = await build(`oci:${gzip}`);
    const blobs = layers.map((layer) => join(image, `${sha256(layer)}.imgfs`));
    const all = await mount(blobs, "--devices");
    await compareTrees(await expectedTree(gzip), await shownTree(all.path));
    const lowest = scratch("lowest");
    writeLayout(lowest, layers.slice(0, 1));
    const one = await mount(blobs.slice(0, 1), "--devices");
    await compareTrees(await expectedTree(lowest), await shownTree(one.path));
  });

  it("with the holes of sparse files", async () => {
    const { path } = await mount(await build(`oci:${gzip}`), "--devices");
    await compareTrees(await expectedTree(gzip, "--holes"), await shownTree(path, "--holes"));
  });
});

describe.skipIf(noCorpus)(titleOf("the real images", noCorpus), () => {
  it("debian", { timeout: 600_000 }, async () => {
    const source = join(corpus as string, "debian");
    expect(await compare(`oci:${source}`, source, "--devices")).toBeGreaterThan(8000);
  });

  it("python-node; from gzip, plain layers and a docker archive come the same bytes", {
    timeout: 1_800_000,
  }, async () => {
    const source = join(corpus as string, "python-node");
    const image = await build(`oci:${source}`);
    const { path } = await mount(image, "--devices");
    expect(await compareTrees(await expectedTree(source), await shownTree(path))).toBeGreaterThan(46_000);
    for (const form of [`oci:${source}-uncompressed`, `docker-archive:${source}-docker.tar`]) {
      const again = await build(form);
      const files = readdirSync(image).filter((name) => name.endsWith(".imgfs"));
      expect(readdirSync(again).filter((name) => name.endsWith(".imgfs"))).toEqual(files);
      for (const name of files) {
        expect(readFileSync(join(again, name)).equals(readFileSync(join(image, name)))).toBe(true);
      }
    }
  });
});
