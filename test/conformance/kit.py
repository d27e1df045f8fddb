"""What conformance cases are made of: the registry, system calls that Python lacks, and the checks.

A case is one named function. It runs in an empty folder of its own, which is the working directory, so all its paths are
relative. What it does before its first `yield` is its setup: those objects may have been written in a plain directory,
be in the image below, or have been copied up, by the time the rest runs. A second `yield REMOUNT` (or `KILL`) ends the
mount and mounts anew; then nothing may be open. A case without a `yield` has no setup.
"""
import contextlib
import ctypes
import errno
import fcntl
import os
import random
import stat
import struct
import time
from errno import *  # noqa: F403  cases name errnos as they are

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = -100, 0x100, 0x400, 0x1000
AT_EACCESS = 0x200
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO_RANGE, INSERT = 1, 2, 8, 0x10, 0x20
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
REMOUNT, KILL = "remount", "kill"

# ------------------------------------------------------------------------------------------------ the registry

CASES = {}


class Case:
    def __init__(self, run, root, reads, read_only):
        self.run, self.name = run, run.__name__
        self.topic = run.__module__.split(".")[-1]
        self.root, self.reads, self.read_only = root, reads, read_only


def case(run=None, *, root=False, reads=False, read_only=False):
    """Registers a case. `root`: it needs root. `reads`: after its setup it changes nothing, so that it runs on a
    read-only mount, too. `read_only`: it is about what such a mount refuses, and runs on one alone."""

    def register(function):
        assert function.__name__ not in CASES, f"two cases are called {function.__name__}"
        CASES[function.__name__] = Case(function, root, reads, read_only)
        return function

    return register if run is None else register(run)


# Set by the runner: where the case's folder will be when its body runs; and whether objects start in an image. Then
# a copy-up shows by the ctime of the copy and of its directory, which nobody can set back (times.py has a case of it).
place = {"final": None, "copies": False}


def final(name=""):
    """Absolute path that `name` will have in the mount, also when asked during the setup."""
    return os.path.join(place["final"], name)


# ------------------------------------------------------------------------------------------------ checks


def same(found, expected, what=""):
    if found != expected:
        raise AssertionError(f"{what or 'value'}: {found!r} in place of {expected!r}")


def true(holds, what):
    if not holds:
        raise AssertionError(what)


def refused(codes, action, *arguments, **named):
    """The call must fail with the errno, or one of several."""
    codes = (codes,) if isinstance(codes, int) else codes
    wanted = " or ".join(errno.errorcode[code] for code in codes)
    call_text = f"{getattr(action, '__name__', action)}{arguments!r:.200}"
    try:
        result = action(*arguments, **named)
    except OSError as cause:
        if cause.errno not in codes:
            raise AssertionError(f"{errno.errorcode.get(cause.errno)} in place of {wanted}: {call_text}") from None
        return
    raise AssertionError(f"success ({result!r:.80}) in place of {wanted}: {call_text}")


def look(name):
    """Everything of an object but atime and, of a directory, its size, that may be compared before and after."""
    s = os.lstat(name)
    found = {
        "mode": oct(s.st_mode), "uid": s.st_uid, "gid": s.st_gid, "nlink": s.st_nlink, "ino": s.st_ino,
        "rdev": s.st_rdev, "mtime": s.st_mtime_ns, "ctime": s.st_ctime_ns,
    }  # fmt: skip
    if stat.S_ISREG(s.st_mode):
        found["size"] = s.st_size
        with contextlib.suppress(PermissionError):
            found["data"] = get(name)
    elif stat.S_ISLNK(s.st_mode):
        found["target"] = os.readlink(name)
    elif stat.S_ISDIR(s.st_mode):
        with contextlib.suppress(PermissionError):
            found["names"] = sorted(os.listdir(name), key=os.fsencode)
    with contextlib.suppress(OSError):
        found["xattrs"] = {
            key: os.getxattr(name, key, follow_symlinks=False) for key in os.listxattr(name, follow_symlinks=False)
        }
    return found


@contextlib.contextmanager
def unchanged(*names):
    """What is done within changes nothing of these objects."""
    before = {name: look(name) for name in names}
    yield
    for name, was in before.items():
        now = look(name)
        if place["copies"]:
            del was["ctime"]
        differ = [f"{key} {was.get(key)!r:.90} became {now.get(key)!r:.90}" for key in was if was[key] != now.get(key)]
        true(not differ, f"{name}: {', '.join(differ)}")


def tick():
    """Long enough for a coarse clock to show another time."""
    time.sleep(0.012)


@contextlib.contextmanager
def touched(expected):
    """Of each object exactly these times change: letters of m and c, and after a slash also of a: "mc/". A key may be a
    descriptor."""

    def times(key):
        s = os.fstat(key) if isinstance(key, int) else os.lstat(key)
        return {"m": s.st_mtime_ns, "c": s.st_ctime_ns, "a": s.st_atime_ns}

    before = {key: times(key) for key in expected}
    tick()
    yield
    for key, letters in expected.items():
        now = times(key)
        judged = "mca" if "/" in letters else "mc"
        for letter in judged:
            if letter == "c" and "c" not in letters and place["copies"]:
                continue
            changed = now[letter] != before[key][letter]
            wanted = letter in letters
            true(changed == wanted, f"{letter}time of {key} {'changed' if changed else 'did not change'}")
            true(letter != "c" or now["c"] >= before[key]["c"], f"ctime of {key} went back")


def mode_of(name):
    return stat.S_IMODE(os.lstat(name).st_mode)


def links(name):
    return os.lstat(name).st_nlink


def owner(name):
    s = os.lstat(name)
    return s.st_uid, s.st_gid


def ino(name):
    return os.lstat(name).st_ino


def exists(name):
    return os.path.lexists(name)


def names(folder="."):
    """Names of a directory, sorted, as bytes turn into them; a name twice is an error."""
    listed = os.listdir(folder)
    true(len(listed) == len(set(listed)), f"a name is listed twice in {folder}")
    return sorted(listed)


def absent(*paths):
    for path in paths:
        refused(ENOENT, os.lstat, path)
        true(os.path.basename(path) not in os.listdir(os.path.dirname(path) or "."), f"{path} is still listed")


# ------------------------------------------------------------------------------------------------ making and reading


def put(name, data=b"", mode=0o644, uid=None, gid=None):
    """A new file, or new content of one."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        done = 0
        while done < len(data):
            done += os.write(fd, data[done:])
        if uid is not None:
            os.fchown(fd, uid, uid if gid is None else gid)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)
    return name


def folder(name, mode=0o755, uid=None, gid=None):
    os.mkdir(name)
    if uid is not None:
        os.chown(name, uid, uid if gid is None else gid)
    os.chmod(name, mode)
    return name


def get(name):
    with opened(name, os.O_RDONLY) as fd:
        return everything(fd)


def everything(fd):
    parts, at = [], 0
    while part := os.pread(fd, 1 << 20, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


@contextlib.contextmanager
def opened(name, flags, mode=0o600, **named):
    fd = os.open(name, flags, mode, **named)
    try:
        yield fd
    finally:
        os.close(fd)


def fifo(name, mode=0o644):
    os.mkfifo(name)
    os.chmod(name, mode)


def noise(size, seed=1):
    """Bytes without a pattern that are always the same."""
    return random.Random(seed).randbytes(size)


# ------------------------------------------------------------------------------------------------ users

ALICE, BOB, CAROL = 12001, 12002, 12003
TEAM, CLUB = 13001, 13002


@contextlib.contextmanager
def user(uid, gid=None, *groups):
    """Runs what is within as another user, whose group has his number unless given, with these further groups."""
    gid = uid if gid is None else gid
    kept = os.getgroups()
    os.setgroups(groups)
    os.setresgid(gid, gid, 0)
    os.setresuid(uid, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(kept)


@contextlib.contextmanager
def umask(value):
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


# ------------------------------------------------------------------------------------------------ system calls


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def path(name):
    return name if name is None else os.fsencode(name)


def renameat2(old, new, flags=0):
    return call(libc.renameat2(AT_FDCWD, path(old), AT_FDCWD, path(new), flags))


def linkat(old_fd, old, new, flags=0):
    return call(libc.linkat(old_fd, path(old), AT_FDCWD, path(new), flags))


def link_descriptor(fd, new):
    return linkat(AT_FDCWD, f"/proc/self/fd/{fd}", new, AT_SYMLINK_FOLLOW)


def fallocate(fd, mode, offset, length):
    return call(libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def truncate(name, length):
    return call(libc.truncate(path(name), ctypes.c_long(length)))


def access(name, mode, flags=0):
    return call(libc.faccessat(AT_FDCWD, path(name), mode, flags))


def utimensat(name, atime, mtime, flags=0):
    """Each time is (seconds, nanoseconds or UTIME_NOW or UTIME_OMIT), or both are None for now."""
    buffer = None if atime is None else struct.pack("<qqqq", *atime, *mtime)
    return call(libc.utimensat(AT_FDCWD, path(name), buffer, flags))


def futimens(fd, atime, mtime):
    buffer = None if atime is None else struct.pack("<qqqq", *atime, *mtime)
    return call(libc.futimens(fd, buffer))


OMIT, NOW = (0, UTIME_OMIT), (0, UTIME_NOW)


def statx(name, flags=AT_SYMLINK_NOFOLLOW, dirfd=AT_FDCWD):
    """Fields of statx(2): mask, attributes, and times as (seconds, nanoseconds)."""
    buffer = ctypes.create_string_buffer(256)
    call(libc.statx(dirfd, path(name), flags, 0xFFF, buffer))
    mask, _blksize, attributes, nlink, uid, gid, mode = struct.unpack_from("<IIQIIIH", buffer, 0)
    inode, size, blocks, _ = struct.unpack_from("<QQQQ", buffer, 32)
    moments = [struct.unpack_from("<qI", buffer, 64 + 16 * i) for i in range(4)]
    return {
        "mask": mask, "attributes": attributes, "nlink": nlink, "uid": uid, "gid": gid, "mode": mode, "ino": inode,
        "size": size, "blocks": blocks, "atime": moments[0], "btime": moments[1], "ctime": moments[2],
        "mtime": moments[3],
    }  # fmt: skip


STATX_BTIME = 0x800


def getdents(fd, size=32768):
    """Entries as (name, ino, type, position after it); an empty list at the end."""
    buffer = ctypes.create_string_buffer(size)
    got = call(libc.syscall(217 if os.uname().machine == "x86_64" else 61, fd, buffer, size))
    at, found = 0, []
    while at < got:
        inode, offset, length, kind = struct.unpack_from("<QqHB", buffer.raw, at)
        name = buffer.raw[at + 19 : at + length].split(b"\0")[0]
        found.append((name, inode, kind, offset))
        at += length
    return found


def setxattr(name, key, value, flags=0):
    os.setxattr(name, key, value, flags, follow_symlinks=False)


def getxattr(name, key):
    return os.getxattr(name, key, follow_symlinks=False)


def listxattr(name):
    return sorted(os.listxattr(name, follow_symlinks=False))


def removexattr(name, key):
    os.removexattr(name, key, follow_symlinks=False)


# struct flock of 64-bit machines: type, whence, start, length, pid.
F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38


def lock(fd, command, kind, start=0, length=0):
    """(type, start, length, pid) of what the call leaves: of the lock that is in the way, after a GETLK."""
    packed = fcntl.fcntl(fd, command, struct.pack("<hhiqqii", kind, os.SEEK_SET, 0, start, length, 0, 0))
    kind, _, _, start, length, pid, _ = struct.unpack("<hhiqqii", packed)
    return kind, start, length, pid


def in_child(action):
    """Runs it in a child process, and raises here what it raises there."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = b""
        try:
            action()
        except BaseException as cause:
            text = f"in a child: {type(cause).__name__} {cause}".encode()
        os.write(theirs, text[:4000])
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    if text:
        raise AssertionError(text.decode())
