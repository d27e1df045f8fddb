// The `inspect` command: what an index or a layer blob says of itself, without reading its tree.

import { sha256 } from "../base/digest.js";
import { configOf } from "../builder/flatten.js";
import { codecText } from "../imgfs/codec.js";
import type { Image } from "../imgfs/image.js";
import { ExitCode, Failure } from "./failure.js";
import { findImage, openRaw } from "./open.js";
import { formatBytes, print, printResult, table } from "./output.js";

export function inspect(path: string, options: { readonly json?: boolean; readonly config?: boolean }): void {
  const image = openRaw(path);
  try {
    const config = configOf(findImage(path), image);
    if (options.config === true) {
      if (config === undefined) throw new Failure(ExitCode.failure, `inspect ${path}: there is no config`);
      print(config);
      return;
    }
    const { rawSize, storedSize } = dataOf(image);
    const facts = {
      kind: image.kind,
      flattened: image.isFlat,
      configDigest: config === undefined ? undefined : sha256(config),
      rootDigest: image.rootDigest,
      treeRoot: image.treeRoot,
      source: image.source,
      codec: codecsOf(image),
      fileSize: image.fileSize,
      logicalBytes: image.logicalBytes,
      uniqueBytes: image.uniqueBytes,
      rawSize,
      storedSize,
      ratio: rawSize === 0 ? 1 : Number((storedSize / rawSize).toFixed(4)),
      entries: image.entryTotal,
      inodes: image.inodeCount,
      directories: image.directoryCount,
      contents: image.contentCount,
      blobs: image.blobs.map((blob) => ({
        diffId: blob.source,
        rootDigest: blob.rootDigest,
        codec: codecText(blob.codec),
        fileSize: blob.fileSize,
        rawSize: blob.rawSize,
      })),
    };
    printResult(facts, options.json === true, () =>
      table([
        ["kind", facts.flattened ? "flattened image" : facts.kind],
        ["root digest", facts.rootDigest],
        ["tree root", facts.treeRoot],
        [facts.kind === "layer" ? "diffID" : "source", facts.source],
        ...(facts.configDigest === undefined ? [] : [["config", facts.configDigest]]),
        ["codec", facts.codec],
        ["file size", formatBytes(facts.fileSize)],
        ["files hold", formatBytes(facts.logicalBytes)],
        ["each once", formatBytes(facts.uniqueBytes)],
        [
          "stored",
          `${formatBytes(storedSize)}, ${(facts.ratio * 100).toFixed(1)}% of ${formatBytes(rawSize)}`,
        ],
        ["entries", String(facts.entries)],
        ["inodes", `${facts.inodes}, ${facts.directories} of them directories`],
        ["contents", String(facts.contents)],
        ...facts.blobs.map((blob, i) => [
          `blob ${i + 1}`,
          `${blob.diffId}  ${blob.codec}  ${formatBytes(blob.fileSize)}`,
        ]),
      ]),
    );
  } finally {
    image.close();
  }
}

/** The codecs of what an image refers to, each once. */
function codecsOf(image: Image): string {
  const own =
    image.kind === "layer" || image.blobs.length === 0 || image.dataSizes.raw > 0 ? [image.codec] : [];
  return [...new Set([...own, ...image.blobs.map(({ codec }) => codec)].map(codecText))].join(", ");
}

/** Bytes of data with padding, and what they take: of an index also those of its blobs, whose files count whole. */
function dataOf(image: Image): { rawSize: number; storedSize: number } {
  const { raw, stored } = image.dataSizes;
  return {
    rawSize: image.blobs.reduce((sum, { rawSize }) => sum + rawSize, raw),
    storedSize: image.blobs.reduce((sum, { fileSize }) => sum + fileSize, stored),
  };
}
