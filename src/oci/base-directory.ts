// Where the entries of a layer go: Cloud Foundry's annotation on its descriptor, by which Garden puts an app's layer under a
// directory of the layers below (grootfs, fetcher/layer_fetcher). It comes from outside: made a plain path that cannot lead
// out of the root before anybody sees it.
import { bytesOf, displayName, type Name, nameFromText } from "../base/bytes.js";
import type { Descriptor } from "./schema.js";

export const baseDirectoryKey = "org.cloudfoundry.experimental.image.base-directory";

/** Bytes of a name, and of a path, as Linux has them. */
const maxName = 255;
const maxPath = 4095;

/**
 * The directory that a descriptor names, `a/b/c`: empty components and `.` dropped, `..` taken back as far as the root.
 * Undefined for the root itself, and where there is none. Throws an Error for what no directory of an image can be.
 */
export function baseDirectoryOf({ annotations }: Pick<Descriptor, "annotations">): Name | undefined {
  const text = annotations?.[baseDirectoryKey];
  if (text === undefined) return undefined;
  const parts: string[] = [];
  for (const part of nameFromText(text).split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  const path = parts.join("/") as Name;
  const wrong = (what: string): Error =>
    new Error(`base directory ${displayName(bytesOf(path).subarray(0, maxName))}: ${what}`);
  if (path.length > maxPath) throw wrong(`path of ${path.length} bytes, at most ${maxPath} are accepted`);
  for (const part of parts) {
    if (part.length > maxName) throw wrong(`name of ${part.length} bytes, at most ${maxName} are accepted`);
    if (part.includes("\0")) throw wrong("a name with a NUL");
    if (part.startsWith(".wh.")) throw wrong("the name of a whiteout is that of no directory");
  }
  return path === "" ? undefined : path;
}
