#!/usr/bin/env python3
"""The same random operations on a mount and on a plain copy of its tree: whatever a program can see must agree.

  differ.py run    CLI IMAGE FOLDER SEED OPS [MOUNT OPTION...]   a random run; on failure a shortest list of operations
  differ.py replay CLI IMAGE FOLDER FILE     [MOUNT OPTION...]   the operations of FILE, a JSON list

FOLDER is an empty folder to work in: its filesystem holds the upper directory and the plain copy. A is the mount, B the
copy. Each operation is done on A, then on B, and result and errno are compared; the trees now and then, after a remount,
and after the daemon was killed. What may differ is in PERMITTED and nowhere else. Exit 0 agreed, 1 differed.
"""
import ctypes
import errno
import hashlib
import json
import mmap
import os
import random
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW = -100, 0x100, 0x400
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
NAMESPACE = os.readlink("/proc/self/ns/user") != "user:[4026531837]"
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 0x10

# ------------------------------------------------------------------------------------------------ what may differ


# Operation, errno of the mount, when; then nothing is done on the copy, and a word of why.
PERMITTED = [
    (name, "EACCES", lambda run, o: closed_device(run, o), "a mount of a user namespace opens no devices")
    for name in ("create", "open", "read", "write")
]


def closed_device(run, o):
    try:
        return NAMESPACE and stat.S_ISCHR(os.stat(run.b(o["p"])).st_mode)
    except OSError:
        return False


# ------------------------------------------------------------------------------------------------ small system calls


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def renameat2(old, new, flags):
    call(libc.renameat2(AT_FDCWD, old, AT_FDCWD, new, flags))


def fallocate(fd, mode, offset, length):
    call(libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def identity(path, follow_fd=None):
    """Inode number and time of birth: together never given twice."""
    buffer = ctypes.create_string_buffer(256)
    call(libc.statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, 0xFFF, buffer))
    (ino,) = struct.unpack_from("<Q", buffer, 32)
    born = struct.unpack_from("<qI", buffer, 80)
    return (ino, *born)


def getdents(fd, size):
    buffer = ctypes.create_string_buffer(size)
    got = call(libc.syscall(217 if os.uname().machine == "x86_64" else 61, fd, buffer, size))
    at, found = 0, []
    while at < got:
        ino, _, length, kind = struct.unpack_from("<QqHB", buffer.raw, at)
        found.append((buffer.raw[at + 19 : at + length].split(b"\0")[0], ino, kind))
        at += length
    return found


def bytes_of(path):
    return path.encode("latin1")


# ------------------------------------------------------------------------------------------------ one mount and one copy


class Differs(Exception):
    pass


class Run:
    def __init__(self, cli, image, folder, options):
        self.cli, self.image, self.options = cli, image, options
        self.folder = os.fsencode(folder)
        for name in (b"mnt", b"copy"):
            os.mkdir(os.path.join(self.folder, name))
        self.mnt, self.copy = (os.path.join(self.folder, name) for name in (b"mnt", b"copy"))
        self.slots = {}
        self.inos = {}
        self.skipped = 0
        self.mounted = False
        self.mount()
        subprocess.run(["cp", "-a", "--sparse=always", self.mnt + b"/.", self.copy], check=True)
        self.start = time.time_ns()
        time.sleep(0.02)

    def a(self, path):
        return os.path.join(self.mnt, bytes_of(path))

    def b(self, path):
        return os.path.join(self.copy, bytes_of(path))

    def mount(self):
        pid = os.path.join(self.folder, b"pid")
        command = [self.cli, "mount", self.image, self.mnt, "--upper", os.path.join(self.folder, b"upper")]
        done = subprocess.run([*command, "--pid-file", pid, *self.options], capture_output=True)
        if done.returncode != 0:
            raise Differs(f"mount: {done.stderr.decode()}")
        with open(pid) as file:
            self.pid = int(file.read())
        self.mounted = True

    def unmount(self):
        self.close_all()
        if not self.mounted:
            return
        self.mounted = False
        done = subprocess.run([self.cli, "umount", self.mnt], capture_output=True)
        if done.returncode != 0:
            subprocess.run(["umount", "-l", self.mnt])
            raise Differs(f"umount: {done.stderr.decode()}")

    def crash(self):
        """The daemon is killed, as by the OOM killer; what was done stays."""
        self.close_all()
        self.mounted = False
        os.kill(self.pid, signal.SIGKILL)
        while os.path.exists(f"/proc/{self.pid}"):
            with open(f"/proc/{self.pid}/status") as status:
                if "State:\tZ" in status.read():
                    break
            time.sleep(0.005)
        subprocess.run(["umount", "-l", self.mnt], check=True)

    def close_all(self):
        for fds in self.slots.values():
            fds.close()
        self.slots = {}

    def clean(self):
        try:
            self.unmount()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            os.makedirs(self.folder, exist_ok=True)


class Slot:
    """One open description on each side."""

    def __init__(self, a, b, directory):
        self.a, self.b, self.directory = a, b, directory
        self.listed, self.ever, self.always = [], set(), None

    def close(self):
        os.close(self.a)
        os.close(self.b)


# ------------------------------------------------------------------------------------------------ the operations
# Each is done on one side and returns what a program would see. `at` makes a path of that side, `fd` a descriptor.


def op_create(at, fd, o):
    h = os.open(at(o["p"]), o["f"] | os.O_NONBLOCK, o["m"])
    try:
        return os.write(h, b"x" * o["l"]) if o["f"] & 3 else len(os.read(h, 100))
    finally:
        os.close(h)


def op_write(at, fd, o):
    h = os.open(at(o["p"]), o["f"] | os.O_NONBLOCK)
    try:
        os.lseek(h, o["o"], os.SEEK_SET)
        return os.write(h, data_of(o))
    finally:
        os.close(h)


def op_read(at, fd, o):
    h = os.open(at(o["p"]), os.O_RDONLY | os.O_NONBLOCK)
    try:
        return hashlib.sha1(os.pread(h, o["l"], o["o"])).hexdigest()
    finally:
        os.close(h)


def data_of(o):
    return random.Random(o["s"]).randbytes(o["l"])


def summary(s):
    directory = stat.S_ISDIR(s.st_mode)
    return (oct(s.st_mode), s.st_uid, s.st_gid, s.st_nlink, None if directory else s.st_size, s.st_rdev)


def op_lseek(at, fd, o):
    """Extents depend on the filesystem; what they must not do is hide data."""
    h = fd(o["k"])
    size = os.fstat(h).st_size
    if not stat.S_ISREG(os.fstat(h).st_mode):
        return "positions in a directory are its own"
    position = os.lseek(h, 0, os.SEEK_CUR)
    try:
        found = os.lseek(h, o["o"], o["w"])
        os.lseek(h, position, os.SEEK_SET)
    except OSError as error:
        # Zeros that were written or preallocated may be a hole or not, as the page cache has it.
        zeros = o["w"] == os.SEEK_DATA and o["o"] < size and not any(os.pread(h, size - o["o"], o["o"]))
        if error.errno != errno.ENXIO or not zeros:
            raise
        return "ok"
    if not o["o"] <= found <= size:
        return f"position {found} for {o['o']} in {size}"
    if o["w"] == os.SEEK_DATA and any(os.pread(h, found - o["o"], o["o"])):
        return f"data before {found}"
    return "ok"


def op_copyrange(at, fd, o):
    source, target, done = fd(o["k"]), fd(o["k2"]), 0
    while done < o["l"]:
        got = os.copy_file_range(source, target, o["l"] - done, o["o"] + done, o["o2"] + done)
        if got == 0:
            break
        done += got
    return done


def op_mmap_write(at, fd, o):
    h = fd(o["k"])
    size = os.fstat(h).st_size
    if size == 0 or not stat.S_ISREG(os.fstat(h).st_mode):
        return 0
    with mmap.mmap(h, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as m:
        at_byte = o["o"] % size
        part = data_of(o)[: size - at_byte]
        m[at_byte : at_byte + len(part)] = part
        # Pages that are not synced are written, and change mtime, when the kernel likes.
        m.flush()
        return hashlib.sha1(m[:]).hexdigest()


def op_mmap_read(at, fd, o):
    h = fd(o["k"])
    size = os.fstat(h).st_size
    if size == 0 or not stat.S_ISREG(os.fstat(h).st_mode):
        return 0
    with mmap.mmap(h, size, mmap.MAP_SHARED, mmap.PROT_READ) as m:
        return hashlib.sha1(m[:]).hexdigest()


def op_tmpfile(at, fd, o):
    h = os.open(at(o["p"]), os.O_TMPFILE | os.O_RDWR, o["m"])
    try:
        os.write(h, b"temporary")
        seen = summary(os.fstat(h))
        if o["to"] is not None:
            call(libc.linkat(AT_FDCWD, b"/proc/self/fd/%d" % h, AT_FDCWD, at(o["to"]), AT_SYMLINK_FOLLOW))
        return seen, summary(os.fstat(h))
    finally:
        os.close(h)


def op_link(at, fd, o):
    call(libc.linkat(AT_FDCWD, at(o["p"]), AT_FDCWD, at(o["to"]), 0))


def op_linkfd(at, fd, o):
    call(libc.linkat(AT_FDCWD, b"/proc/self/fd/%d" % fd(o["k"]), AT_FDCWD, at(o["to"]), AT_SYMLINK_FOLLOW))


def hashed_read(h, o):
    return hashlib.sha1(os.pread(h, o["l"], o["o"])).hexdigest()


def hexed(value):
    return value.hex()


OPS = {
    "create": op_create,
    "write": op_write,
    "read": op_read,
    "truncate": lambda at, fd, o: os.truncate(at(o["p"]), o["l"]),
    "mkdir": lambda at, fd, o: os.mkdir(at(o["p"]), o["m"]),
    "rmdir": lambda at, fd, o: os.rmdir(at(o["p"])),
    "unlink": lambda at, fd, o: os.unlink(at(o["p"])),
    "rename": lambda at, fd, o: renameat2(at(o["p"]), at(o["to"]), o["f"]),
    "link": op_link,
    "linkfd": op_linkfd,
    "symlink": lambda at, fd, o: os.symlink(bytes_of(o["t"]), at(o["p"])),
    "readlink": lambda at, fd, o: os.readlink(at(o["p"])).decode("latin1"),
    "mknod": lambda at, fd, o: os.mknod(at(o["p"]), o["m"], o["dev"]),
    "chmod": lambda at, fd, o: os.chmod(at(o["p"]), o["m"]),
    "chown": lambda at, fd, o: os.chown(at(o["p"]), o["u"], o["g"], follow_symlinks=False),
    "utimes": lambda at, fd, o: os.utime(at(o["p"]), ns=(o["a"], o["t"]), follow_symlinks=False),
    "touch": lambda at, fd, o: os.utime(at(o["p"]), follow_symlinks=False),
    "stat": lambda at, fd, o: summary(os.lstat(at(o["p"]))),
    "access": lambda at, fd, o: call(libc.faccessat(AT_FDCWD, at(o["p"]), o["m"], 0x200)),
    "setxattr": lambda at, fd, o: os.setxattr(
        at(o["p"]), o["n"], bytes_of(o["v"]), o["f"], follow_symlinks=False
    ),
    "getxattr": lambda at, fd, o: hexed(os.getxattr(at(o["p"]), o["n"], follow_symlinks=False)),
    "listxattr": lambda at, fd, o: sorted(os.listxattr(at(o["p"]), follow_symlinks=False)),
    "removexattr": lambda at, fd, o: os.removexattr(at(o["p"]), o["n"], follow_symlinks=False),
    "tmpfile": op_tmpfile,
    "list": lambda at, fd, o: sorted(name.decode("latin1") for name in os.listdir(at(o["p"]))),
    # On open descriptors.
    "fwrite": lambda at, fd, o: os.pwrite(fd(o["k"]), data_of(o), o["o"]),
    "fappend": lambda at, fd, o: os.write(fd(o["k"]), data_of(o)),
    "fread": lambda at, fd, o: hashed_read(fd(o["k"]), o),
    "ftruncate": lambda at, fd, o: os.ftruncate(fd(o["k"]), o["l"]),
    "fstat": lambda at, fd, o: summary(os.fstat(fd(o["k"]))),
    "fchmod": lambda at, fd, o: os.fchmod(fd(o["k"]), o["m"]),
    "fchown": lambda at, fd, o: os.fchown(fd(o["k"]), o["u"], o["g"]),
    "futimes": lambda at, fd, o: os.utime(fd(o["k"]), ns=(o["a"], o["t"])),
    "fsetxattr": lambda at, fd, o: os.setxattr(fd(o["k"]), o["n"], bytes_of(o["v"]), o["f"]),
    "flistxattr": lambda at, fd, o: sorted(os.listxattr(fd(o["k"]))),
    "fsync": lambda at, fd, o: (os.fdatasync if o["f"] else os.fsync)(fd(o["k"])),
    "fallocate": lambda at, fd, o: fallocate(fd(o["k"]), o["f"], o["o"], o["l"]),
    "lseek": op_lseek,
    "copyrange": op_copyrange,
    "mmapwrite": op_mmap_write,
    "mmapread": op_mmap_read,
}
ON_SLOTS = {
    "fwrite", "fappend", "fread", "ftruncate", "fstat", "fchmod", "fchown", "futimes", "fsetxattr", "flistxattr",
    "fsync", "fallocate", "lseek", "copyrange", "mmapwrite", "mmapread", "linkfd", "close", "getdents",
}  # fmt: skip


def attempt(action):
    try:
        return ("ok", action())
    except OSError as cause:
        return (errno.errorcode.get(cause.errno, str(cause.errno)), None)


def as_user(uid, action):
    if uid:
        libc.setfsgid(uid)
        libc.setfsuid(uid)
    try:
        return attempt(action)
    finally:
        if uid:
            libc.setfsuid(0)
            libc.setfsgid(0)


def apply(run, o):
    """Does one operation on both sides. Raises Differs."""
    name, uid = o["op"], o.get("uid", 0)
    if name in ON_SLOTS and (o["k"] not in run.slots or o.get("k2", o["k"]) not in run.slots):
        return
    if name == "check":
        compare(run, "")
    elif name == "open":
        apply_open(run, o, uid)
    elif name == "close":
        run.slots.pop(o["k"]).close()
    elif name == "getdents":
        list_part(run, run.slots[o["k"]], o)
    elif name == "forget":
        # A remount of the same kind does nothing but drop the kernel's dentries of this filesystem.
        call(libc.mount(None, run.mnt, None, 32, None))
    elif name in ("remount", "crash"):
        (run.unmount if name == "remount" else run.crash)()
        run.mount()
        compare(run, f"after {name}: ")
    else:
        on_a = as_user(uid, lambda: OPS[name](run.a, lambda k: run.slots[k].a, o))
        if is_permitted(run, o, on_a[0]):
            return
        on_b = as_user(uid, lambda: OPS[name](run.b, lambda k: run.slots[k].b, o))
        if on_a != on_b:
            raise Differs(f"the mount says {on_a}, the copy {on_b}")
    note_listings(run)


def is_permitted(run, o, result):
    permitted = any(name == o["op"] and code == result and when(run, o) for name, code, when, _why in PERMITTED)
    run.skipped += permitted
    return permitted


def apply_open(run, o, uid):
    if o["k"] in run.slots:
        run.slots.pop(o["k"]).close()
    on_a = as_user(uid, lambda: os.open(run.a(o["p"]), o["f"], o["m"]))
    if is_permitted(run, o, on_a[0]):
        return
    on_b = as_user(uid, lambda: os.open(run.b(o["p"]), o["f"], o["m"]))
    if on_a[0] != on_b[0]:
        for result in (on_a, on_b):
            if result[0] == "ok":
                os.close(result[1])
        raise Differs(f"the mount says {on_a[0]}, the copy {on_b[0]}")
    if on_a[0] != "ok":
        return
    slot = Slot(on_a[1], on_b[1], stat.S_ISDIR(os.fstat(on_b[1]).st_mode))
    run.slots[o["k"]] = slot
    if slot.directory:
        slot.always = set(os.listdir(slot.b))
        slot.ever = set(slot.always)


# A listing under way: a name that was there all the time is given once, any other at most once, and only if it was there.


def note_listings(run):
    for slot in run.slots.values():
        if slot.directory and slot.always is not None:
            now = set(os.listdir(b"/proc/self/fd/%d" % slot.b))
            slot.always &= now
            slot.ever |= now


def list_part(run, slot, o):
    if not slot.directory or slot.always is None:
        return
    note_listings(run)
    try:
        part = getdents(slot.a, o["l"])
    except OSError as cause:
        # The directory itself is gone.
        if cause.errno != errno.ENOENT or os.fstat(slot.b).st_nlink > 0:
            raise Differs(f"listing: {cause}") from cause
        slot.always = None
        return
    slot.listed += [name for name, _, _ in part if name not in (b".", b"..")]
    if part:
        return
    listed, names = slot.listed, set(slot.listed)
    always, ever, slot.always = slot.always, slot.ever, None
    if len(names) != len(listed):
        raise Differs(f"listed twice: {sorted(n for n in names if listed.count(n) > 1)}")
    if not always <= names:
        raise Differs(f"not listed: {sorted(always - names)[:5]}")
    if not names <= ever:
        raise Differs(f"listed but never there: {sorted(names - ever)[:5]}")


# ------------------------------------------------------------------------------------------------ whole trees

TYPES = {stat.S_IFDIR: 4, stat.S_IFREG: 8, stat.S_IFLNK: 10, stat.S_IFIFO: 1, stat.S_IFCHR: 2, stat.S_IFBLK: 6}


def names_of(path, checked):
    """Names of a directory; of the mount also that d_ino and d_type are what stat says, cold, and nothing comes twice."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = []
        while part := getdents(fd, 32768):
            found += part
    finally:
        os.close(fd)
    if checked:
        if len({name for name, _, _ in found}) != len(found):
            raise Differs(f"{path!r} lists a name twice")
        for name, ino, kind in found:
            # The kernel keeps a listing as it was read: `..` of a directory that has been moved is then of before.
            if name == b"..":
                continue
            s = os.lstat(os.path.join(path, name))
            if ino != s.st_ino:
                raise Differs(f"{path!r}/{name!r}: d_ino {ino}, st_ino {s.st_ino}")
            if kind != TYPES.get(stat.S_IFMT(s.st_mode), kind):
                raise Differs(f"{path!r}/{name!r}: d_type {kind}, mode {oct(s.st_mode)}")
    return sorted(name for name, _, _ in found if name not in (b".", b".."))


def facts(path, s):
    found = list(summary(s))
    found.append({n: os.getxattr(path, n, follow_symlinks=False) for n in os.listxattr(path, follow_symlinks=False)})
    if stat.S_ISLNK(s.st_mode):
        found.append(os.readlink(path))
    elif stat.S_ISREG(s.st_mode):
        with open(path, "rb") as file:
            found.append(hashlib.file_digest(file, "sha1").hexdigest())
    return found


def compare(run, prefix):
    pending, seen, owners = [b""], {}, {}
    while pending:
        at = pending.pop()
        a, b = (os.path.join(side, at) if at else side for side in (run.mnt, run.copy))
        on_a, on_b = facts(a, os.lstat(a)), facts(b, os.lstat(b))
        if on_a != on_b:
            raise Differs(f"{prefix}{at!r}: the mount has {on_a}, the copy {on_b}")
        # What goes through a FIFO changes its time in the kernel alone.
        if not stat.S_ISFIFO(os.lstat(a).st_mode):
            compare_times(run, prefix, at, os.lstat(a).st_mtime_ns, os.lstat(b).st_mtime_ns)
        key, ino = identity(b), os.lstat(a).st_ino
        if run.inos.setdefault(key, ino) != ino:
            raise Differs(f"{prefix}{at!r}: st_ino {ino}, was {run.inos[key]}")
        if owners.setdefault(ino, key) != key:
            raise Differs(f"{prefix}{at!r}: st_ino {ino} is also another object's")
        seen[key] = ino
        if stat.S_ISDIR(os.lstat(b).st_mode):
            names = names_of(a, True)
            if names != names_of(b, False):
                raise Differs(f"{prefix}{at!r} holds {names}, in the copy {names_of(b, False)}")
            pending += [os.path.join(at, name) for name in names]


def compare_times(run, prefix, at, a, b):
    """A time set by hand, or never, is the same; one of a change is not older than the run."""
    if a == b or (b >= run.start and run.start <= a <= time.time_ns()):
        return
    raise Differs(f"{prefix}{at!r}: mtime {a} on the mount, {b} on the copy, the run began at {run.start}")


# ------------------------------------------------------------------------------------------------ random operations

ACLS = [
    "02000000" "01000700ffffffff" "02000500e8030000" "04000500ffffffff" "10000700ffffffff" "20000000ffffffff",
    "02000000" "01000600ffffffff" "02000600e8030000" "04000400ffffffff" "10000600ffffffff" "20000400ffffffff",
]
MODES = [0o644, 0o600, 0o755, 0o700, 0o777, 0o4755, 0o2755, 0o6711, 0o1777, 0o2775, 0o444, 0, 0o666]
SIZES = [0, 1, 100, 4095, 4096, 4097, 8192, 10_000, 65_536, 131_072, 131_073, 200_000]
OPEN_FLAGS = [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR]
WEIGHTS = {
    "create": 10, "write": 8, "read": 4, "truncate": 4, "mkdir": 7, "rmdir": 6, "unlink": 9, "rename": 16, "link": 7,
    "symlink": 4, "readlink": 1, "mknod": 4, "chmod": 5, "chown": 5, "utimes": 5, "touch": 2, "stat": 3, "access": 1,
    "setxattr": 5, "getxattr": 2, "listxattr": 1, "removexattr": 3, "tmpfile": 2, "list": 2, "open": 14, "close": 4,
    "fwrite": 8, "fappend": 3, "fread": 4, "ftruncate": 3, "fstat": 4, "fchmod": 2, "fchown": 2, "futimes": 2,
    "fsetxattr": 2, "flistxattr": 1, "fsync": 1, "fallocate": 4, "lseek": 4, "copyrange": 4, "mmapwrite": 3,
    "mmapread": 2, "linkfd": 2, "getdents": 10, "forget": 1,
}  # fmt: skip


class Generator:
    def __init__(self, run, seed):
        self.run, self.r = run, random.Random(seed)
        self.paths, self.directories, self.age = [""], [""], 0

    def walk(self):
        self.paths, self.directories = [""], [""]
        for top, folders, files in os.walk(self.run.copy):
            at = os.path.relpath(top, self.run.copy)
            for name in sorted(folders + files):
                path = (name if at == b"." else os.path.join(at, name)).decode("latin1")
                self.paths.append(path)
                if stat.S_ISDIR(os.lstat(os.path.join(top, name)).st_mode):
                    self.directories.append(path)
        self.paths.sort()
        self.directories.sort()
        self.focus = self.r.choice(self.directories)

    def any(self):
        r = self.r.random()
        if r < 0.3:
            inside = [p for p in self.paths if p.startswith(self.focus) and p != ""]
            if inside:
                return self.r.choice(inside)
        return self.r.choice(self.paths) if r < 0.93 else self.free()

    def free(self):
        name = self.r.choice(["a", "b", "c", "d", "new", "\xe9", "x" * 255, "f1", "wide-0007", ".wh.a"])
        folder = self.r.choice([self.focus, self.r.choice(self.directories)])
        return os.path.join(folder, name) if self.r.random() < 0.98 else os.path.join(folder, "x" * 256)

    def time(self):
        return self.r.choice([0, 1_500_000_000_123_456_789, -1_000_000_001, 4_294_967_296_000_000_001, 1_000_000_007])

    def next(self):
        r = self.r
        if self.age == 0:
            self.walk()
            self.age = 15
        self.age -= 1
        name = r.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        o = {"op": name}
        if r.random() < 0.12:
            o["uid"] = 1000
        if name in ON_SLOTS:
            # Only what is open can be meant.
            o["k"] = r.choice(sorted(self.run.slots)) if self.run.slots else 0
        xattr = ["user.a", "user.b", "user.note", "user.dir", "trusted.t", "security.capability"]
        # Names that overlays use: programs may have them too.
        xattr += ["user.overlay.opaque", "trusted.overlay.overlay.redirect", "user.imgfs.origin", "user.containers.override_stat"]
        if name in ("rmdir", "rename", "unlink"):
            # The root of a mount is busy, that of the copy is not.
            o["p"] = self.any() or self.focus or "etc"
        if name == "create":
            extra = r.choice([0, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_NOFOLLOW])
            o |= {"p": r.choice([self.free, self.any])(), "f": os.O_CREAT | r.choice(OPEN_FLAGS) | extra}
            o |= {"m": r.choice(MODES), "l": r.choice(SIZES)}
        elif name in ("write", "fwrite", "fappend", "mmapwrite"):
            o |= {"o": r.choice(SIZES), "l": r.choice(SIZES[1:8]), "s": r.randrange(1000)}
            if name == "write":
                o |= {"p": self.any(), "f": r.choice([os.O_WRONLY, os.O_RDWR]) | r.choice([0, os.O_APPEND, os.O_TRUNC])}
        elif name in ("read", "fread"):
            o |= {"p": self.any(), "o": r.choice(SIZES), "l": r.choice(SIZES)}
        elif name in ("truncate", "ftruncate"):
            o |= {"p": self.any(), "l": r.choice(SIZES)}
        elif name in ("mkdir", "mknod"):
            o |= {"p": r.choice([self.free, self.free, self.any])(), "m": r.choice(MODES), "dev": 0}
            if name == "mknod":
                o["m"] |= r.choice([stat.S_IFIFO, stat.S_IFIFO, stat.S_IFREG, stat.S_IFCHR])
                o["dev"] = os.makedev(1, 3) if stat.S_ISCHR(o["m"]) and r.random() < 0.8 else 0
        elif name == "rmdir":
            o["p"] = (r.choice(self.directories) if r.random() < 0.9 else "") or o["p"]
        elif name == "rename":
            flags = r.choices([0, NOREPLACE, EXCHANGE, WHITEOUT, 3], [10, 3, 5, 1, 0.3])[0]
            o |= {"to": r.choice([self.free, self.any])() or "etc", "f": flags}
        elif name == "link":
            o |= {"p": self.any(), "to": r.choice([self.free, self.free, self.any])()}
        elif name == "linkfd":
            o["to"] = self.free()
        elif name == "symlink":
            o |= {"p": r.choice([self.free, self.any])(), "t": r.choice(["a", "../a", "/proc/nowhere", "\xff", "t" * 300])}
        elif name in ("chmod", "fchmod"):
            o |= {"p": self.any(), "m": r.choice(MODES)}
        elif name in ("chown", "fchown"):
            o |= {"p": self.any(), "u": r.choice([-1, 0, 1000, 70_000]), "g": r.choice([0, 1000, 70_000])}
            # chown(-1, -1) takes setuid away elsewhere; FUSE's SETATTR cannot say so.
        elif name in ("utimes", "futimes"):
            o |= {"p": self.any(), "a": self.time(), "t": self.time()}
        elif name in ("setxattr", "fsetxattr"):
            o |= {"p": self.any(), "n": r.choice(xattr), "f": r.choice([0, 0, 0, 1, 2])}
            o["v"] = r.choice(["", "value", "\x00\xff", "v" * 900])
            if r.random() < 0.25:
                o["n"] = r.choice(["system.posix_acl_default", "system.posix_acl_access"])
                o["v"] = bytes.fromhex(r.choice(ACLS)).decode("latin1")
            elif o["n"] == "security.capability":
                o["v"] = bytes.fromhex("0100000200240000000000000000000000000000").decode("latin1")
        elif name in ("getxattr", "removexattr"):
            o |= {"p": self.any(), "n": r.choice([*xattr, "system.posix_acl_default", "system.posix_acl_access"])}
        elif name == "tmpfile":
            o |= {"p": r.choice(self.directories), "m": r.choice(MODES), "to": r.choice([None, self.free()])}
        elif name == "open":
            flags = r.choice(OPEN_FLAGS) | r.choice([0, 0, 0, os.O_TRUNC, os.O_APPEND, os.O_CREAT])
            o |= {"k": r.randrange(8), "p": self.any(), "f": flags | os.O_NONBLOCK, "m": r.choice(MODES)}
            if r.random() < 0.25:
                o |= {"p": r.choice(self.directories), "f": os.O_RDONLY}
        elif name == "fsync":
            o["f"] = r.randrange(2)
        elif name == "fallocate":
            modes = [0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE]
            o |= {"f": r.choice(modes), "o": r.choice(SIZES), "l": r.choice(SIZES)}
        elif name == "lseek":
            o |= {"o": r.choice(SIZES), "w": r.choice([os.SEEK_DATA, os.SEEK_HOLE])}
        elif name == "copyrange":
            o["k2"] = r.choice(sorted(self.run.slots)) if self.run.slots else 0
            o |= {"o": r.choice(SIZES), "o2": r.choice(SIZES), "l": r.choice(SIZES)}
        elif name == "getdents":
            o["l"] = r.choice([300, 1000, 32768])
        elif name == "access":
            o |= {"p": self.any(), "m": r.randrange(8)}
        elif "p" not in o:
            o["p"] = r.choice(self.directories) if name == "list" else self.any()
        return o


# ------------------------------------------------------------------------------------------------ running and shrinking


def text_of(o):
    return json.dumps(o)


def replay(make, operations):
    """What differs, and after which operation; None when nothing does."""
    run = make()
    try:
        for i, o in enumerate(operations):
            try:
                apply(run, o)
            except Differs as cause:
                return i, str(cause)
        try:
            run.unmount()
            run.mount()
            compare(run, "after remount: ")
        except Differs as cause:
            return len(operations), str(cause)
        return None
    finally:
        run.clean()


def kind_of(cause):
    """What two differences of one cause have in common."""
    return re.sub(r"\d+|b'.*?'", "#", cause)[:40]


def shrink(make, operations, cause, seconds):
    """Leaves out what is not needed for a difference of this kind, until the time is up."""
    deadline = time.time() + seconds
    size = max(1, len(operations) // 2)
    while time.time() < deadline:
        i = 0
        while i < len(operations) - (size > 1 or 0) and time.time() < deadline:
            shorter = operations[:i] + operations[i + size :]
            found = replay(make, shorter) if shorter else None
            if found is None or kind_of(found[1]) != kind_of(cause):
                i += size
            else:
                operations = shorter[: found[0] + 1]
        if size == 1:
            break
        size //= 2
    return operations


def random_run(make, seed, count):
    run, done = make(), []
    r = random.Random(seed + 1)
    try:
        compare(run, "before anything: ")
        generator = Generator(run, seed)
        try:
            for i in range(count):
                o = generator.next()
                if i % 150 == 149:
                    o = {"op": r.choice(["check", "check", "remount", "crash"])}
                done.append(o)
                apply(run, o)
            done += [{"op": "check"}, {"op": "remount"}]
            for o in done[-2:]:
                apply(run, o)
        except Differs as cause:
            return done, str(cause), run.skipped
        return None, "", run.skipped
    finally:
        run.clean()


def main(arguments):
    kind, cli, image, folder = arguments[:4]
    os.umask(0o022)
    try:
        os.setgroups([])
    except PermissionError:
        pass  # In a user namespace there are none to drop.
    if kind == "replay":
        with open(arguments[4]) as file:
            operations = json.load(file)
        found = replay(lambda: Run(cli, image, folder, arguments[5:]), operations)
        print("nothing differs" if found is None else f"operation {found[0]}: {found[1]}")
        return 0 if found is None else 1
    seed, count, options = int(arguments[4]), int(arguments[5]), arguments[6:]

    def make():
        return Run(cli, image, folder, options)

    done, cause, skipped = random_run(make, seed, count)
    if done is None:
        print(f"seed {seed}: {count} operations agree, {skipped} in permitted ways not")
        return 0
    print(f"seed {seed}, after {len(done)} operations: {cause}\nthe last was {text_of(done[-1])}", flush=True)
    shortest = shrink(make, done, cause, float(os.environ.get("IMGFS_SHRINK", "60")))
    found = replay(make, shortest)
    print(f"shortest list found, {len(shortest)} operations ({found}):")
    print("[" + ",\n ".join(text_of(o) for o in shortest[-40:]) + "]")
    with open(os.path.join(os.path.dirname(folder), f"differ-{seed}.json"), "w") as file:
        json.dump(shortest, file)
        print(f"all of them in {file.name}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
