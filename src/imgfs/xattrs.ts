// Sets of extended attributes as they are stored: one msgpack array [name, value, name, value, ...] of byte strings,
// sorted by name, each name once.
import { bytesOf, nameOf } from "../base/bytes.js";
import { pack, unpack } from "./pack.js";
import type { Xattr } from "./tree.js";

const nothing = Buffer.alloc(0);

/** No bytes for no attributes. Throws an Error when a name occurs twice or cannot be a name. */
export function encodeXattrs(xattrs: readonly Xattr[]): Buffer {
  if (xattrs.length === 0) return nothing;
  const sorted = [...xattrs].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  sorted.forEach(({ name }, i) => {
    if (name.length === 0 || name.length > 255 || name.includes("\0"))
      throw new Error("an xattr's name is no name");
    if (i > 0 && sorted[i - 1]?.name === name) throw new Error("an xattr is there twice");
  });
  return pack(sorted.flatMap(({ name, value }) => [bytesOf(name), Buffer.from(value)]));
}

/** The set, or undefined where the bytes are none. */
export function decodeXattrs(bytes: Uint8Array): readonly Xattr[] | undefined {
  const list = unpack(bytes);
  if (!Array.isArray(list) || list.length === 0 || list.length % 2 !== 0) return undefined;
  const xattrs: Xattr[] = [];
  for (let i = 0; i < list.length; i += 2) {
    const name: unknown = list[i];
    const value: unknown = list[i + 1];
    if (!Buffer.isBuffer(name) || !Buffer.isBuffer(value)) return undefined;
    if (name.length === 0 || name.length > 255 || name.includes(0)) return undefined;
    const last = xattrs.at(-1);
    if (last !== undefined && last.name >= nameOf(name)) return undefined;
    // Copies: what is cached must not keep a whole image's metadata alive, nor change with it.
    xattrs.push({ name: nameOf(name), value: Buffer.from(value) });
  }
  return xattrs;
}
