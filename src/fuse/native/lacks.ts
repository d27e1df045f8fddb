// What a mount by fuse-native cannot do, by name. The tests of both transports go by these names, and
// docs/transports.md explains each: a limit that is not here is a bug.

/** Name of a lack to what it means for who uses the mount. */
export const lacks = {
  "ns-times": "times are whole milliseconds, shown and set",
  "times-before-1970": "a time before 1970 is shown as its beginning; setting one works",
  "single-times": "setting one of atime and mtime (touch -a, touch -m) does nothing, and says nothing",
  "byte-names":
    "a name that is not UTF-8, or holds U+FFFD, is not listed; it and a link to such a one answer EILSEQ",
  "caller-ids":
    "new objects belong to the user who runs the mount, not to who makes them; without setuid bits",
  "trusted-names": "trusted xattrs are listed to everybody, readable by root alone",
  "chown-nothing": "chown(-1, -1) leaves setuid, setgid and ctime as they are",
  "posix-acl": "POSIX ACLs cannot be set; those of the image are told, and not checked",
  "rename-flags": "renameat2 with NOREPLACE, EXCHANGE or WHITEOUT fails",
  tmpfile: "O_TMPFILE fails",
  fallocate: "fallocate and punching holes fail",
  lseek: "SEEK_DATA and SEEK_HOLE see no holes",
  "copy-file-range": "copies are read and written back; nothing is shared with the image below",
  "wide-inodes": "inode numbers have 32 bits, and differ from the direct transport's for what was written",
  "link-caches":
    "names of one file are apart to the kernel: caches, mappings, locks, pipes, watches are each name's own",
  "open-in-removed":
    "a file that is open when it is removed cannot be used any more once its directory is removed too",
  "hidden-names":
    "names .fuse_hidden and 16 hex digits are libfuse's: renaming an open file to one removes it",
  readdirplus: "listing a directory tells no attributes, and reads all of it at once",
  "large-requests": "reads and writes travel in pieces of 128 KiB",
  "birth-time": "no time of birth is told",
  "file-handles": "a file handle leads nowhere once the kernel has forgotten the object",
  interrupts: "a request is not given up when its process is interrupted",
} as const;

export type Lack = keyof typeof lacks;
