// A filesystem with one file, hello.txt. The thread that serves imports this module and calls createFileSystem.
import {
  type Attr,
  type CreateFileSystem,
  Errno,
  type FileSystem,
  FUSE_ROOT_ID,
  fsError,
  type NameView,
  S_IFDIR,
  S_IFREG,
} from "imgfs/fuse";

const FILE_ID = 2;
const FILE_NAME = "hello.txt";

export const createFileSystem: CreateFileSystem = ({ settings, log }): FileSystem => {
  const { greeting = "hello, world" } = (settings ?? {}) as { readonly greeting?: string };
  const text = Buffer.from(`${greeting}\n`);
  log.info("hello is made", { bytes: text.length });

  function fill(nodeid: number, attr: Attr): void {
    const isFile = nodeid === FILE_ID;
    attr.ino = nodeid;
    attr.mode = isFile ? S_IFREG | 0o444 : S_IFDIR | 0o555;
    attr.nlink = isFile ? 1 : 2;
    attr.size = isFile ? text.length : 0;
    attr.blocks = Math.ceil(attr.size / 512);
    attr.uid = 0;
    attr.gid = 0;
  }

  return {
    // Every operation returns 0 or a count, or a negative errno; or it throws an FsError.
    lookup(q, name, out) {
      if (q.nodeid !== FUSE_ROOT_ID || textOf(name) !== FILE_NAME) return -Errno.ENOENT;
      out.nodeid = FILE_ID;
      fill(FILE_ID, out.attr);
      return 0;
    },

    // The two inodes are never dropped, so that nothing has to be counted.
    forget() {},

    getattr(q, out) {
      fill(q.nodeid, out.attr);
      return 0;
    },

    read(q, _fh, offset, out) {
      if (q.nodeid !== FILE_ID) throw fsError("EISDIR");
      const part = text.subarray(offset, offset + out.capacity);
      out.bytes.set(part, out.start);
      out.length = part.length;
      return 0;
    },

    readdir(q, _fh, offset, sink) {
      const entries: readonly (readonly [string, number])[] = [
        [".", q.nodeid],
        ["..", FUSE_ROOT_ID],
        [FILE_NAME, FILE_ID],
      ];
      for (const [i, [name, nodeid]] of entries.entries()) {
        if (i < offset) continue;
        // What an entry is may come with it; 0 says that the kernel shall ask when it wants to know.
        sink.entry.nodeid = 0;
        const bytes = Buffer.from(name);
        const type = nodeid === FILE_ID ? S_IFREG : S_IFDIR;
        if (!sink.add(bytes, 0, bytes.length, type >> 12, nodeid, i + 1)) break;
      }
      return 0;
    },
  };
};

function textOf({ bytes, start, end }: NameView): string {
  return Buffer.from(bytes.subarray(start, end)).toString("latin1");
}
