// imgfs/fuse: a FUSE filesystem in TypeScript. Implement FileSystem, export createFileSystem from a module, mount it.
export { Errno, type ErrnoName, FsError, fsError } from "../base/errno.js";
export type { LogFields, Logger, LogLevel } from "../base/log.js";
export { MountFailure } from "../daemon/options.js";
export {
  FOPEN_CACHE_DIR,
  FOPEN_DIRECT_IO,
  FOPEN_KEEP_CACHE,
  FOPEN_NOFLUSH,
  FOPEN_NONSEEKABLE,
  FOPEN_PARALLEL_DIRECT_WRITES,
  FOPEN_STREAM,
  FUSE_ROOT_ID,
} from "../fuse/abi.js";
export * from "../fuse/operations.js";
export { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK } from "../sys/stat.js";
export {
  type CommonMountOptions,
  type CreateFileSystem,
  type FileSystemContext,
  type Mounted,
  type MountFileSystemOptions,
  mountFileSystem,
  serveFileSystem,
  unmount,
} from "./mount.js";
