// The flags of mount(2) and the names that mount(8) has for them. No system call is bound here: the command line reads
// these names without loading the C library.

export const MS_RDONLY = 1;
export const MS_NOSUID = 2;
export const MS_NODEV = 4;
export const MS_NOEXEC = 8;
export const MS_SYNCHRONOUS = 16;
export const MS_DIRSYNC = 128;
export const MS_NOSYMFOLLOW = 256;
export const MS_NOATIME = 1024;
export const MS_NODIRATIME = 2048;
export const MS_RELATIME = 1 << 21;
export const MS_STRICTATIME = 1 << 24;
export const MS_LAZYTIME = 1 << 25;

/** An option's name to the flag it stands for, and whether it sets it (mount(8), FILESYSTEM-INDEPENDENT MOUNT OPTIONS). */
export const mountFlagNames: ReadonlyMap<string, { readonly flag: number; readonly on: boolean }> = new Map([
  ["ro", { flag: MS_RDONLY, on: true }],
  ["rw", { flag: MS_RDONLY, on: false }],
  ["nosuid", { flag: MS_NOSUID, on: true }],
  ["suid", { flag: MS_NOSUID, on: false }],
  ["nodev", { flag: MS_NODEV, on: true }],
  ["dev", { flag: MS_NODEV, on: false }],
  ["noexec", { flag: MS_NOEXEC, on: true }],
  ["exec", { flag: MS_NOEXEC, on: false }],
  ["sync", { flag: MS_SYNCHRONOUS, on: true }],
  ["async", { flag: MS_SYNCHRONOUS, on: false }],
  ["dirsync", { flag: MS_DIRSYNC, on: true }],
  ["nosymfollow", { flag: MS_NOSYMFOLLOW, on: true }],
  ["symfollow", { flag: MS_NOSYMFOLLOW, on: false }],
  ["noatime", { flag: MS_NOATIME, on: true }],
  ["atime", { flag: MS_NOATIME, on: false }],
  ["nodiratime", { flag: MS_NODIRATIME, on: true }],
  ["diratime", { flag: MS_NODIRATIME, on: false }],
  ["relatime", { flag: MS_RELATIME, on: true }],
  ["norelatime", { flag: MS_RELATIME, on: false }],
  ["strictatime", { flag: MS_STRICTATIME, on: true }],
  ["nostrictatime", { flag: MS_STRICTATIME, on: false }],
  ["lazytime", { flag: MS_LAZYTIME, on: true }],
  ["nolazytime", { flag: MS_LAZYTIME, on: false }],
]);
