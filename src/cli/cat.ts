// The `cat` command.
import { displayName } from "../base/bytes.js";
import { errnoText, FsError } from "../base/errno.js";
import { readChunks } from "../imgfs/look.js";
import { resolvePath } from "../imgfs/resolve.js";
import { S_IFDIR, S_IFMT, S_IFREG } from "../sys/stat.js";
import { ExitCode, Failure } from "./failure.js";
import { openTree } from "./open.js";
import { print } from "./output.js";

export function cat(imagePath: string, path: string): void {
  const image = openTree(imagePath);
  const shown = displayName(Buffer.from(path));
  try {
    const row = resolvePath(image, Buffer.from(path), true);
    const type = image.mode(row) & S_IFMT;
    if (type === S_IFDIR) throw new Failure(ExitCode.failure, `cat ${shown}: is a directory`);
    if (type !== S_IFREG) throw new Failure(ExitCode.failure, `cat ${shown}: not a regular file`);
    for (const bytes of readChunks(image, row)) print(bytes);
  } catch (cause) {
    if (!(cause instanceof FsError)) throw cause;
    throw new Failure(ExitCode.failure, `cat ${shown}: ${errnoText(cause.code)}`);
  } finally {
    image.close();
  }
}
