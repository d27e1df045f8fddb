// The `inspect` command: what an index or a layer blob says of itself, without reading its tree.
import { openRaw } from "./open.js";
import { formatBytes, printResult, table } from "./output.js";

export function inspect(path: string, options: { readonly json?: boolean }): void {
  const image = openRaw(path);
  try {
    const facts = {
      kind: image.kind,
      rootDigest: image.rootDigest,
      treeRoot: image.treeRoot,
      source: image.source,
      codec: image.codec,
      fileSize: image.fileSize,
      logicalBytes: image.logicalBytes,
      uniqueBytes: image.uniqueBytes,
      entries: image.entryTotal,
      inodes: image.inodeCount,
      directories: image.directoryCount,
      contents: image.contentCount,
      blobs: image.blobs.map((blob) => ({
        diffId: blob.source,
        rootDigest: blob.rootDigest,
        fileSize: blob.fileSize,
      })),
    };
    printResult(facts, options.json === true, () =>
      table([
        ["kind", facts.kind],
        ["root digest", facts.rootDigest],
        ["tree root", facts.treeRoot],
        [facts.kind === "layer" ? "diffID" : "source", facts.source],
        ["codec", facts.codec],
        ["file size", formatBytes(facts.fileSize)],
        ["files hold", formatBytes(facts.logicalBytes)],
        ["stored once", formatBytes(facts.uniqueBytes)],
        ["entries", String(facts.entries)],
        ["inodes", `${facts.inodes}, ${facts.directories} of them directories`],
        ["contents", String(facts.contents)],
        ...facts.blobs.map((blob, i) => [`blob ${i + 1}`, `${blob.diffId}  ${formatBytes(blob.fileSize)}`]),
      ]),
    );
  } finally {
    image.close();
  }
}
