// Extended attributes that hold ids: POSIX ACLs name users and groups, file capabilities the root they are for.
// They show the ids of the mount as owners do. What names an id that there is not is left out: nobody can be it.
// Layouts: include/uapi/linux/posix_acl_xattr.h and include/uapi/linux/capability.h, little-endian.
import type { Xattr } from "../imgfs/tree.js";
import { ACL_ENTRY, ACL_GROUP, ACL_HEADER, ACL_USER, isAcl } from "./acl.js";
import { hostId, idProblem, type OwnerMap, UNMAPPED } from "./id-map.js";

/** A set of xattrs as the mount shows it. */
export interface ShownXattrs {
  readonly xattrs: readonly Xattr[];
  /** What was left out, for people; undefined when nothing was. */
  readonly problem: string | undefined;
}

/** Xattrs of the image as the mount shows them; the same array when no id is in them. */
export function showXattrs(owners: OwnerMap, xattrs: readonly Xattr[]): ShownXattrs {
  if (!xattrs.some(({ name }) => rewriters.has(name))) return { xattrs, problem: undefined };
  const shown: Xattr[] = [];
  let problem: string | undefined;
  for (const xattr of xattrs) {
    const result = rewriters.get(xattr.name)?.(owners, xattr.value) ?? { value: xattr.value };
    problem ??= result.problem;
    if (result.value !== undefined) shown.push({ name: xattr.name, value: result.value });
  }
  return { xattrs: shown, problem };
}

interface Rewritten {
  /** Undefined: the attribute is not there. */
  readonly value: Buffer | undefined;
  readonly problem?: string;
}

function rewriteAcl(owners: OwnerMap, value: Buffer): Rewritten {
  if (!isAcl(value)) return { value };
  const out = Buffer.from(value);
  let end = ACL_HEADER;
  let problem: string | undefined;
  for (let at = ACL_HEADER; at < value.length; at += ACL_ENTRY) {
    const tag = value.readUInt16LE(at);
    value.copy(out, end, at, at + ACL_ENTRY);
    if (tag === ACL_USER || tag === ACL_GROUP) {
      const table = tag === ACL_USER ? owners.user : owners.group;
      const id = value.readUInt32LE(at + 4);
      const wrong = idProblem(table, id);
      if (wrong !== undefined) {
        problem ??= `${tag === ACL_USER ? "uid" : "gid"} ${id} of an ACL ${wrong}`;
        continue;
      }
      out.writeUInt32LE(hostId(table, id), end + 4);
    }
    end += ACL_ENTRY;
  }
  return problem === undefined ? { value: out } : { value: out.subarray(0, end), problem };
}

const CAPABILITY_REVISION = 0xff00_0000;
const CAPABILITY_2 = { revision: 0x0200_0000, length: 20 };
/** As revision 2, and the id of the root in whose user namespaces the capabilities count. */
const CAPABILITY_3 = { revision: 0x0300_0000, length: 24 };

/** Revision 2 means root 0: where the map moves that, the kernel heeds the file only as revision 3. */
function rewriteCapability({ user }: OwnerMap, value: Buffer): Rewritten {
  if (user.ranges === undefined || value.length < 4) return { value };
  const magic = value.readUInt32LE(0);
  const revision = (magic & CAPABILITY_REVISION) >>> 0;
  const isThird = revision === CAPABILITY_3.revision && value.length === CAPABILITY_3.length;
  if (!isThird && (revision !== CAPABILITY_2.revision || value.length !== CAPABILITY_2.length)) {
    return { value };
  }
  const root = isThird ? value.readUInt32LE(CAPABILITY_2.length) : 0;
  const host = hostId(user, root);
  if (host === UNMAPPED) {
    return { value: undefined, problem: `uid ${root} of a file capability is not in the map` };
  }
  if (host === 0 && !isThird) return { value };
  const out = Buffer.alloc(CAPABILITY_3.length);
  value.copy(out, 0, 0, CAPABILITY_2.length);
  out.writeUInt32LE(((magic & ~CAPABILITY_REVISION) | CAPABILITY_3.revision) >>> 0, 0);
  out.writeUInt32LE(host, CAPABILITY_2.length);
  return { value: out };
}

const rewriters: ReadonlyMap<string, (owners: OwnerMap, value: Buffer) => Rewritten> = new Map([
  ["system.posix_acl_access", rewriteAcl],
  ["system.posix_acl_default", rewriteAcl],
  ["security.capability", rewriteCapability],
]);
