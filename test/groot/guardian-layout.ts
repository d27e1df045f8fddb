// What Guardian writes into its depot for `preloaded+layer:///rootfs.tar?layer=URL&layer_path=DIR&layer_digest=HEX`
// (imageplugin/oci_image_spec_creator.go, image_spec_generators.go): a layout of two layers whose lower one is a symlink to
// the root filesystem's tar. No size is true; the lower layer's digest is made of the tar's path and time; the same texts stand
// as diffIDs. There is no marker of a layout.
import { createHash } from "node:crypto";
import { mkdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export interface PreloadedLayer {
  /** The root filesystem's tar. */
  readonly rootfs: string;
  readonly layer: string;
  readonly layerPath: string;
  /** Hex of the layer's sha256, or what the caller has in its place. */
  readonly layerDigest: string;
}

const shaOf = (text: string | Buffer): string => createHash("sha256").update(text).digest("hex");

/** Makes DEPOT/HANDLE/image; the URL that the plugin is called with. */
export function guardianLayout(depot: string, handle: string, image: PreloadedLayer): string {
  const folder = join(depot, handle, "image");
  const blobs = join(folder, "blobs/sha256");
  mkdirSync(blobs, { recursive: true, mode: 0o755 });
  const { rootfs, layer, layerPath, layerDigest } = image;
  const base = `${shaOf(rootfs)}-${statSync(rootfs, { bigint: true }).mtimeNs}`;
  const put = (document: object): string => {
    const bytes = Buffer.from(JSON.stringify(document));
    writeFileSync(join(blobs, shaOf(bytes)), bytes, { mode: 0o600 });
    return `sha256:${shaOf(bytes)}`;
  };
  symlinkSync(rootfs, join(blobs, base));
  const diffIds = [base, layerDigest].map((hex) => `sha256:${hex}`);
  const config = put({
    architecture: "amd64",
    os: "linux",
    config: {},
    rootfs: { type: "layers", diff_ids: diffIds },
  });
  const manifest = put({
    schemaVersion: 2,
    config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: config, size: 0 },
    layers: [
      { mediaType: "application/vnd.oci.image.layer.v1.tar", digest: diffIds[0], size: 0 },
      {
        mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
        digest: diffIds[1],
        size: 0,
        urls: [layer],
        annotations: { "org.cloudfoundry.experimental.image.base-directory": layerPath },
      },
    ],
  });
  const index = {
    schemaVersion: 2,
    manifests: [{ mediaType: "application/vnd.oci.image.manifest.v1+json", digest: manifest, size: 0 }],
  };
  writeFileSync(join(folder, "index.json"), JSON.stringify(index), { mode: 0o600 });
  return `oci://${folder}`;
}
