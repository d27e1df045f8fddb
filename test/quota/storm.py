#!/usr/bin/env python3
"""Changes a mount in every way that a quota counts, by several processes at once, until the mount is gone.

  storm.py FOLDER WRITERS SEED

Each writer has a folder of its own in FOLDER, and works on what the image has there, too, which all of them share. A line
on stdout says that all writers have begun. What fails otherwise than POSIX allows is one line on stderr and exit 1.
"""
import ctypes
import errno
import mmap
import os
import random
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_FOLLOW, EXCHANGE, KEEP_SIZE, PUNCH = -100, 0x400, 2, 1, 2
GONE = (errno.ENOTCONN, errno.ECONNABORTED)
# What others do meanwhile, and what a quota or the image's names make of a call.
EXPECTED = (
    errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.EDQUOT, errno.EINVAL, errno.EXDEV,
    errno.EBUSY, errno.ENODATA, errno.ENOSPC, errno.ELOOP,
)  # fmt: skip
LARGEST = 40 * 4096


class Writer:
    def __init__(self, folder, own, seed):
        self.random = random.Random(seed)
        self.own = own
        self.folder = folder
        self.names = 0

    def any_in(self, folder):
        names = os.listdir(folder)
        return os.path.join(folder, self.random.choice(names)) if names else None

    def own_file(self):
        return self.any_in(self.own)

    def image_file(self):
        return self.any_in(os.path.join(self.folder, f"image/d{self.random.randrange(8)}"))

    def some_file(self):
        return self.own_file() if self.random.random() < 0.6 else self.image_file()

    def new_name(self):
        self.names += 1
        return os.path.join(self.own, f"n{self.names % 60}")

    def with_file(self, action, flags=os.O_RDWR):
        path = self.some_file()
        if path is None or not os.path.isfile(path) or os.path.islink(path):
            return
        fd = os.open(path, flags)
        try:
            action(fd)
        finally:
            os.close(fd)

    def data(self):
        return b"x" * self.random.choice((1, 100, 4096, 5000, 30000))

    def offset(self):
        return self.random.randrange(LARGEST)

    def create(self):
        fd = os.open(self.new_name(), os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            for _ in range(self.random.randrange(4)):
                os.write(fd, self.data())
        finally:
            os.close(fd)

    def write(self):
        self.with_file(lambda fd: os.pwrite(fd, self.data(), self.offset()))

    def append(self):
        self.with_file(lambda fd: os.write(fd, self.data()), os.O_WRONLY | os.O_APPEND)

    def sparse(self):
        self.with_file(lambda fd: os.ftruncate(fd, self.offset() * 100))

    def cut(self):
        self.with_file(lambda fd: os.ftruncate(fd, self.offset()))

    def empty(self):
        self.with_file(lambda fd: None, os.O_WRONLY | os.O_TRUNC)

    def allocate(self):
        mode = self.random.choice((0, KEEP_SIZE, KEEP_SIZE | PUNCH))
        start, length = self.offset(), self.offset() + 1

        def run(fd):
            if libc.fallocate64(fd, mode, ctypes.c_int64(start), ctypes.c_int64(length)) < 0:
                raise OSError(ctypes.get_errno(), "fallocate")

        self.with_file(run)

    def copy(self):
        source = self.some_file()
        if source is None or not os.path.isfile(source):
            return
        with open(source, "rb") as f:
            self.with_file(lambda fd: os.copy_file_range(f.fileno(), fd, 50000, 0, self.offset()))

    def mapped(self):
        def run(fd):
            size = os.fstat(fd).st_size
            if size == 0:
                return
            with mmap.mmap(fd, min(size, LARGEST)) as memory:
                memory[self.random.randrange(len(memory))] = 1
                memory.flush()

        self.with_file(run)

    def unlink(self):
        path = self.some_file()
        if path is not None and not os.path.isdir(path):
            os.unlink(path)

    def unlink_open(self):
        def run(fd):
            os.unlink(path)
            os.pwrite(fd, self.data(), self.offset())
            time.sleep(0.001)

        path = self.own_file()
        if path is None or not os.path.isfile(path) or os.path.islink(path):
            return
        fd = os.open(path, os.O_RDWR)
        try:
            run(fd)
        finally:
            os.close(fd)

    def nameless(self):
        fd = os.open(self.own, os.O_TMPFILE | os.O_RDWR, 0o600)
        try:
            os.write(fd, self.data())
            if self.random.random() < 0.5:
                source, target = b"/proc/self/fd/%d" % fd, os.fsencode(self.new_name())
                libc.linkat(AT_FDCWD, source, AT_FDCWD, target, AT_SYMLINK_FOLLOW)
        finally:
            os.close(fd)

    def rename(self):
        path = self.some_file()
        if path is not None:
            os.rename(path, self.new_name())

    def exchange(self):
        a, b = self.some_file(), self.own_file()
        if a is not None and b is not None:
            libc.renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), EXCHANGE)

    def link(self):
        path = self.some_file()
        if path is not None and not os.path.isdir(path):
            os.link(path, self.new_name(), follow_symlinks=False)

    def symlink(self):
        os.symlink("target" * 20, self.new_name())

    def mkdir(self):
        path = self.new_name()
        os.mkdir(path)
        with open(os.path.join(path, "below"), "wb") as f:
            f.write(self.data())

    def rmdir(self):
        path = self.own_file()
        if path is not None and os.path.isdir(path):
            for name in os.listdir(path):
                os.unlink(os.path.join(path, name))
            os.rmdir(path)

    def move_folder(self):
        """One of the image's."""
        number = self.random.randrange(8)
        here, there = os.path.join(self.folder, f"image/m{number}"), os.path.join(self.folder, f"image/moved{number}")
        os.rename(*((here, there) if os.path.exists(here) else (there, here)))

    def chmod(self):
        path = self.some_file()
        if path is not None and not os.path.islink(path):
            os.chmod(path, self.random.choice((0o600, 0o644)))

    def xattr(self):
        path = self.some_file()
        if path is not None:
            os.setxattr(path, f"user.{self.random.randrange(3)}", b"v" * self.random.choice((10, 500)))


def work(folder, number, seed):
    own = os.path.join(folder, f"w{number}")
    os.makedirs(own, exist_ok=True)
    writer = Writer(folder, own, seed)
    operations = [value for name, value in vars(Writer).items() if callable(value) and name in OPERATIONS]
    while True:
        try:
            writer.random.choice(operations)(writer)
        except OSError as cause:
            if cause.errno in GONE:
                return
            if cause.errno not in EXPECTED:
                raise


OPERATIONS = (
    "create", "write", "append", "sparse", "cut", "empty", "allocate", "copy", "mapped", "unlink", "unlink_open", "nameless",
    "rename", "exchange", "link", "symlink", "mkdir", "rmdir", "move_folder", "chmod", "xattr",
)  # fmt: skip


def main():
    writers, seed = int(sys.argv[2]), int(sys.argv[3])
    # Stays in the mount when that has been taken away.
    os.chdir(sys.argv[1])
    children = []
    for number in range(writers):
        pid = os.fork()
        if pid == 0:
            code = 0
            try:
                work(".", number, f"{seed} {number}")
            except OSError as cause:
                if cause.errno not in GONE:
                    print(f"writer {number}, seed {seed}: {cause}", file=sys.stderr, flush=True)
                    code = 1
            os._exit(code)
        children.append(pid)
    print("begun", flush=True)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    # A page of a mapping that the mount is gone from under.
    return 1 if any(code not in (0, -7) for code in codes) else 0


if __name__ == "__main__":
    sys.exit(main())
