// Going through the contents of an image as a whole.
import type { ContentRange } from "./content-reader.js";
import type { Image } from "./image.js";
import * as L from "./layout.js";

/** Calls `visit` for each run of a content, holes too; the range is reused. */
export function forEachRange(
  image: Image,
  content: number,
  size: number,
  visit: (range: ContentRange) => void,
): void {
  const reader = image.contentReader;
  const range: ContentRange = { blob: 0, rawOffset: undefined, fileOffset: 0, length: 0 };
  const count = Math.max(1, reader.runCount(content));
  for (let run = 0; run < count; run++) {
    reader.range(content, run, size, range);
    visit(range);
  }
}

/** Size by content, of files; 0 for a content that no file has. Throws Corrupt. */
export function sizesByContent(blob: Image): Float64Array {
  const sizes = new Float64Array(blob.contentCount);
  for (let row = blob.directoryCount; row < blob.inodeCount; row++) {
    if (blob.mode(row) >>> 12 !== L.EntryType.file) continue;
    const content = blob.content(row);
    if (content >= 0) sizes[content] = blob.size(row);
  }
  return sizes;
}
