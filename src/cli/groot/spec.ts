// What create prints: a runtime-spec with no more in it than GrootFS puts there, in the order and with the names of
// runtime-spec's Go types.
import { goJson } from "./go-json.js";

export interface SpecMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

export interface SpecParts {
  readonly rootfs: string;
  /** The config's Env; left out when there is none. */
  readonly env: readonly string[];
  /** What is left to the caller to mount. */
  readonly mounts: readonly SpecMount[];
}

/** One line of JSON, without its end. */
export function specJson({ rootfs, env, mounts }: SpecParts): string {
  return goJson({
    ociVersion: "",
    process: { user: { uid: 0, gid: 0 }, ...(env.length === 0 ? {} : { env }), cwd: "" },
    root: { path: rootfs },
    ...(mounts.length === 0
      ? {}
      : {
          mounts: mounts.map(({ destination, type, source, options }) => ({
            destination,
            type,
            source,
            ...(options.length === 0 ? {} : { options }),
          })),
        }),
  });
}

/** The Env of an image's OCI config; none for one that has no such thing. */
export function envOf(config: unknown): readonly string[] {
  const part = (config as { readonly config?: { readonly Env?: unknown } } | undefined)?.config;
  const env = part?.Env;
  return Array.isArray(env) ? env.filter((each) => typeof each === "string") : [];
}
