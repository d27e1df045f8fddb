// The image of the demo: programs of this machine with the libraries they ask for, packed into
// gzip layers by GNU tar and described as an OCI layout. Plain Node, no dependencies.
import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  createWriteStream,
  existsSync,
  mkdirSync,
  renameSync,
} from "node:fs";
import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";

const architecture = { x64: "amd64" }[process.arch] ?? process.arch;
const types = "application/vnd.oci.image";

function copyTo(source, target) {
  mkdirSync(dirname(target), { recursive: true });
  copyFileSync(source, target);
  chmodSync(target, 0o755);
}

function whereIs(program) {
  if (program.startsWith("/")) return program;
  const found = ["/bin", "/usr/bin"].map((path) => join(path, program)).find((path) => existsSync(path));
  if (found === undefined) throw new Error(`this machine has no ${program}`);
  return found;
}

/** Copies programs into FOLDER/bin and their shared libraries to where their loader looks for them. */
export function copyPrograms(folder, programs, name) {
  for (const program of programs) {
    const source = whereIs(program);
    copyTo(source, join(folder, "bin", name ?? program));
    for (const [library] of execFileSync("ldd", [source], { encoding: "utf8" }).matchAll(/\/[^\s()]+/g)) {
      if (existsSync(library)) copyTo(library, join(folder, library));
    }
  }
  // A Node that Debian built keeps parts of its own library outside its binary.
  for (const part of ["acorn", "cjs-module-lexer", "undici"]) {
    const path = `/usr/share/nodejs/${part}`;
    if (name === "node" && existsSync(path)) {
      cpSync(path, join(folder, path), { recursive: true, dereference: true });
    }
  }
}

/** Counts and digests what flows through. */
function meter() {
  const hash = createHash("sha256");
  let bytes = 0;
  const stream = new Transform({
    transform(data, _, done) {
      hash.update(data);
      bytes += data.length;
      done(null, data);
    },
  });
  return { stream, result: () => ({ bytes, hex: hash.digest("hex") }) };
}

/** Packs a folder as one layer and puts it into the layout: plain digest for the config, packed for the manifest. */
export async function packLayer(folder, layout) {
  const order = ["--sort=name", "--format=pax", "--pax-option=delete=atime,delete=ctime"];
  const owner = ["--numeric-owner", "--owner=0", "--group=0", "--mtime=@1600000000"];
  const tar = spawn("tar", [...order, ...owner, "-C", folder, "-cf", "-", "."], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise((done, failed) => {
    tar.on("error", failed);
    tar.on("close", (code) => (code === 0 ? done() : failed(new Error(`tar: exit ${code}`))));
  });
  const plain = meter();
  const packed = meter();
  const file = join(layout, "layer.tmp");
  await Promise.all([
    ended,
    pipeline(tar.stdout, plain.stream, createGzip({ level: 1 }), packed.stream, createWriteStream(file)),
  ]);
  const { bytes: tarSize, hex: diffId } = plain.result();
  const { bytes, hex } = packed.result();
  renameSync(file, join(layout, "blobs/sha256", hex));
  const descriptor = { mediaType: `${types}.layer.v1.tar+gzip`, digest: `sha256:${hex}`, size: bytes };
  return { tarSize, diffId: `sha256:${diffId}`, descriptor };
}

async function putJson(layout, mediaType, value) {
  const data = Buffer.from(JSON.stringify(value));
  const hex = createHash("sha256").update(data).digest("hex");
  await writeFile(join(layout, "blobs/sha256", hex), data);
  return { mediaType, digest: `sha256:${hex}`, size: data.length };
}

/** Config, manifest and index over the packed layers; the image's tag is `latest`. */
export async function writeLayout(layout, layers) {
  const config = await putJson(layout, `${types}.config.v1+json`, {
    architecture,
    os: "linux",
    config: { Cmd: ["/bin/sh"], Env: ["PATH=/bin"] },
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
  });
  const manifest = await putJson(layout, `${types}.manifest.v1+json`, {
    schemaVersion: 2,
    mediaType: `${types}.manifest.v1+json`,
    config,
    layers: layers.map(({ descriptor }) => descriptor),
  });
  const annotations = { "org.opencontainers.image.ref.name": "latest" };
  await writeFile(join(layout, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  await writeFile(
    join(layout, "index.json"),
    JSON.stringify({
      schemaVersion: 2,
      mediaType: `${types}.index.v1+json`,
      manifests: [{ ...manifest, annotations }],
    }),
  );
}
