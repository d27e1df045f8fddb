// Images as GrootFS's callers name them, brought into the forms that imgfs takes.
import { existsSync, statSync } from "node:fs";
import { parseReference } from "../../oci/reference.js";
import { messageOf } from "../failure.js";
import type { Caller } from "./caller.js";
import { StoreFailure, usage } from "./store-failure.js";

/**
 * The source behind the argument: `oci:///dir[:tag]` is `oci:/dir[:tag]`; called as grootfs a plain path is a tar of one
 * layer or a directory tree, whatever is in it. Throws StoreFailure for what is not there and for what is refused.
 */
export function sourceOf(image: string, { program, options }: Caller): string {
  if (image === "") throw new StoreFailure("an empty image", { groot: "Image source doesn't exist" });
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(image)?.[1]?.toLowerCase();
  if (scheme === "docker") {
    try {
      // Before the name is in a log: it may have a login in it.
      parseReference(image);
    } catch (cause) {
      throw usage(messageOf(cause));
    }
    return image;
  }
  if (/^oci:\/\//i.test(image)) {
    const path = withoutEscapes(image.slice("oci://".length));
    if (!existsSync(path) && !existsSync(path.replace(/[:@][^/]*$/, ""))) throw missing(path);
    return `oci:${path}`;
  }
  if (scheme !== undefined && !existsSync(image)) return image;
  const stat = statSync(image, { throwIfNoEntry: false });
  if (stat === undefined) {
    // A tag may follow the path of a layout or an archive.
    if (program === "imgfs" && /[:@][^/]+$/.test(image)) return image;
    throw missing(image);
  }
  if (stat.isDirectory() && options.dir === false) {
    throw new StoreFailure("invalid base image: directory provided instead of a tar file");
  }
  if (program === "imgfs") return image;
  return stat.isDirectory() ? `dir:${image}` : `tar:${image}`;
}

function missing(path: string): StoreFailure {
  return new StoreFailure(`${path}: no such file or directory`, {
    exitCode: 10,
    groot: "Image source doesn't exist",
  });
}

/** Percent escapes of a URL; text that has none of them stays. */
function withoutEscapes(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
