// xattr names that belong to overlays: hidden from a mount, not to be set or removed through it.
const reserved = ["trusted.overlay.", "user.overlay.", "user.imgfs.", "user.containers.override_stat"];

/** True for a name that the overlay itself may keep on a backing object. */
export function isReserved(name: string): boolean {
  return reserved.some((prefix) => name.startsWith(prefix));
}
