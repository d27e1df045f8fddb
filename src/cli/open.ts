// Opens the image a user named, for the commands that read one.

import { accessSync, constants } from "node:fs";
import { errnoText } from "../base/errno.js";
import { imageFile } from "../imgfs/folder.js";
import { Image } from "../imgfs/image.js";
import { ExitCode, Failure } from "./failure.js";

/** The file behind an IMAGE argument. Fails with exit code 10 when there is none. */
export function findImage(path: string): string {
  try {
    const file = imageFile(path);
    accessSync(file, constants.R_OK);
    return file;
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== "ENOENT")
      throw new Failure(ExitCode.failure, `${path}: ${errnoText(code ?? String(cause))}`);
    throw new Failure(ExitCode.notFound, `${path}: no image here`, {
      hint: "an image is a folder that imgfs build made, or an .imgfs file",
    });
  }
}

/** Opens it as it is: an index, or a layer blob with its whiteouts. */
export function openRaw(path: string): Image {
  return Image.open(findImage(path));
}

/** Opens it as a tree: a layer blob is shown as it would be mounted alone. */
export function openTree(path: string): Image {
  const image = openRaw(path);
  if (image.kind === "index") return image;
  image.close();
  return Image.stack([findImage(path)]);
}
