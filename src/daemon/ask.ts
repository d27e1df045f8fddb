// The child process of probe.ts: asks the mount at argv[2] who serves it and prints `ok PID STARTTIME` or `error ERRNO`.
// The question may hang for ever; nothing else is done here.
import { errnoName } from "../base/errno.js";
import { allocatePages, PAGE_SIZE } from "../sys/memory.js";
import { getXattrPath } from "../sys/xattr.js";

/** The root's attribute that holds `PID STARTTIME` of its process. */
const DAEMON_XATTR = "user.imgfs.daemon";

const { address, bytes } = allocatePages(PAGE_SIZE);
const path = Buffer.from(process.argv[2] ?? "");
const result = getXattrPath(path, Buffer.from(DAEMON_XATTR), address, PAGE_SIZE);
process.stdout.write(
  result < 0
    ? `error ${errnoName(-result)}\n`
    : `ok ${Buffer.from(bytes.subarray(0, result)).toString("latin1")}\n`,
);
