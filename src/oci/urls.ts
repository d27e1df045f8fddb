// The URLs of a descriptor, where its bytes can be had too (descriptor.md#properties). Only what is fetched over HTTP is
// followed, and nothing that has a login in it.

/** Those that are followed, in their order. */
export function followed(urls: readonly string[] | null | undefined): readonly URL[] {
  return (urls ?? []).flatMap((text) => {
    try {
      const url = new URL(text);
      const isPlain = /^https?:$/.test(url.protocol) && url.username === "" && url.password === "";
      return isPlain ? [url] : [];
    } catch {
      return [];
    }
  });
}

/** A URL for messages: without its query, which may have a signature in it that lets others in. */
export function displayUrl({ protocol, host, pathname }: URL): string {
  return `${protocol}//${host}${pathname}`;
}
