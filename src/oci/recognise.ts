// What a bare path is, told by what is there and not by its name: a layout, a skopeo folder, a tree of files, an
// archive of one of two kinds, or a layer.
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { scanArchive, scanStream } from "./archive-index.js";
import { wholeFile } from "./blobs.js";
import type { BareReference, Reference, Transport } from "./reference.js";
import type { SourceOptions } from "./source.js";

/**
 * Members that belong to no archive of an image, after which a tar is taken for a layer without reading on. Layers
 * have hundreds of thousands, archives perhaps a stray file.
 */
const maxForeign = 64;

/** Names of members that `docker save`, skopeo, buildah and the layout specification know. */
const archiveMember =
  /^(?:|blobs(?:\/.*)?|oci-layout|index\.json|manifest\.json|repositories|[0-9a-f]{64}(?:\.(?:tar|json)|\/.*)?)$/;

const looked =
  "looked for an OCI layout, a skopeo folder, a tree of files, and an OCI archive, docker archive or layer in tar form";

/**
 * Gives a bare reference its transport. Throws one-line Errors: nothing there, nothing that could be an image, or a
 * tag for what has none.
 */
export async function recognise(reference: BareReference, options: SourceOptions): Promise<Reference> {
  const { path, selector } = reference;
  const found = await stat(path);
  let transport: Transport;
  if (found.isDirectory()) transport = (await hasLayout(path)) ? "oci" : "dir";
  else if (found.isFile()) transport = await recogniseFile(path, options);
  else throw new Error(`${path}: neither a file nor a folder`);
  if (selector !== undefined && (transport === "dir" || transport === "tar")) {
    const kind = transport === "dir" ? "a folder without an OCI layout" : "a layer";
    throw new Error(`${path}: ${kind}: there is no ${JSON.stringify(selector)} to choose in it`);
  }
  return { ...reference, transport };
}

async function hasLayout(folder: string): Promise<boolean> {
  try {
    return (await wholeFile(join(folder, "oci-layout"))) !== undefined;
  } catch {
    return false;
  }
}

async function recogniseFile(path: string, options: SourceOptions): Promise<Transport> {
  const seen = new Set<string>();
  let foreign = 0;
  const visit = (name: string): boolean => {
    seen.add(name);
    if (!archiveMember.test(name)) foreign++;
    return name === "oci-layout" || foreign > maxForeign;
  };
  try {
    const packed = options.unpacking?.open(path);
    if (packed === undefined) await scanArchive(path, path, visit);
    else await scanStream(packed.bytes, `${path}, which is ${packed.compression} data`, visit);
  } catch (cause) {
    throw new Error(`${(cause as Error).message}; ${looked}`);
  }
  if (seen.has("oci-layout")) return "oci-archive";
  return seen.has("manifest.json") && foreign <= maxForeign ? "docker-archive" : "tar";
}
