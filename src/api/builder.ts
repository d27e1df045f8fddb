// imgfs/builder: an image from its source, and the byte-exact tar reader that reads its layers.
export {
  buildFlat,
  type FlatBuildResult,
  type FlattenOptions,
  type FlattenResult,
  flatten,
} from "../builder/flatten.js";
export {
  type BlobSummary,
  type BuildEvent,
  type BuildOptions,
  type BuildResult,
  type BuiltLayer,
  buildImage,
  type Login,
  RegistryError,
  type RegistryFailure,
  type RegistryOptions,
} from "../builder/image.js";
export type { TarMember } from "../builder/tar/member.js";
export { type TarHandler, TarReader } from "../builder/tar/reader.js";
