// POSIX access ACLs and the mode they go with: each determines the other (acl(5), "Correspondence between ACL entries and
// file permission bits"). A filesystem does this itself; it is done here for ACLs that are kept beside an object.
// Layout: include/uapi/linux/posix_acl_xattr.h, little-endian.

const ACL_VERSION = 2;
const ACL_USER_OBJ = 0x01;
export const ACL_USER = 0x02;
const ACL_GROUP_OBJ = 0x04;
export const ACL_GROUP = 0x08;
const ACL_MASK = 0x10;
const ACL_OTHER = 0x20;
export const ACL_HEADER = 4;
/** tag u16, permissions u16, id u32 */
export const ACL_ENTRY = 8;

/** True for a value with the layout of an ACL. */
export function isAcl(value: Uint8Array): boolean {
  return (
    value.length >= ACL_HEADER &&
    (value.length - ACL_HEADER) % ACL_ENTRY === 0 &&
    viewOf(value).getUint32(0, true) === ACL_VERSION
  );
}

function viewOf(value: Uint8Array): DataView {
  return new DataView(value.buffer, value.byteOffset, value.byteLength);
}

/** Where the permissions of an entry are in the value, by tag; of users and groups with a name the last. */
function entriesOf(value: Uint8Array): Map<number, number> {
  const view = viewOf(value);
  const entries = new Map<number, number>();
  for (let at = ACL_HEADER; at < value.length; at += ACL_ENTRY) entries.set(view.getUint16(at, true), at + 2);
  return entries;
}

/** The places of what the permission bits stand for: owner, group (the mask where there is one), others. */
function placesOf(value: Uint8Array): { place: number; shift: number }[] {
  const entries = entriesOf(value);
  const places = [
    { place: entries.get(ACL_USER_OBJ), shift: 6 },
    { place: entries.get(ACL_MASK) ?? entries.get(ACL_GROUP_OBJ), shift: 3 },
    { place: entries.get(ACL_OTHER), shift: 0 },
  ];
  return places.filter((p): p is { place: number; shift: number } => p.place !== undefined);
}

/** The mode of an object with this ACL, of which all but the permissions of owner, group and others stay. */
export function modeWithAcl(mode: number, value: Uint8Array): number {
  const view = viewOf(value);
  let result = mode & ~0o777;
  for (const { place, shift } of placesOf(value)) result |= (view.getUint16(place, true) & 7) << shift;
  return result;
}

/** The ACL after chmod(2). */
export function aclWithMode(value: Uint8Array, mode: number): Buffer {
  const changed = Buffer.from(value);
  const view = viewOf(changed);
  for (const { place, shift } of placesOf(changed)) view.setUint16(place, (mode >>> shift) & 7, true);
  return changed;
}

/** What a new object with `mode` has in a directory with this default ACL: the mode, and an ACL unless it is plain. */
export function inherited(value: Uint8Array, mode: number): { mode: number; acl: Buffer | undefined } {
  const left = mode & (modeWithAcl(mode, value) | ~0o777);
  return { mode: left, acl: isPlain(value) ? undefined : aclWithMode(value, left) };
}

/** True for an ACL that says no more than a mode does: filesystems keep none then. */
export function isPlain(value: Uint8Array): boolean {
  const entries = entriesOf(value);
  return !entries.has(ACL_USER) && !entries.has(ACL_GROUP) && !entries.has(ACL_MASK);
}
