// Owners of the image as a mount shows them: the image's ids moved by the mount's ranges (docs/id-maps.md).
// Nothing on disk says which map is in force: one image serves every mapping at once.
// Invariant: an id that is none of the map's is never written anywhere; it is only shown as the overflow id.

/** `count` ids from `image` on in the image are those from `host` on at the mount. */
export interface IdRange {
  readonly image: number;
  readonly host: number;
  readonly count: number;
}

/** What {@link hostId} says of an id that is not in the map. */
export const UNMAPPED = -1;

/** How the ids of one kind (users, or groups) show. */
export interface IdTable {
  /** image, host, count of each range in turn; undefined shows ids as they are. */
  readonly ranges: Uint32Array | undefined;
  /** First and count of the ids that the user namespace of this process has; undefined where it has all. */
  readonly namespace: Uint32Array | undefined;
  /** Shown for an id that is not in the map. */
  readonly overflow: number;
}

/** How owners show. */
export interface OwnerMap {
  readonly user: IdTable;
  readonly group: IdTable;
  /** The owner that everything shows, whatever is stored. */
  readonly squash: { readonly uid: number; readonly gid: number } | undefined;
}

export interface OwnerMapOptions {
  /** Without ranges the ids of that kind show as they are. */
  readonly uids?: readonly IdRange[] | undefined;
  readonly gids?: readonly IdRange[] | undefined;
  /** Everything belongs to what the map makes of 0:0. */
  readonly squashToRoot: boolean;
}

/** What the kernel says of ids here. */
export interface NamespaceIds {
  readonly uids: Uint32Array | undefined;
  readonly gids: Uint32Array | undefined;
  readonly overflowUid: number;
  readonly overflowGid: number;
}

/** The map of a mount; undefined when it changes nothing. Throws an Error for a squash to an id there is not. */
export function createOwnerMap(options: OwnerMapOptions, here: NamespaceIds): OwnerMap | undefined {
  const user = createTable(options.uids, here.uids, here.overflowUid);
  const group = createTable(options.gids, here.gids, here.overflowGid);
  const trivial = [user, group].every((t) => t.ranges === undefined && t.namespace === undefined);
  if (trivial && !options.squashToRoot) return undefined;
  return { user, group, squash: options.squashToRoot ? rootOf(user, group) : undefined };
}

function createTable(
  ranges: readonly IdRange[] | undefined,
  namespace: Uint32Array | undefined,
  overflow: number,
): IdTable {
  const flat = ranges?.flatMap(({ image, host, count }) => [image, host, count]);
  return { ranges: flat === undefined ? undefined : Uint32Array.from(flat), namespace, overflow };
}

function rootOf(user: IdTable, group: IdTable): OwnerMap["squash"] {
  const uid = hostId(user, 0);
  const gid = hostId(group, 0);
  if (uid === UNMAPPED) throw new Error("cannot squash to root: the uid map has no id for 0");
  if (gid === UNMAPPED) throw new Error("cannot squash to root: the gid map has no id for 0");
  return { uid, gid };
}

/** The id that the mount shows for an id of the image, or {@link UNMAPPED}. */
export function hostId({ ranges }: IdTable, id: number): number {
  if (ranges === undefined) return id;
  for (let i = 0; i < ranges.length; i += 3) {
    const offset = id - (ranges[i] as number);
    if (offset >= 0 && offset < (ranges[i + 2] as number)) return (ranges[i + 1] as number) + offset;
  }
  return UNMAPPED;
}

/** What stat(2) is to say of an id of the image. */
export function shownId(table: IdTable, id: number): number {
  const host = hostId(table, id);
  return host === UNMAPPED ? table.overflow : host;
}

/** Why an id of the image cannot be stored or held by a process here; undefined when it can. */
export function idProblem(table: IdTable, id: number): string | undefined {
  const host = hostId(table, id);
  if (host === UNMAPPED) return "is not in the map";
  if (hasId(table.namespace, host)) return undefined;
  return `${host === id ? "" : `would be ${host}, which `}does not exist in this user namespace`;
}

function hasId(namespace: Uint32Array | undefined, id: number): boolean {
  if (namespace === undefined) return true;
  for (let i = 0; i < namespace.length; i += 2) {
    const offset = id - (namespace[i] as number);
    if (offset >= 0 && offset < (namespace[i + 1] as number)) return true;
  }
  return false;
}

/** Why an object of this owner cannot be stored here; undefined when it can. */
export function ownerProblem(
  { user, group, squash }: OwnerMap,
  uid: number,
  gid: number,
): string | undefined {
  if (squash !== undefined) return undefined;
  const ofUser = idProblem(user, uid);
  if (ofUser !== undefined) return `uid ${uid} ${ofUser}`;
  const ofGroup = idProblem(group, gid);
  return ofGroup === undefined ? undefined : `gid ${gid} ${ofGroup}`;
}

/** Why an object of this owner has none at the mount; undefined when it has one, be it one that does not exist here. */
export function mapProblem({ user, group }: OwnerMap, uid: number, gid: number): string | undefined {
  if (hostId(user, uid) === UNMAPPED) return `uid ${uid} is not in the map`;
  return hostId(group, gid) === UNMAPPED ? `gid ${gid} is not in the map` : undefined;
}
