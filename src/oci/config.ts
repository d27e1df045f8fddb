// Image configs: the check every source makes of one, and the config of an image that came without (tar:FILE).
import type * as v from "valibot";
import { type Digest, digestAlgorithm, digestBy, type SourceDigest } from "../base/digest.js";
import { formatPlatform, type Platform, parsePlatform, platformOf, platformScore } from "./platform.js";
import { ClaimedConfig, Config, parseJson } from "./schema.js";

/** The platform of a config whose diffIDs are not believed; only their number must be that of the layers. */
export function checkClaimedConfig(
  subject: string,
  bytes: Uint8Array,
  layers: number,
  asked: Platform | undefined,
): string {
  return check(subject, parseJson(subject, bytes, ClaimedConfig), layers, asked);
}

/** What a config says, checked against the manifest that names it. */
export interface CheckedConfig {
  readonly platform: string;
  /** diffIDs, lowest layer first. */
  readonly diffIds: readonly Digest[];
}

/**
 * Reads a config for an image of `layers` layers. A platform that the user asked for must be the config's; the
 * machine's own, when nobody asked, need not be: an image of one platform only is taken as it is.
 */
export function checkConfig(
  subject: string,
  bytes: Uint8Array,
  layers: number,
  asked: Platform | undefined,
): CheckedConfig {
  const config = parseJson(subject, bytes, Config);
  return { platform: check(subject, config, layers, asked), diffIds: config.rootfs.diff_ids };
}

function check(
  subject: string,
  config: v.InferOutput<typeof ClaimedConfig>,
  layers: number,
  asked: Platform | undefined,
): string {
  const diffIds = config.rootfs.diff_ids;
  if (diffIds.length !== layers) {
    throw new Error(`${subject}: ${diffIds.length} diff_ids for ${layers} layers`);
  }
  const platform = platformOf(config.os, config.architecture, config.variant);
  if (asked !== undefined && platformScore(asked, platform) === 0) {
    throw new Error(
      `${subject}: the image is for ${formatPlatform(platform)}, not for ${formatPlatform(asked)}`,
    );
  }
  return formatPlatform(platform);
}

/** The smallest config of an image with these layers (image-spec, config.md); the same input, the same bytes. */
export function makeConfig(platform: string, diffIds: readonly Digest[]): Uint8Array {
  const { os, architecture, variant } = parsePlatform(platform);
  return Buffer.from(
    JSON.stringify({
      architecture,
      os,
      ...(variant === "" ? {} : { variant }),
      config: {},
      rootfs: { type: "layers", diff_ids: diffIds },
    }),
  );
}

/** Throws an Error when `bytes` are not what `digest` names. */
export function checkDigest(subject: string, bytes: Uint8Array, digest: SourceDigest): void {
  const actual = digestBy(digestAlgorithm(digest), bytes);
  if (actual !== digest) throw new Error(`${subject}: digest mismatch: the bytes are ${actual}`);
}
