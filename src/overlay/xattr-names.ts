// Names that overlays keep for themselves on backing objects. A program in the mount may use them too (an overlay whose
// directories lie in this one does): what it calls `trusted.overlay.x` is kept as `trusted.overlay.overlay.x`, as the
// kernel's overlayfs has it (fs/overlayfs/xattrs.c), and the other namespaces alike, to any depth. Those of other overlays
// are among them: an upper directory may have been theirs.
// Invariant: a name on disk is either a mark of this overlay's own or an escaped or ordinary name; never both.
import type { Name } from "../base/bytes.js";

/** Longest name (include/uapi/linux/limits.h, XATTR_NAME_MAX). */
const NAME_MAX = 255;

/** Each namespace, and what follows it in the name of what is not the overlay's own. */
const namespaces = [
  { prefix: "trusted.overlay.", infix: "overlay." },
  { prefix: "user.overlay.", infix: "overlay." },
  { prefix: "user.imgfs.", infix: "imgfs." },
  { prefix: "user.fuseoverlayfs.", infix: "fuseoverlayfs." },
  { prefix: "user.containers.", infix: "containers." },
] as const;

function namespaceOf(name: string): (typeof namespaces)[number] | undefined {
  return namespaces.find(({ prefix }) => name.startsWith(prefix));
}

/** The name under which a backing object keeps what programs call `name`; undefined when that is too long to be one. */
export function storedName(name: Name): Name | undefined {
  const namespace = namespaceOf(name);
  if (namespace === undefined) return name;
  const stored = `${namespace.prefix}${namespace.infix}${name.slice(namespace.prefix.length)}` as Name;
  return stored.length > NAME_MAX ? undefined : stored;
}

/** What programs call a name of a backing object; undefined for a mark of the overlay's own. */
export function shownName(stored: Name): Name | undefined {
  const namespace = namespaceOf(stored);
  if (namespace === undefined) return stored;
  const { prefix, infix } = namespace;
  if (!stored.startsWith(infix, prefix.length)) return undefined;
  return `${prefix}${stored.slice(prefix.length + infix.length)}` as Name;
}
