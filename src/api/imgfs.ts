// imgfs/imgfs: the format. Open an image, walk it, read it, check it; write a layer, merge layers.
export { displayName, type Name, nameFromText } from "../base/bytes.js";
export { type Digest, digestOf, parseDigest, sha256 } from "../base/digest.js";
export { type ErrnoName, FsError } from "../base/errno.js";
export { type CheckOptions, type CheckReport, checkImage, type Finding } from "../imgfs/check.js";
export { Corrupt, LinkError, Unsupported } from "../imgfs/errors.js";
export { blobFile, CONFIG_FILE, INDEX_FILE, imageFile } from "../imgfs/folder.js";
export {
  type BlobInfo,
  type DirectoryEntry,
  Image,
  type OpenOptions,
  type ReadTarget,
} from "../imgfs/image.js";
export { type Child, childrenOf, readChunks, readContent, type Visited, walkTree } from "../imgfs/look.js";
export { mergeLayers } from "../imgfs/merge.js";
export { resolvePath } from "../imgfs/resolve.js";
export * from "../imgfs/tree.js";
export { type LayerSummary, LayerWriter } from "../imgfs/writer.js";
export { allocatePages, type Region } from "../sys/memory.js";
export { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from "../sys/stat.js";
