#!/usr/bin/env python3
"""Ways to get more than a quota of 256 blocks and 64 inodes gives: attacks.py MOUNT UPPER WAY

MOUNT has a compressed image with a file of 150 blocks that has the names `one` and `two`. After each attempt: use is what
a count of the upper finds, at most the limit, and no file takes more of the disk than what is charged for it.
"""
import errno
import mmap
import os
import stat
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../conformance"))
from kit import EXCHANGE, KEEP_SIZE, PUNCH_HOLE, WHITEOUT, ZERO_RANGE, fallocate, link_descriptor, renameat2  # noqa: E402
from tally import BLOCK, Tally, told  # noqa: E402

BLOCKS, INODES = 256, 64
# What ext4 may take for the map of a file.
MAPS = 8 * BLOCK
mount, upper, way = sys.argv[1:]
os.chdir(mount)


def refused(action, *arguments):
    try:
        result = action(*arguments)
    except OSError as cause:
        assert cause.errno == errno.EDQUOT, cause
        return
    raise AssertionError(f"what does not fit was taken: {result!r}")


def is_used(blocks, inodes, nameless=(0, 0)):
    wanted = (blocks * BLOCK, inodes)
    # What has gone is known to have gone a moment after.
    for _ in range(3000):
        if told(".") == wanted:
            break
        time.sleep(0.001)
    tally = Tally(upper)
    counted = (tally.bytes + nameless[0] * BLOCK, tally.inodes + nameless[1])
    assert told(".") == wanted == counted, (told("."), wanted, counted)
    assert blocks <= BLOCKS and inodes <= INODES
    for path, more in tally.slack:
        assert more <= MAPS, f"{path} takes {more} bytes more than is charged"


def put(name, blocks):
    with open(name, "wb", buffering=0) as file:
        assert file.write(b"p" * blocks * BLOCK) == blocks * BLOCK


def threads(count, action):
    errors = []

    def run(number):
        try:
            action(number)
        except BaseException as cause:
            errors.append(cause)

    running = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    assert not errors, errors


def links():
    """One object with many names costs once, and until the last has gone."""
    put("file", BLOCKS)
    for i in range(200):
        os.link("file", f"link{i}")
    is_used(BLOCKS, 1)
    os.rename("file", "link0")
    for i in range(199):
        os.unlink(f"link{i}")
        if i % 50 == 0:
            refused(os.mkdir, "folder")
    os.unlink("file")
    is_used(BLOCKS, 1)
    os.unlink("link199")
    is_used(0, 0)


def sparse():
    """Size is free; each block that is touched is not."""
    fd = os.open("file", os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, 1 << 40)
    is_used(0, 1)
    for i in range(BLOCKS):
        assert os.pwrite(fd, b"s", i * (1 << 30)) == 1
    refused(os.pwrite, fd, b"s", BLOCKS * (1 << 30))
    # A short write has what fits before the first block that does not.
    os.ftruncate(fd, (BLOCKS - 3) * (1 << 30))
    assert os.pwrite(fd, b"s" * 10 * BLOCK, 100) == 4 * BLOCK - 100
    is_used(BLOCKS, 1)
    os.close(fd)


def reserved():
    """Reserving beyond the end and punching what is reserved."""
    fd = os.open("file", os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"r", 0)
    done = 0
    for i in range(20):
        try:
            fallocate(fd, KEEP_SIZE, (10 + 60 * i) * BLOCK, 50 * BLOCK)
            done += 1
        except OSError as cause:
            assert cause.errno == errno.EDQUOT
        fallocate(fd, KEEP_SIZE | PUNCH_HOLE, (10 + 60 * i) * BLOCK, 50 * BLOCK)
    assert done >= 5
    used = told(".")[0] // BLOCK
    is_used(used, 1)
    os.ftruncate(fd, 1)
    is_used(1, 1)
    # More ranges than a file can note are noted as fewer, larger ones, and charged so.
    for i in range(100):
        try:
            fallocate(fd, KEEP_SIZE, (2 + 2 * i) * BLOCK, BLOCK)
        except OSError as cause:
            assert cause.errno == errno.EDQUOT
    used = told(".")[0] // BLOCK
    assert used >= 101, used
    is_used(used, 1)
    refused(fallocate, fd, 0, 0, (BLOCKS + 1) * BLOCK)
    is_used(used, 1)
    os.ftruncate(fd, 0)
    is_used(0, 1)
    # By another thread.
    refused(fallocate, fd, 0, 0, 64 << 20)
    is_used(0, 1)
    os.close(fd)


def holes():
    """What a hole gave back and another took cannot be filled again."""
    put("file", BLOCKS)
    fd = os.open("file", os.O_RDWR)
    for start in range(0, BLOCKS, 64):
        fallocate(fd, KEEP_SIZE | PUNCH_HOLE, start * BLOCK + 1, 32 * BLOCK)
    # Of each only the 31 whole blocks have gone.
    is_used(BLOCKS - 4 * 31, 1)
    put("other", 4 * 31)
    for start in range(0, BLOCKS, 64):
        refused(os.pwrite, fd, b"h", (start + 5) * BLOCK)
        assert os.pwrite(fd, b"h", (start + 32) * BLOCK) == 1
    is_used(BLOCKS, 2)
    os.unlink("other")
    is_used(BLOCKS - 4 * 31, 1)
    assert os.pwrite(fd, b"h" * BLOCKS * BLOCK, 0) == BLOCKS * BLOCK
    is_used(BLOCKS, 1)
    os.close(fd)


def held():
    """Without a name, but open in some way: by O_PATH, by a mapping, in a process that ends."""
    put("file", 100)
    fd = os.open("file", os.O_PATH)
    os.unlink("file")
    is_used(100, 1, (100, 1))
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    assert os.pwrite(again, b"h" * 10 * BLOCK, 100 * BLOCK) == 10 * BLOCK
    is_used(110, 1, (110, 1))
    memory = mmap.mmap(again, 110 * BLOCK)
    os.close(again)
    os.close(fd)
    is_used(110, 1, (110, 1))
    memory[3] = 1
    memory.close()
    is_used(0, 0)
    pid = os.fork()
    if pid == 0:
        for i in range(INODES):
            os.open(".", os.O_TMPFILE | os.O_RDWR)
        refused(os.open, ".", os.O_TMPFILE | os.O_RDWR)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    is_used(0, 0)


def copies():
    """A file of the image copied up by both names, by many at once: once; and with too little room: not at all."""
    put("full", BLOCKS - 149)

    def change(number):
        fd = os.open(("one", "two")[number % 2], os.O_RDWR)
        refused(os.pwrite, fd, b"c", 0)
        os.close(fd)

    threads(8, change)
    is_used(BLOCKS - 149, 1)
    os.truncate("full", (BLOCKS - 150) * BLOCK)

    def write(number):
        fd = os.open(("one", "two")[number % 2], os.O_RDWR)
        assert os.pwrite(fd, bytes([65 + number]), number) == 1
        os.close(fd)

    threads(8, write)
    is_used(BLOCKS, 2)
    with open("two", "rb") as file:
        assert file.read(9) == b"ABCDEFGHi"
    assert os.stat("one").st_ino == os.stat("two").st_ino
    os.truncate("one", 0)
    is_used(BLOCKS - 150, 1)
    os.unlink("one")
    os.unlink("two")
    is_used(BLOCKS - 150, 1)


def loops():
    """Sizes up and down, with writes between, by several at once."""

    def loop(number):
        fd = os.open(f"file{number % 2}", os.O_CREAT | os.O_RDWR)
        for i in range(150):
            os.ftruncate(fd, (i * 37 % 90) * BLOCK + i)
            try:
                os.pwrite(fd, b"l" * (i * 4001 % 70000 + 1), (i * 53 % 120) * BLOCK)
            except OSError as cause:
                assert cause.errno == errno.EDQUOT
            used = told(".")
            assert used[0] <= BLOCKS * BLOCK, used
        os.close(fd)

    threads(6, loop)
    used = Tally(upper)
    is_used(used.bytes // BLOCK, used.inodes)
    os.truncate("file0", 0)
    os.truncate("file1", 0)
    is_used(0, 2)


def renames():
    """What is replaced is credited, once nobody has it; what takes a name that is left is charged."""
    put("a", 100)
    put("b", 100)
    fd = os.open("b", os.O_RDONLY)
    os.rename("a", "b")
    is_used(200, 2, (100, 1))
    put("c", 56)
    refused(put, "d", 1)
    os.close(fd)
    is_used(156, 3 if os.path.exists("d") else 2)
    os.path.exists("d") and os.unlink("d")
    os.mkdir("folder")
    for _ in range(20):
        renameat2("b", "c", EXCHANGE)
        renameat2("c", "folder", EXCHANGE)
        renameat2("c", "folder", EXCHANGE)
    is_used(157, 3)
    made = 0
    try:
        for i in range(2 * INODES):
            renameat2("c" if i == 0 else f"moved{i - 1}", f"moved{i}", WHITEOUT)
            made += 1
    except OSError as cause:
        assert cause.errno == errno.EDQUOT, cause
    # Each left a device.
    assert made == INODES - 3, made
    assert stat.S_ISCHR(os.lstat("c").st_mode)
    is_used(157, INODES)


def direct():
    """O_DIRECT, in requests of their own sizes."""
    fd = os.open("file", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    memory = mmap.mmap(-1, 100 * BLOCK)
    done = 0
    try:
        while True:
            done += os.pwritev(fd, [memory], done)
    except OSError as cause:
        assert cause.errno == errno.EDQUOT, cause
    assert done == BLOCKS * BLOCK, done
    is_used(BLOCKS, 1)
    os.close(fd)


def ranges():
    """Copies of ranges: of a dense file, of holes, of the file itself, and of the image's data."""
    put("dense", 100)
    fd, dense, image = (os.open(name, os.O_CREAT | os.O_RDWR) for name in ("copy", "dense", "one"))
    done = 0
    while done < 100 * BLOCK:
        done += os.copy_file_range(dense, fd, 100 * BLOCK - done, done, done)
    is_used(200, 2)
    # What fits of more than that, and then no byte; over what is there always.
    assert 0 < os.copy_file_range(image, fd, 150 * BLOCK, 0, 200 * BLOCK) <= 56 * BLOCK
    while told(".")[0] < BLOCKS * BLOCK:
        os.copy_file_range(dense, fd, BLOCK, 0, 100 * BLOCK + told(".")[0])
    refused(os.copy_file_range, dense, fd, BLOCK, 0, 1 << 30)
    refused(os.copy_file_range, fd, fd, 1, 0, 1 << 31)
    assert os.copy_file_range(fd, fd, 50 * BLOCK, 0, 50 * BLOCK) == 50 * BLOCK
    is_used(BLOCKS, 2)
    # Of holes: they cost where they arrive as data, never more than there is.
    os.ftruncate(fd, 0)
    os.ftruncate(dense, 0)
    os.ftruncate(dense, 1 << 30)
    at = 0
    try:
        while at < 1 << 22:
            at += os.copy_file_range(dense, fd, (1 << 22) - at, at, at)
    except OSError as cause:
        assert cause.errno == errno.EDQUOT, cause
    tally = Tally(upper)
    is_used(tally.bytes // BLOCK, 2)
    for each in (fd, dense, image):
        os.close(each)


def zeroed():
    """Ranges made zero take their blocks, which holes do not."""
    fd = os.open("file", os.O_CREAT | os.O_RDWR)
    try:
        fallocate(fd, ZERO_RANGE, 0, 100 * BLOCK)
    except OSError as cause:
        # Not every filesystem can.
        assert cause.errno == errno.EOPNOTSUPP, cause
        is_used(0, 1)
        os.close(fd)
        return
    is_used(100, 1)
    fallocate(fd, ZERO_RANGE | KEEP_SIZE, 50 * BLOCK, 206 * BLOCK)
    is_used(BLOCKS, 1)
    refused(fallocate, fd, ZERO_RANGE | KEEP_SIZE, 200 * BLOCK, 57 * BLOCK)
    assert os.fstat(fd).st_size == 100 * BLOCK
    # Truncation to the same size and up leaves what is reserved or gives it back; use is as counted.
    os.ftruncate(fd, 200 * BLOCK)
    is_used(Tally(upper).bytes // BLOCK, 1)
    os.ftruncate(fd, 10 * BLOCK)
    is_used(10, 1)
    os.close(fd)


def nameless():
    """Files made without a name cost as others do, and once, when they get one."""
    fds = []
    for _ in range(INODES):
        fds.append(os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600))
    refused(os.open, ".", os.O_TMPFILE | os.O_RDWR)
    assert os.pwrite(fds[0], b"n" * 300 * BLOCK, 0) == BLOCKS * BLOCK
    refused(os.pwrite, fds[1], b"n", 0)
    is_used(BLOCKS, INODES, (BLOCKS, INODES))
    # A link is no new object, so a full quota does not refuse it.
    link_descriptor(fds[0], "first")
    link_descriptor(fds[1], "second")
    is_used(BLOCKS, INODES, (0, INODES - 2))
    for fd in fds:
        os.close(fd)
    is_used(BLOCKS, 2)


def empties():
    """Nothing in them: inodes, of each kind; names of one object are none."""
    makers = (
        lambda name: os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
        lambda name: os.symlink("t" * 1000, name),
        os.mkfifo,
        lambda name: os.mknod(name, stat.S_IFSOCK | 0o600),
    )
    for i in range(INODES):
        makers[i % 4](f"empty{i}")
    is_used(0, INODES)
    for make in (*makers, os.mkdir):
        refused(make, "more")
        assert not os.path.lexists("more")
    os.link("empty0", "more")
    is_used(0, INODES)
    os.unlink("empty0")
    refused(os.mkfifo, "empty0")
    os.unlink("more")
    os.mkfifo("more")
    is_used(0, INODES)


def xattrs():
    """Past the 4 KiB that are free, in blocks, of files and of folders; needs a filesystem that takes as much."""
    os.mkdir("folder")
    put("file", BLOCKS - 3)
    # One block is left but for the folder's own.
    for name in ("folder", "file"):
        os.setxattr(name, "user.free", b"x" * (BLOCK - len("user.free")))
    is_used(BLOCKS - 2, 2)
    os.setxattr("folder", "user.more", b"x" * 1000)
    os.setxattr("file", "user.more", b"x")
    is_used(BLOCKS, 2)
    for name in ("folder", "file"):
        refused(os.setxattr, name, "user.other", b"x" * BLOCK)
        assert sorted(os.listxattr(name)) == ["user.free", "user.more"]
    os.setxattr("file", "user.more", b"y" * 2000)
    os.removexattr("folder", "user.more")
    is_used(BLOCKS - 1, 2)
    os.setxattr("folder", "user.more", b"x")
    is_used(BLOCKS, 2)
    os.unlink("file")
    is_used(2, 1)


WAYS = {
    each.__name__: each
    for each in (
        *(links, sparse, reserved, holes, held, copies, loops, renames, direct),
        *(ranges, zeroed, nameless, empties, xattrs),
    )
}
WAYS[way]()
for name in os.listdir("."):
    if os.path.isdir(name):
        os.rmdir(name)
    else:
        os.unlink(name)
is_used(0, 0)
put("after", BLOCKS)
refused(put, "more", 1)
print("done")
