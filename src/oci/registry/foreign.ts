// Layers of a layout that lie elsewhere: fetched from the URLs of their descriptors, each server asked without a login, as a
// registry's blobs are: with tries, proxies, and certificates of ours where it wants some.
import { version } from "../../base/version.js";
import type { ImageSource, RemoteBytes } from "../source.js";
import { displayUrl, followed } from "../urls.js";
import { downloadBy } from "./download.js";
import { Endpoint } from "./endpoint.js";
import type { RegistryOptions } from "./options.js";

/** How layers at URLs are had. Throws RegistryErrors that name the URL, without its query. */
export function openForeign(options: RegistryOptions): Required<Pick<ImageSource, "fetch" | "close">> {
  const endpoints: Endpoint[] = [];

  async function* fetch(
    { digest, size, urls }: RemoteBytes,
    signal: AbortSignal | undefined,
    start = 0,
  ): AsyncGenerator<Uint8Array> {
    if (digest !== undefined && size === 0) return;
    const told = digest === undefined ? undefined : size;
    const ways = followed(urls).map((url) => {
      const endpoint = new Endpoint({
        ...options,
        registry: url.host,
        repository: url.pathname.slice(1),
        isInsecure: options.tlsVerify === false,
        findLogin: async () => undefined,
        userAgent: `imgfs/${version}`,
      });
      endpoints.push(endpoint);
      const open = (from: number) => endpoint.foreign(url, from, { signal });
      return { endpoint, open, name: displayUrl(url) };
    });
    yield* downloadBy(ways, () => true, told, signal, start);
  }

  const close = async (): Promise<void> => {
    await Promise.all(endpoints.map((endpoint) => endpoint.close()));
  };
  return { fetch, close };
}
