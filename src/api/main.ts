// imgfs: build an image, mount it, look into it. The parts behind it are imgfs/builder, imgfs/imgfs and imgfs/fuse.
export { type ErrnoName, FsError } from "../base/errno.js";
export { type BuildEvent, type BuildOptions, type BuildResult, buildImage } from "../builder/image.js";
export type { IdRange } from "../daemon/id-maps.js";
export { MountFailure } from "../daemon/options.js";
export type { ExtractReport } from "../extract/directory.js";
export { Corrupt, Unsupported } from "../imgfs/errors.js";
export { Image, type OpenOptions } from "../imgfs/image.js";
export { type ExtractImageOptions, extractImage } from "./extract.js";
export { type Mounted, type MountImageOptions, mountImage, unmount } from "./mount.js";
