// Writing the tree of an image into a directory.
import { type ExtractReport, extractTo } from "../extract/directory.js";
import { startAt } from "../extract/walk.js";
import type { Image } from "../imgfs/image.js";

export interface ExtractImageOptions {
  /** What is extracted, as a path inside the image; all of it unless given. */
  readonly path?: string | Uint8Array | undefined;
  /** False leaves everything the user's own; else it becomes its owners' as far as the user may give it to them. */
  readonly owner?: boolean | undefined;
  /** False leaves extended attributes out, file capabilities too. */
  readonly xattrs?: boolean | undefined;
  /** Ends it; what was made is removed and the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Writes the tree of an image into the directory `dest`, which is missing or empty. Throws an Error that names the path
 * in the image, or FsError when there is no such path; then nothing is left of it.
 */
export async function extractImage(
  image: Image,
  dest: string,
  { path = "/", owner = true, xattrs = true, signal }: ExtractImageOptions = {},
): Promise<ExtractReport> {
  return extractTo(image, startAt(image, Buffer.from(path)), dest, { owner, xattrs, signal });
}
