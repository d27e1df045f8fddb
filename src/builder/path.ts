// Paths of a layer: bytes in, components out, clamped inside the root. Nothing here ever touches the host.
// Bounds: a component has at most 255 bytes (NAME_MAX) and a path 4095 (PATH_MAX without its NUL), what Linux and
// every other tool that unpacks layers can name.
import { type Name, nameOf } from "../base/bytes.js";

/** What the last component of a whiteout begins with (image-spec, layer.md#whiteouts). */
export const whiteoutPrefix = ".wh.";

const maxComponent = 255;
export const maxPath = 4095;

const slash = 0x2f;
const dot = 0x2e;

/**
 * The components of a path: empty ones and `.` dropped, `..` taken back as far as the root. An empty list is the root.
 * Throws an Error when the path or a component is too long.
 */
export function components(path: Uint8Array): Name[] {
  if (path.length > maxPath) throw new Error(`path of ${path.length} bytes, at most ${maxPath} are accepted`);
  const parts: Name[] = [];
  for (let start = 0; start < path.length; ) {
    if (path[start] === slash) {
      start++;
      continue;
    }
    let end = start + 1;
    while (end < path.length && path[end] !== slash) end++;
    const length = end - start;
    if (length > maxComponent)
      throw new Error(`name of ${length} bytes, at most ${maxComponent} are accepted`);
    if (path[start] === dot && (length === 1 || (length === 2 && path[start + 1] === dot))) {
      if (length === 2) parts.pop();
    } else {
      parts.push(nameOf(path, start, end));
    }
    start = end;
  }
  return parts;
}

/** Components joined by `/`, as bytes. */
export function joined(parts: readonly Name[]): Buffer {
  return Buffer.from(parts.join("/"), "latin1");
}

/** Whether a layer would take the path for a whiteout or another marker, or for something beneath one. */
export function looksLikeMarker(path: Buffer): boolean {
  return path.indexOf(whiteoutPrefix) === 0 || path.includes(`/${whiteoutPrefix}`);
}
