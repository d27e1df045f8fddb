// Owner, mode and kind of an object that cannot have them as the backing filesystem keeps them: in the xattr
// user.containers.override_stat, as podman and fuse-overlayfs do. Its value is `uid:gid:mode:type`, with the mode in octal
// and as type file, dir, symlink, pipe, socket, char-MAJOR-MINOR or block-MAJOR-MINOR (containers/storage, pkg/idtools,
// FormatContainersOverrideXattrDevice); fuse-overlayfs leaves the type out.
// What is neither file nor directory is then an empty file; a symlink's holds the target.
// Invariant: an upper directory says on its root, before the first one is there, that objects in it may have one: by the
// root's own (all of them), or by a mark of ours (devices 0:0 alone, which are empty files). Whoever can write there can
// make an override, so a mount by root heeds no other without the root's word, and none of them gives rights to others.
import { Errno } from "../base/errno.js";
import {
  deviceMajor,
  deviceMinor,
  emptyStat,
  makeDevice,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
  type Stat,
  statFd,
} from "../sys/stat.js";
import { getXattrFd, readXattrAt, readXattrFd, writeXattrFd } from "../sys/xattr.js";
import { fault } from "./fault.js";

export const overrideXattr: Buffer = Buffer.from("user.containers.override_stat");
const devicesMark = Buffer.from("user.imgfs.devices");

/** What an object shows instead of what its backing object has. */
export interface Override {
  readonly uid: number;
  readonly gid: number;
  /** Type and permission bits, as st_mode. */
  readonly mode: number;
  /** Device number in the kernel's 32-bit encoding; 0 for what is no device. */
  readonly rdev: number;
}

/** Which objects of an upper directory may have an override. */
export interface Overrides {
  readonly rootFd: number;
  /** Any of them. */
  all: boolean;
  /** Empty files that stand for devices 0:0. */
  devices: boolean;
  /** Told what the root shows from now on, when it gets an override for being the root. */
  onRoot?: (override: Override) => void;
}

/** What the upper directory open at `rootFd` says of overrides in it. */
export function readOverrides(rootFd: number): Overrides {
  return {
    rootFd,
    all: getXattrFd(rootFd, overrideXattr, 0, 0) >= 0,
    devices: getXattrFd(rootFd, devicesMark, 0, 0) >= 0,
  };
}

/** Makes the upper directory say that it may hold overrides of any kind. 0 or a negative errno. */
export function allowOverrides(overrides: Overrides): number {
  if (overrides.all) return 0;
  const stat = emptyStat();
  const result = statFd(overrides.rootFd, stat);
  if (result < 0) return result;
  const { uid, gid, mode } = stat;
  const own = { uid, gid, mode, rdev: 0 };
  const written = writeOverride(overrides, overrides.rootFd, own);
  if (written === 0) overrides.onRoot?.(own);
  return written;
}

/** Makes the upper directory say that it may hold devices 0:0. 0 or a negative errno. */
export function allowDevices(overrides: Overrides): number {
  if (overrides.all || overrides.devices) return 0;
  const result = fault("override.allow") || writeXattrFd(overrides.rootFd, devicesMark, Buffer.from("y"));
  if (result === 0) overrides.devices = true;
  return result;
}

/** Writes the override of the file or directory open at `fd`. 0 or a negative errno. */
export function writeOverride(overrides: Overrides, fd: number, override: Override): number {
  if (fd !== overrides.rootFd) {
    const allowed = isDeviceZero(override) ? allowDevices(overrides) : allowOverrides(overrides);
    if (allowed < 0) return allowed;
  }
  const failed = fault(fd === overrides.rootFd && !overrides.all ? "override.allow" : "override.write");
  const result = failed || writeXattrFd(fd, overrideXattr, Buffer.from(formatOverride(override)));
  if (result === 0 && fd === overrides.rootFd) overrides.all = true;
  return result;
}

/**
 * The override of `name`, or with an empty name of what is open at `directoryFd`, of which `stat` is what the filesystem
 * says; undefined without one, or for one that is wrong.
 */
export function readOverride(
  overrides: Overrides,
  directoryFd: number,
  name: Uint8Array,
  stat: Stat,
  wrong: (value: Buffer) => void,
): Override | undefined {
  if (!mayHaveOverride(overrides, stat)) return undefined;
  const value =
    name.length === 0
      ? readXattrFd(directoryFd, overrideXattr)
      : readXattrAt(directoryFd, name, overrideXattr);
  if (typeof value === "number") return undefined;
  const parsed = parseOverride(value, stat);
  const isAllowed = overrides.all || (parsed !== undefined && isDeviceZero(parsed));
  const override = isAllowed ? parsed : undefined;
  if (override === undefined) wrong(value);
  return override;
}

function isDeviceZero({ mode, rdev }: Override): boolean {
  return (mode & S_IFMT) === S_IFCHR && rdev === 0;
}

function mayHaveOverride(overrides: Overrides, { mode, size }: Stat): boolean {
  const type = mode & S_IFMT;
  if (type === S_IFREG) return overrides.all || (overrides.devices && size === 0);
  return type === S_IFDIR && overrides.all;
}

const typeNames: ReadonlyMap<number, string> = new Map([
  [S_IFREG, "file"],
  [S_IFDIR, "dir"],
  [S_IFLNK, "symlink"],
  [S_IFIFO, "pipe"],
  [S_IFSOCK, "socket"],
  [S_IFCHR, "char"],
  [S_IFBLK, "block"],
]);
const typesByName: ReadonlyMap<string, number> = new Map([...typeNames].map(([type, name]) => [name, type]));

function isDevice(type: number): boolean {
  return type === S_IFCHR || type === S_IFBLK;
}

/** The value of the xattr. */
export function formatOverride({ uid, gid, mode, rdev }: Override): string {
  const type = mode & S_IFMT;
  const numbers = isDevice(type) ? `-${deviceMajor(rdev)}-${deviceMinor(rdev)}` : "";
  const permissions = (mode & 0o7777).toString(8).padStart(4, "0");
  return `${uid}:${gid}:${permissions}:${typeNames.get(type)}${numbers}`;
}

/** No id: what chown(2) takes for "leave it as it is". */
const NO_ID = 0xffff_ffff;
/** Longest target of a symlink (include/uapi/linux/limits.h, PATH_MAX less the NUL). */
const TARGET_MAX = 4095;
const MAJOR_MAX = 0xfff;
const MINOR_MAX = 0xf_ffff;

/**
 * What a value says of an object that the filesystem calls `stat`, or undefined where it cannot be true: no such ids, a
 * directory that would be something else, a symlink without a target.
 */
export function parseOverride(value: Buffer, stat: Pick<Stat, "mode" | "size">): Override | undefined {
  const match = /^(\d{1,10}):(\d{1,10}):([0-7]{1,7})(?::([a-z]+)(?:-(\d{1,10})-(\d{1,10}))?)?$/.exec(
    value.toString("latin1").replace(/\0$/, ""),
  );
  if (match === null) return undefined;
  const [uid, gid, major, minor] = [match[1], match[2], match[5] ?? "0", match[6] ?? "0"].map(Number);
  if (uid === undefined || gid === undefined || major === undefined || minor === undefined) return undefined;
  if (uid >= NO_ID || gid >= NO_ID || major > MAJOR_MAX || minor > MINOR_MAX) return undefined;
  const backing = stat.mode & S_IFMT;
  const type = match[4] === undefined ? backing : typesByName.get(match[4]);
  if (type === undefined || isDevice(type) !== (match[5] !== undefined)) return undefined;
  if ((type === S_IFDIR) !== (backing === S_IFDIR)) return undefined;
  if (type === S_IFLNK && (stat.size === 0 || stat.size > TARGET_MAX)) return undefined;
  const permissions = Number.parseInt(match[3] as string, 8) & 0o7777;
  return { uid, gid, mode: type | permissions, rdev: isDevice(type) ? makeDevice(major, minor) : 0 };
}

/** Makes a stat of the backing object one of what it shows. */
export function applyOverride({ uid, gid, mode, rdev }: Override, stat: Stat): void {
  const type = mode & S_IFMT;
  stat.uid = uid;
  stat.gid = gid;
  stat.mode = mode;
  stat.rdev = rdev;
  if (type === S_IFREG || type === S_IFDIR) return;
  stat.blocks = 0;
  if (type !== S_IFLNK) stat.size = 0;
}

/** True for the errnos of a chown that is not this process's to do: no right to, or no such id where it runs. */
export function isRefusal(result: number): boolean {
  return result === -Errno.EPERM || result === -Errno.EINVAL;
}
