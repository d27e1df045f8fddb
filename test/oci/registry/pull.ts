// A pull as a build does it, without the conversion: everything is read, and what comes is compared by digest.
import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { openSource } from "../../../src/oci/open.js";
import type { RegistryOptions } from "../../../src/oci/registry/options.js";
import type { RemoteBytes } from "../../../src/oci/source.js";
import { place } from "./serve.js";

/** Tries that do not take long. */
export const quick = { delay: 10, silence: 30_000, connect: 30_000, tries: 4, maxDelay: 5_000 } as const;

/** The environment of a user who has no files of the kind, with what a test puts there. */
export function environment(more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  return {
    PATH: process.env["PATH"],
    HOME: place("nobody"),
    CONTAINERS_REGISTRIES_CONF: "/dev/null",
    XDG_RUNTIME_DIR: place("nobody"),
    ...more,
  };
}

export interface Pulled {
  readonly platform: string;
  /** Digests of the layers' bytes. */
  readonly layers: readonly string[];
  readonly retries: readonly string[];
  readonly place: string;
}

/** `linger`: ms for which each piece is held before it is looked at. */
export async function pull(
  name: string,
  registry: RegistryOptions = {},
  platform?: string,
  linger = 0,
): Promise<Pulled> {
  const retries: string[] = [];
  const image = await openSource(`docker://${name}`, {
    platform,
    registry: {
      environment: environment(),
      limits: quick,
      onRetry: (message) => void retries.push(message),
      ...registry,
    },
  });
  try {
    const layers = await Promise.all(
      image.layers.map(async ({ bytes }) => {
        const hash = createHash("sha256");
        let size = 0;
        for await (const piece of image.fetch?.(bytes as RemoteBytes) ?? []) {
          if (linger > 0) await sleep(linger);
          hash.update(piece);
          size += piece.length;
        }
        if (size !== bytes.size) throw new Error(`${size} bytes of ${bytes.size}`);
        return `sha256:${hash.digest("hex")}`;
      }),
    );
    return { platform: image.platform, layers, retries, place: image.place as string };
  } finally {
    await image.close?.();
  }
}
