"""What an upper directory costs, counted from the disk by the rule in docs/quota.md alone; what its mount says; and the
mount's control socket. Shares nothing with what is tested.
"""
import json
import os
import socket
import stat
import struct
import time

BLOCK = 4096
COPIED_MARKS = {
    "user.imgfs.copied", "user.imgfs.redirect", "trusted.overlay.redirect", "user.overlay.redirect",
    "trusted.overlay.origin", "user.overlay.origin",
}  # fmt: skip
OURS = ("user.imgfs.", "user.overlay.", "user.containers.", "user.fuseoverlayfs.", "trusted.overlay.")
STAND_IN = "user.containers.override_stat"


def blocks(start, end):
    """Blocks that bytes [start, end) lie in."""
    return set(range(start // BLOCK, -(-end // BLOCK)))


def data_blocks(fd):
    found, at = set(), 0
    while True:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return found
        at = os.lseek(fd, start, os.SEEK_HOLE)
        found |= blocks(start, at)


def noted_blocks(path):
    found = set()
    try:
        value = os.getxattr(path, "user.imgfs.allocated", follow_symlinks=False)
    except OSError:
        return found
    for start, end in struct.iter_unpack("<QQ", value):
        assert start < end, path
        found |= set(range(start, end))
    return found


def charged_blocks(path):
    """Of a regular file of the upper."""
    if lacks_data(path):
        return set()
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return data_blocks(fd) | noted_blocks(path)
    finally:
        os.close(fd)


def origin(path):
    try:
        return os.getxattr(path, "user.imgfs.origin", follow_symlinks=False).decode()
    except OSError:
        return None


def lacks_data(path):
    """The origin of a copy of metadata alone ends in a word, and one of them holds while the kernel's mark is there."""
    word = (origin(path) or "").split(" ")[-1]
    if word == "metacopy":
        return "trusted.overlay.metacopy" in os.listxattr(path)
    return word == "meta"


def xattr_cost(path):
    size, base = 0, 4096
    for name in os.listxattr(path, follow_symlinks=False):
        value = os.getxattr(path, name, follow_symlinks=False)
        if name == "user.imgfs.base-xattrs":
            base = max(base, int(value))
        elif not name.startswith((*OURS, "system.posix_acl_")):
            size += len(os.fsencode(name)) + len(value)
    return BLOCK * max(0, -(-(size - base) // BLOCK))


def is_stand_in(path, size):
    if size != 0:
        return False
    try:
        value = os.getxattr(path, STAND_IN, follow_symlinks=False).decode()
    except OSError:
        return False
    return value.split(":")[3:] not in ([], ["file"])


class Tally:
    """Counts the upper directory and what its index alone holds."""

    def __init__(self, upper):
        self.bytes = self.inodes = 0
        self.met = set()
        self.slack = []
        index = os.path.join(f"{upper}.work", "index")
        self.indexed = {os.lstat(os.path.join(index, name)).st_ino for name in os.listdir(index)}
        self.bytes += xattr_cost(upper)
        self.folder(upper)
        for name in os.listdir(index):
            self.other(os.path.join(index, name), os.lstat(os.path.join(index, name)))

    def folder(self, folder):
        for entry in os.scandir(folder):
            s = entry.stat(follow_symlinks=False)
            if not stat.S_ISDIR(s.st_mode):
                self.other(entry.path, s)
                continue
            if not COPIED_MARKS & set(os.listxattr(entry.path, follow_symlinks=False)):
                self.bytes += BLOCK
                self.inodes += 1
            self.bytes += xattr_cost(entry.path)
            self.folder(entry.path)

    def other(self, path, s):
        if s.st_ino in self.met:
            return
        if s.st_nlink > 1:
            self.met.add(s.st_ino)
        if stat.S_ISCHR(s.st_mode) and s.st_rdev == 0:
            return
        if not stat.S_ISREG(s.st_mode):
            self.inodes += s.st_ino not in self.indexed
            return
        if "user.overlay.whiteout" in os.listxattr(path):
            return
        if is_stand_in(path, s.st_size):
            self.inodes += 1
            return
        charged = charged_blocks(path)
        self.bytes += len(charged) * BLOCK + xattr_cost(path)
        self.inodes += 1 if origin(path) is None or charged else 0
        if s.st_blocks * 512 > len(charged) * BLOCK:
            self.slack.append((path, s.st_blocks * 512 - len(charged) * BLOCK))


def told(mount):
    """Bytes and inodes in use, as df has them."""
    s = os.statvfs(mount)
    assert s.f_frsize == BLOCK
    return (s.f_blocks - s.f_bfree) * BLOCK, s.f_files - s.f_ffree


class Control:
    """A client of the control socket of the mount at a path, by its process; FOLDER has the sockets."""

    def __init__(self, folder, mount, pid):
        device = os.stat(mount).st_dev
        with open(f"/proc/{pid}/stat") as file:
            start = file.read().rpartition(")")[2].split()[19]
        path = os.path.join(folder, f"{os.major(device)}:{os.minor(device)}.{pid}-{start}.sock")
        # It is there a moment after the mount.
        for _ in range(5000):
            if os.path.exists(path):
                break
            time.sleep(0.001)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rb")
        json.loads(self.lines.readline())

    def ask(self, **request):
        self.socket.sendall(json.dumps({"version": 1, **request}).encode() + b"\n")
        answer = json.loads(self.lines.readline())
        assert "result" in answer, answer
        return answer["result"]

    def close(self):
        self.lines.close()
        self.socket.close()
