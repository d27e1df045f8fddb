// The `cat` command.
import { displayName } from "../base/bytes.js";
import { errnoText, FsError } from "../base/errno.js";
import { resolvePath } from "../imgfs/resolve.js";
import { check as checkResult } from "../sys/libc.js";
import { allocatePages } from "../sys/memory.js";
import { S_IFDIR, S_IFMT, S_IFREG } from "../sys/stat.js";
import { ExitCode, Failure } from "./failure.js";
import { openTree } from "./open.js";
import { print } from "./output.js";

const CHUNK = 1 << 20;

export function cat(imagePath: string, path: string): void {
  const image = openTree(imagePath);
  const shown = displayName(Buffer.from(path));
  try {
    const row = resolvePath(image, Buffer.from(path), true);
    const type = image.mode(row) & S_IFMT;
    if (type === S_IFDIR) throw new Failure(ExitCode.failure, `cat ${shown}: is a directory`);
    if (type !== S_IFREG) throw new Failure(ExitCode.failure, `cat ${shown}: not a regular file`);
    const { address, bytes } = allocatePages(CHUNK);
    const target = { address, bytes, start: 0 };
    for (let offset = 0; ; ) {
      const got = checkResult(image.read(row, offset, target, CHUNK), "read");
      if (got === 0) return;
      print(bytes.subarray(0, got));
      offset += got;
    }
  } catch (cause) {
    if (!(cause instanceof FsError)) throw cause;
    throw new Failure(ExitCode.failure, `cat ${shown}: ${errnoText(cause.code)}`);
  } finally {
    image.close();
  }
}
