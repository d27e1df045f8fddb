#!/usr/bin/env python3
"""Stores through mappings that a quota of 32 blocks has no room for: mapped.py MOUNT UPPER WAY

MOUNT has an image with a file `image` of 10 blocks. A store that does not fit is told by msync, fsync or close, never by a
signal, which would end this process; and what fitted is there.
"""
import ctypes
import errno
import mmap
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tally import BLOCK, Tally, charged_blocks, told  # noqa: E402

BLOCKS = 32
LATE = (errno.EDQUOT, errno.EIO, errno.ENOSPC)
mount, upper, way = sys.argv[1:]


def at(name):
    return os.path.join(mount, name)


def fails(action):
    try:
        action()
    except OSError as cause:
        assert cause.errno in LATE, cause
        return
    raise AssertionError("what does not fit was taken")


def check(limit=BLOCKS):
    used = told(mount)
    tally = Tally(upper)
    assert used == (tally.bytes, tally.inodes), (used, tally.bytes, tally.inodes)
    assert used[0] <= limit * BLOCK, used


def sparse(name, blocks):
    fd = os.open(at(name), os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, blocks * BLOCK)
    return fd


def fill(name, blocks):
    with open(at(name), "wb") as file:
        file.write(b"f" * blocks * BLOCK)


def msync():
    """Page by page, until no more fit."""
    fd = sparse("file", 4 * BLOCKS)
    with mmap.mmap(fd, 0) as memory:
        for page in range(4 * BLOCKS):
            memory[page * BLOCK] = 65
            if page < BLOCKS:
                memory.flush(page * BLOCK, BLOCK)
            else:
                fails(lambda: memory.flush(page * BLOCK, BLOCK))
            assert memory[page * BLOCK] == 65
    os.close(fd)
    check()
    assert charged_blocks(os.path.join(upper, "file")) == set(range(BLOCKS))


def fsync():
    """Many pages at once, of which some would fit."""
    fd = sparse("file", 4 * BLOCKS)
    memory = mmap.mmap(fd, 0)
    for page in range(0, 4 * BLOCKS, 2):
        memory[page * BLOCK] = 66
    fails(lambda: os.fsync(fd))
    check()
    # Told once, and not for ever.
    os.fsync(fd)
    memory.close()
    os.close(fd)
    # Each page is a request of its own: as many as fit are there.
    assert len(charged_blocks(os.path.join(upper, "file"))) == BLOCKS


def close():
    """Nobody syncs: the first close tells. Python keeps a descriptor of its own with a mapping, so this one is libc's."""
    fd = sparse("file", 4 * BLOCKS)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    size = 4 * BLOCKS * BLOCK
    memory = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, ctypes.c_long(0))
    for page in range(2 * BLOCKS):
        ctypes.memset(memory + page * BLOCK, 67, 1)
    libc.munmap(ctypes.c_void_p(memory), ctypes.c_size_t(size))
    fails(lambda: os.close(fd))
    check()


def copied():
    """The first store into a file of the image takes all of its data, or nothing."""
    fill("full", BLOCKS - 5)
    fd = os.open(at("image"), os.O_RDWR)
    memory = mmap.mmap(fd, 0)
    memory[BLOCK] = 68
    fails(memory.flush)
    check()
    assert charged_blocks(os.path.join(upper, "image")) == set()
    os.truncate(at("full"), 0)
    memory[BLOCK] = 69
    memory.flush()
    memory.close()
    os.close(fd)
    check()
    with open(at("image"), "rb") as file:
        data = file.read()
    assert data[BLOCK] == 69 and data[:BLOCK] == b"i" * BLOCK and len(data) == 10 * BLOCK


def unlinked():
    """A mapping of what has no name any more, nor a descriptor, is charged until it is gone."""
    fd = sparse("file", 4 * BLOCKS)
    memory = mmap.mmap(fd, 0)
    os.close(fd)
    os.unlink(at("file"))
    for page in range(BLOCKS):
        memory[page * BLOCK] = 70
    memory.flush()
    assert told(mount) == (BLOCKS * BLOCK, 1), told(mount)
    memory[BLOCKS * BLOCK] = 71
    fails(memory.flush)
    memory.close()
    while told(mount) != (0, 0):
        pass


def several():
    """Eight processes store into one file at once; none is killed, and what is charged is what is there."""
    fd = sparse("file", 8 * BLOCKS)
    children = []
    for number in range(8):
        pid = os.fork()
        if pid == 0:
            refused = 0
            with mmap.mmap(fd, 0) as memory:
                for page in range(number, 8 * BLOCKS, 8):
                    memory[page * BLOCK] = 72
                    try:
                        memory.flush(page * BLOCK, BLOCK)
                    except OSError as cause:
                        assert cause.errno in LATE
                        refused += 1
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 8
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    check()
    assert told(mount)[0] == BLOCKS * BLOCK, told(mount)
    data = os.pread(fd, 8 * BLOCKS * BLOCK, 0)
    there = {page for page in range(8 * BLOCKS) if data[page * BLOCK] == 72}
    assert there == charged_blocks(os.path.join(upper, "file")), there
    os.close(fd)


def dense():
    """Pages that are charged already are written whatever the quota."""
    fill("file", BLOCKS)
    fd = os.open(at("file"), os.O_RDWR)
    with mmap.mmap(fd, 0) as memory:
        for page in range(BLOCKS):
            memory[page * BLOCK + 7] = 73
        memory.flush()
    os.close(fd)
    check()
    with open(at("file"), "rb") as file:
        assert file.read() == (b"f" * 7 + b"I" + b"f" * (BLOCK - 8)) * BLOCKS


WAYS = {each.__name__: each for each in (msync, fsync, close, copied, unlinked, several, dense)}
WAYS[way]()
# The mount is as good as before.
for name in os.listdir(mount):
    if os.path.exists(os.path.join(upper, name)):
        os.unlink(at(name))
while told(mount) != (0, 0):
    pass
fill("after", BLOCKS)
with open(at("after"), "rb") as check_file:
    assert check_file.read() == b"f" * BLOCKS * BLOCK
os.unlink(at("after"))
print("done")
