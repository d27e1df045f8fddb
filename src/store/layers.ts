// Layers of an image in the store: each converted once, whoever asks for it at the same time.
// Two processes never wait for each other's layers while they hold one: a process converts all layers whose lock is free,
// gives each lock back when its blob has its name, and only then waits for those that others convert.
import { renameSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { type Digest, digestHex } from "../base/digest.js";
import { syncFolder } from "../base/durable.js";
import type { BlobSummary, BuildEvent, BuiltLayer } from "../builder/image.js";
import { builtLayer, convertChosen, reusedLayer, summaryOfBlob } from "../builder/layers.js";
import type { Threads } from "../builder/pool.js";
import type { Codec } from "../imgfs/codec.js";
import { blobFile } from "../imgfs/folder.js";
import { layerKey } from "../imgfs/layer-key.js";
import type { ImageSource, LayerSource } from "../oci/source.js";
import { clearPlace } from "./aside.js";
import { Downloads } from "./downloads.js";
import { fault } from "./fault.js";
import { isFile } from "./files.js";
import type { Lease } from "./lease.js";
import { type Lock, takeLock, tryLock } from "./locks.js";
import { identityOf, knownSource, noteSource } from "./sources.js";
import type { Measure, Store } from "./store.js";

export interface LayerOptions {
  readonly codec: Codec;
  readonly onEvent: (event: BuildEvent) => void;
  readonly signal: AbortSignal | undefined;
  readonly measure: Measure | undefined;
  /** Called with each layer that is there, before the next one; may throw. */
  readonly check: (layer: BuiltLayer) => void;
  /** Those that were started before; the caller ends them. */
  readonly threads?: Threads | undefined;
}

/** What is known of a layer that nobody has read yet. */
interface Known {
  readonly diffId: Digest;
  readonly key: Digest;
}

/** Layers converted at the same time. What comes over a network waits for it now and then, also on one core. */
const MOST_JOBS = 4;
const LEAST_REMOTE_JOBS = 2;

/** The image's layers, lowest first, each with its blob in STORE/content, which the lease keeps there. */
export async function ensureLayers(
  store: Store,
  lease: Lease,
  image: ImageSource,
  options: LayerOptions,
): Promise<BuiltLayer[]> {
  return new Ensurer(store, lease, image, options).run();
}

class Ensurer {
  private readonly store: Store;
  private readonly lease: Lease;
  private readonly image: ImageSource;
  private readonly options: LayerOptions;
  private readonly built: (BuiltLayer | undefined)[];
  /** What the layers' blobs are of, as far as it is known before they are read. */
  private readonly known: readonly (Known | undefined)[];
  private readonly identities: readonly ReturnType<typeof identityOf>[];
  private readonly locks = new Map<number, Lock>();
  private readonly downloads: Downloads | undefined;
  /** For the first conversion, which ends them. */
  private threads: Threads | undefined;

  constructor(store: Store, lease: Lease, image: ImageSource, options: LayerOptions) {
    this.store = store;
    this.lease = lease;
    this.image = image;
    this.options = options;
    this.threads = options.threads;
    this.built = image.layers.map(() => undefined);
    this.identities = image.layers.map((layer) =>
      layer.diffId === undefined ? identityOf(layer) : undefined,
    );
    this.known = image.layers.map(({ diffId, baseDirectory }, i) => {
      const its = diffId ?? knownSource(store, this.identities[i]);
      return its && { diffId: its, key: layerKey(its, baseDirectory) };
    });
    this.downloads =
      image.fetch === undefined ? undefined : new Downloads(store, image.fetch, options.measure);
  }

  async run(): Promise<BuiltLayer[]> {
    const { image, options, known } = this;
    const names = known.flatMap((one) => (one === undefined ? [] : [this.fileOf(one.key)]));
    await this.lease.need(names, options);
    try {
      for (;;) {
        const missing = this.findMissing();
        if (missing.length === 0) break;
        const free = missing.filter((layer) => this.claim(layer, known[layer]?.key));
        const again = this.findMissing().filter((layer) => free.includes(layer));
        if (again.length > 0) await this.convert(again);
        this.releaseAll();
        const [other] = this.findMissing();
        const waited = other === undefined ? undefined : known[other];
        if (waited !== undefined) await this.wait(waited.key);
      }
    } finally {
      this.releaseAll();
    }
    syncFolder(join(this.store.path, "content"));
    return image.layers.map((_, i) => this.built[i] ?? this.sameAs(i));
  }

  private fileOf(key: Digest): string {
    return blobFile(key, this.options.codec);
  }

  private pathOf(key: Digest): string {
    return join(this.store.path, "content", this.fileOf(key));
  }

  /** What the blob says of itself; undefined where none is there, or something else. */
  private summaryOf(path: string, key: Digest): BlobSummary | undefined {
    return isFile(path) ? summaryOfBlob(path, key, this.options.codec) : undefined;
  }

  /** Layers without a sound blob, each key once. */
  private findMissing(): number[] {
    const seen = new Set<Digest>();
    const missing: number[] = [];
    this.image.layers.forEach((layer, i) => {
      const known = this.known[i];
      if (this.built[i] !== undefined || (known !== undefined && seen.has(known.key))) return;
      if (known !== undefined) {
        const { diffId, key } = known;
        seen.add(key);
        const path = this.pathOf(key);
        const summary = this.summaryOf(path, key);
        if (summary !== undefined) {
          this.take(i, reusedLayer(layer, diffId, path, summary));
          return;
        }
      }
      missing.push(i);
    });
    return missing;
  }

  private take(layer: number, result: BuiltLayer): void {
    this.built[layer] = result;
    this.options.onEvent({ type: "layer-done", layer, result });
    this.options.check(result);
  }

  /** A layer that occurs twice in the image. */
  private sameAs(layer: number): BuiltLayer {
    const key = this.known[layer]?.key;
    return this.built.find((built, i) => built !== undefined && this.known[i]?.key === key) as BuiltLayer;
  }

  /** True when this process is the one to convert a layer. Of an unknown key nobody else can know either. */
  private claim(layer: number, key: Digest | undefined): boolean {
    if (key === undefined) return true;
    const lock = tryLock(this.store.path, `layer-${digestHex(key)}`, "exclusive");
    if (lock !== undefined) this.locks.set(layer, lock);
    return lock !== undefined;
  }

  private releaseAll(): void {
    for (const lock of this.locks.values()) lock.release();
    this.locks.clear();
  }

  private async wait(key: Digest): Promise<void> {
    const { signal, measure } = this.options;
    const lock = await takeLock(this.store.path, `layer-${digestHex(key)}`, "exclusive", {
      signal,
      measure,
    });
    lock.release();
  }

  /** Converts layers; where what was left of an earlier download is to blame, some of them are not there afterwards. */
  private async convert(layers: readonly number[]): Promise<void> {
    const { image, options, lease, downloads } = this;
    const target = (layer: number): string => lease.path(`layer-${layer}`);
    const unnamed: [number, BuiltLayer][] = [];
    const least = downloads === undefined ? 1 : LEAST_REMOTE_JOBS;
    const jobs = Math.min(Math.max(availableParallelism(), least), MOST_JOBS, layers.length);
    const { threads } = this;
    this.threads = undefined;
    let isWorthAnother = false;
    const converting = convertChosen(
      downloads === undefined
        ? image
        : { ...image, fetch: (bytes, signal) => downloads.fetch(bytes, signal) },
      { layers, target, codec: options.codec },
      {
        jobs,
        signal: options.signal,
        threads,
        onEvent: options.onEvent,
        onDamage: (layer, cause) => {
          isWorthAnother = downloads?.reject(image.layers[layer] as LayerSource) ?? false;
          if (isWorthAnother)
            options.onEvent({ type: "retry", message: `${cause.message}; from the start again` });
        },
        onDone: (layer, converted) => {
          const source = image.layers[layer] as LayerSource;
          const path = this.pathOf(layerKey(converted.diffId, source.baseDirectory));
          const result = builtLayer(source, converted, options.codec, path);
          options.measure?.("UnpackTime", Math.round(converted.milliseconds * 1e6), "nanos");
          if (source.diffId === undefined) {
            // It could not be listed before; so it gets its name only once it is.
            unnamed.push([layer, result]);
            return;
          }
          this.publish(layer, result);
          this.take(layer, result);
        },
      },
    );
    await converting.catch((cause: unknown) => {
      if (!isWorthAnother) throw cause;
    });
    for (const [layer, result] of unnamed) {
      const source = image.layers[layer] as LayerSource;
      await lease.need([basename(result.path)], options);
      this.publish(layer, result);
      noteSource(this.store, lease, source, this.identities[layer], result);
      this.take(layer, result);
    }
  }

  private publish(layer: number, { path, diffId, digest }: BuiltLayer): void {
    const source = this.image.layers[layer] as LayerSource;
    const key = layerKey(diffId, source.baseDirectory);
    const made = this.lease.path(`layer-${layer}`);
    const giveName = (): void => {
      fault("layer.publish");
      // What is there is the same layer from another source meanwhile, the same bytes; or damaged, and then replaced.
      if (this.summaryOf(path, key) !== undefined) rmSync(made);
      else {
        clearPlace(this.store, path);
        renameSync(made, path);
      }
    };
    if (this.downloads === undefined || digest === undefined) giveName();
    else this.downloads.commit(source, digest, giveName);
    this.locks.get(layer)?.release();
    this.locks.delete(layer);
  }
}
