"""Fills a small upper and goes on: full-disk.py MOUNT. Whatever fails is ENOSPC, and changes nothing that shows.

The room of a file that has no name any more is free when it is closed, and not before.
"""
import os
import stat
import sys
import time

mount = sys.argv[1]
IMAGE_INOS = 2**33


def tree():
    found = {}
    for top, folders, files in os.walk(mount):
        for path in (os.path.join(top, name) for name in folders + files):
            s = os.lstat(path)
            size = s.st_size if stat.S_ISREG(s.st_mode) else 0
            found[path] = (s.st_mode, s.st_uid, s.st_gid, s.st_nlink, size, s.st_mtime_ns, s.st_ino)
    return found


def open_to_write(path):
    os.close(os.open(path, os.O_WRONLY))


def refused(action, *arguments):
    try:
        action(*arguments)
    except OSError as cause:
        assert cause.errno == 28, (cause, arguments)
        return True
    return False


with open(f"{mount}/fill", "wb", buffering=0) as fill:
    while not refused(fill.write, b"x" * 65536):
        pass
made = 0
while not refused(lambda: open(f"{mount}/n{made}", "x").close()):
    made += 1
before = tree()
files = [p for p, s in before.items() if stat.S_ISREG(s[0]) and s[6] < IMAGE_INOS and len(os.path.basename(p)) < 200]
tries = 0
for path in files:
    for action, *rest in (
        (open_to_write,), (os.chmod, 0o600), (os.truncate, 1), (os.rename, path + "x"), (os.unlink,),
        (os.setxattr, "user.q", b"x" * 900),
    ):  # fmt: skip
        assert refused(action, path, *rest), (action, path)
        tries += 1
for action, *arguments in ((os.mkdir, "d"), (os.symlink, "t", "s"), (os.mkfifo, "p")):
    assert refused(action, *arguments[:-1], f"{mount}/{arguments[-1]}")
assert tree() == before, "a refused change shows"
with open(f"{mount}/fill", "rb") as fill:
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
    os.unlink(f"{mount}/n{i}")
for path in files[:20]:
    open_to_write(path)
print(tries)
