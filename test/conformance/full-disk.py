"""Fills a small upper and goes on: full-disk.py MOUNT. Whatever fails is ENOSPC, and changes nothing that shows.

The room of a file that has no name any more is free when it is closed, and not before.
"""
import ctypes
import hashlib
import os
import stat
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
mount = sys.argv[1]
IMAGE_INOS = 2**33
EXCHANGE = 2


def tree():
    found = {}
    for top, folders, files in os.walk(mount):
        for path in (os.path.join(top, name) for name in folders + files):
            s = os.lstat(path)
            is_file = stat.S_ISREG(s.st_mode)
            content = None
            if is_file and s.st_size < 10_000:
                with open(path, "rb") as f:
                    content = hashlib.sha1(f.read()).digest()
            xattrs = {n: os.getxattr(path, n, follow_symlinks=False) for n in os.listxattr(path, follow_symlinks=False)}
            size = s.st_size if is_file else 0
            found[path] = (s.st_mode, s.st_uid, s.st_gid, s.st_nlink, size, s.st_mtime_ns, s.st_ino, content, xattrs)
    return found


def open_to_write(path):
    os.close(os.open(path, os.O_WRONLY))


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def exchange(a, b):
    call(libc.renameat2(-100, os.fsencode(a), -100, os.fsencode(b), EXCHANGE))


def with_file(path, action):
    fd = os.open(path, os.O_RDWR)
    try:
        action(fd)
    finally:
        os.close(fd)


def refused(action, *arguments):
    try:
        action(*arguments)
    except OSError as cause:
        assert cause.errno == 28, (cause, arguments)
        return True
    return False


def at(name):
    return f"{mount}/{name}"


# What is there before the disk is full: whiteouts, and a file and a directory of the upper.
os.unlink(at("other/far"))
os.rmdir(at("empty"))
os.mkdir(at("up"))
with open(at("up/file"), "wb") as f:
    f.write(b"x" * 10_000)
os.chmod(at("links/three"), 0o600)
with open(at("fill"), "wb", buffering=0) as fill:
    while not refused(fill.write, b"x" * 65536):
        pass
    while not refused(fill.write, b"x"):
        pass
made = 0
while not refused(lambda: open(at(f"n{made}"), "x").close()):
    made += 1
before = tree()
files = [p for p, s in before.items() if stat.S_ISREG(s[0]) and s[6] < IMAGE_INOS and len(os.path.basename(p)) < 200]
files = [p for p in files if p not in (at("links/three"), at("links/from-above"))]
tries = 0
for path in files:
    for action, *rest in (
        (open_to_write,), (os.chmod, 0o600), (os.truncate, 1), (os.truncate, 1 << 20), (os.rename, path + "x"), (os.unlink,),
        (os.setxattr, "user.q", b"x" * 900), (os.link, at("newlink")), (os.link, at("other/far")), (exchange, at("up/file")),
    ):  # fmt: skip
        assert refused(action, path, *rest), (action, path)
        tries += 1
for action, *arguments in (
    (os.mkdir, "d"), (os.symlink, "t", "s"), (os.mkfifo, "p"),
    # Over whiteouts.
    (os.mkdir, "empty"), (os.mkdir, "other/far"), (os.symlink, "t", "empty"), (os.mkfifo, "other/far"),
):  # fmt: skip
    assert refused(action, *arguments[:-1], at(arguments[-1])), (action, arguments)
    tries += 1
for action, *arguments in (
    # Directories of the image, moved: to a free name, over a whiteout, into one of the upper; and exchanged.
    (os.rename, "marked", "marked2"), (os.rename, "marked", "empty"), (os.rename, "marked", "up/marked"), (exchange, "marked", "up"),
    (os.rename, "etc/deep/er", "up/er"), (os.rename, "links/sym", "up/sym"),
):  # fmt: skip
    assert refused(action, *(at(name) for name in arguments)), (action, arguments)
    tries += 1
for action, *arguments in (
    (os.open, at("up"), os.O_TMPFILE | os.O_RDWR),
    (with_file, at("up/file"), lambda fd: os.posix_fallocate(fd, 0, 1 << 20)),
    (with_file, at("up/file"), lambda fd: os.pwrite(fd, b"y" * 65536, 1 << 20)),
    (os.chmod, at("marked"), 0o700),
    (os.lchown, at("links/sym"), 3, 3),
    (os.chmod, at("fifo"), 0o600),
    (os.utime, at("etc/deep"), (1, 1)),
):  # fmt: skip
    assert refused(action, *arguments), (action, arguments)
    tries += 1
after = tree()
differing = [p for p in before.keys() | after.keys() if before.get(p) != after.get(p)]
# A write that fits in part is a short one, and a file that was written to has new times.
assert set(differing) <= {at("up/file")}, f"a refused change shows: {differing}"
assert after[at("up/file")][4:5] == before[at("up/file")][4:5]
with open(at("fill"), "rb") as fill:
    os.unlink(fill.name)
    assert os.fstat(fill.fileno()).st_nlink == 0 and fill.read(3) == b"xxx"
    assert os.statvfs(mount).f_bavail < 100, "a file without a name that is open takes its room"
for _ in range(1000):
    if os.statvfs(mount).f_bavail > 300:
        break
    time.sleep(0.01)
else:
    raise AssertionError("the last close frees the room")
for i in range(made):
    os.unlink(at(f"n{i}"))
for path in files[:20]:
    open_to_write(path)
os.rename(at("marked"), at("empty"))
os.link(at("links/one"), at("other/far"))
os.close(os.open(at("up"), os.O_TMPFILE | os.O_RDWR))
assert os.stat(at("links/one")).st_nlink == 3
print(tries)
