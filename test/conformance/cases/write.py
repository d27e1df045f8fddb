"""read(2), write(2), append, O_DIRECT, and what an old descriptor sees."""
import mmap
import os
import resource
import signal
import socket
import threading

from kit import *


@case
def write_changes_content_and_times():
    put("f", b"0123456789")
    yield
    with opened("f", os.O_RDWR) as fd:
        with touched({"f": "mc", ".": ""}):
            same(os.pwrite(fd, b"AB", 3), 2)
        same(everything(fd), b"012AB56789")
    same((get("f"), os.lstat("f").st_size), (b"012AB56789", 10))


@case
def write_beyond_the_end_leaves_zeros():
    put("f", b"start")
    yield
    with opened("f", os.O_WRONLY) as fd:
        os.pwrite(fd, b"end", 100_000)
    same(get("f"), b"start" + bytes(99_995) + b"end")


@case
def write_in_the_middle_of_a_large_file():
    put("f", noise(3_000_000))
    yield
    expected = bytearray(noise(3_000_000))
    with opened("f", os.O_RDWR) as fd:
        for at, size in ((0, 1), (131_071, 2), (1_000_000, 70_000), (2_999_999, 1), (4095, 4098)):
            os.pwrite(fd, b"w" * size, at)
            expected[at : at + size] = b"w" * size
        same(everything(fd) == bytes(expected), True, "content")
    yield KILL
    true(get("f") == bytes(expected), "content after a remount")


@case
def write_of_nothing_changes_nothing():
    put("f", b"text")
    yield
    with opened("f", os.O_RDWR) as fd, touched({"f": ""}):
        same(os.write(fd, b""), 0)
        same(os.pwrite(fd, b"", 100), 0)
    same(get("f"), b"text")


@case
def write_appends_at_the_end():
    put("f", b"one")
    yield
    with opened("f", os.O_WRONLY | os.O_APPEND) as fd, opened("f", os.O_RDWR) as other:
        os.write(fd, b" two")
        os.pwrite(other, b" three", 7)
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b" four")
        same(os.lseek(fd, 0, os.SEEK_CUR), 18)
        os.ftruncate(other, 3)
        os.write(fd, b"!")
    same(get("f"), b"one!")


@case
def write_appends_whole_lines_of_many_writers():
    put("f", b"first\n")
    yield

    def writer(letter):
        with opened("f", os.O_WRONLY | os.O_APPEND) as fd:
            for i in range(40):
                os.write(fd, f"{letter}{i:03}".encode() * 100 + b"\n")

    children = []
    for letter in "abcd":
        pid = os.fork()
        if pid == 0:
            writer(letter)
            os._exit(0)
        children.append(pid)
    for pid in children:
        same(os.waitpid(pid, 0)[1], 0, "status")
    lines = get("f").splitlines()
    same(len(lines), 161, "lines")
    same(sorted({line for line in lines[1:]}), sorted(f"{x}{i:03}".encode() * 100 for x in "abcd" for i in range(40)))


@case
def write_shows_by_descriptors_opened_before():
    put("f", noise(200_000))
    yield
    with opened("f", os.O_RDONLY) as reader:
        same(os.pread(reader, 5, 0), noise(200_000)[:5])
        with opened("f", os.O_WRONLY) as writer:
            os.pwrite(writer, b"fresh", 0)
            os.pwrite(writer, b"later", 150_000)
        same(os.pread(reader, 5, 0), b"fresh")
        same(os.pread(reader, 5, 150_000), b"later")
        os.truncate("f", 10)
        same(len(os.pread(reader, 100, 0)), 10)
        os.chmod("f", 0o600)
        same(stat.S_IMODE(os.fstat(reader).st_mode), 0o600)


@case
def write_by_one_name_shows_by_the_other():
    put("a", b"a" * 10_000)
    folder("d")
    os.link("a", "d/b")
    yield
    with opened("d/b", os.O_RDONLY) as reader:
        same(os.pread(reader, 3, 0), b"aaa")
        with opened("a", os.O_WRONLY) as writer:
            os.pwrite(writer, b"new", 0)
        same(os.pread(reader, 4, 0), b"newa")
    same(get("d/b")[:4], b"newa")
    yield REMOUNT
    same(get("d/b")[:4], b"newa")
    same(get("a"), get("d/b"))


@case
def write_vectors():
    put("f", b"." * 20)
    yield
    with opened("f", os.O_RDWR) as fd:
        same(os.pwritev(fd, [b"one", b"", b"two"], 5), 6)
        parts = [bytearray(2), bytearray(9)]
        same(os.preadv(fd, parts, 4), 11)
        same((bytes(parts[0]), bytes(parts[1])), (b".o", b"netwo...."))


@case
def write_direct():
    put("f", noise(65536))
    yield
    try:
        fd = os.open("f", os.O_RDWR | os.O_DIRECT)
    except OSError as cause:
        same(cause.errno, EINVAL)  # a filesystem without O_DIRECT says so
        return
    page = mmap.mmap(-1, 8192)
    page.write(b"d" * 8192)
    same(os.pwritev(fd, [page], 4096), 8192)
    same(get("f"), noise(65536)[:4096] + b"d" * 8192 + noise(65536)[12288:])
    into = mmap.mmap(-1, 4096)
    same(os.preadv(fd, [into], 8192), 4096)
    same(into[:], b"d" * 4096)
    # Cached writes and direct reads see each other.
    with opened("f", os.O_WRONLY) as other:
        os.pwrite(other, b"C" * 4096, 0)
    same(os.preadv(fd, [into], 0), 4096)
    same(into[:], b"C" * 4096)
    os.close(fd)


@case
def write_to_a_descriptor_after_chmod_000():
    put("f", b"text")
    yield
    with opened("f", os.O_RDWR) as fd:
        os.chmod("f", 0)
        os.write(fd, b"TEXT")
        same(os.pread(fd, 9, 0), b"TEXT")
        os.ftruncate(fd, 1)
        same(os.fstat(fd).st_size, 1)


@case
def write_past_the_largest_size():
    put("f", b"x")
    yield
    with opened("f", os.O_RDWR) as fd, unchanged("f"):
        refused((EFBIG, EINVAL), os.pwrite, fd, b"xx", 2**63 - 2)
        refused((EFBIG, EINVAL), os.ftruncate, fd, 2**63 - 1)


@case
def write_past_the_limit_of_the_process():
    put("f", b"x" * 10)
    yield
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    with opened("f", os.O_RDWR) as fd:
        same(os.pwrite(fd, b"y" * 50, 80), 20)
        refused(EFBIG, os.pwrite, fd, b"y", 100)
        refused(EFBIG, os.ftruncate, fd, 101)
    same(get("f"), b"x" * 10 + bytes(70) + b"y" * 20)


@case
def write_is_there_after_fsync_and_kill():
    put("f", b"below " * 1000)
    yield
    with opened("f", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b"synced")
        os.fsync(fd)
    with opened("new", os.O_WRONLY | os.O_CREAT) as fd:
        os.write(fd, b"synced, too")
        os.fdatasync(fd)
    with opened(".", os.O_RDONLY) as fd:
        os.fsync(fd)
    yield KILL
    same((get("f"), get("new")), (b"below " * 1000 + b"synced", b"synced, too"))


@case(reads=True)
def read_at_every_boundary():
    put("f", noise(400_000))
    yield
    data = noise(400_000)
    with opened("f", os.O_RDONLY) as fd:
        for edge in (4096, 65536, 131_072, 262_144, 400_000):
            for at in (edge - 2, edge - 1, edge, edge + 1):
                for size in (1, 2, 3, 5000):
                    same(os.pread(fd, size, at), data[at : at + size], f"{size} at {at}")


@case(reads=True)
def read_of_a_sparse_file():
    with opened("f", os.O_WRONLY | os.O_CREAT) as fd:
        os.pwrite(fd, b"one", 100_000)
        os.pwrite(fd, b"two", 900_000)
        os.ftruncate(fd, 2_000_000)
    yield
    expected = bytes(100_000) + b"one" + bytes(799_997) + b"two" + bytes(1_099_997)
    true(get("f") == expected, "content")
    true(os.lstat("f").st_blocks * 512 < 200_000, f"it takes {os.lstat('f').st_blocks} blocks")


@case(reads=True)
def read_by_many_threads():
    put("f", noise(1_000_000))
    yield
    data, wrong = noise(1_000_000), []

    def reader(seed):
        with opened("f", os.O_RDONLY) as fd:
            for i in range(50):
                at = (seed * 7919 + i * 104_729) % 990_000
                if os.pread(fd, 5000, at) != data[at : at + 5000]:
                    wrong.append(at)

    threads = [threading.Thread(target=reader, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(wrong, [])


@case(reads=True)
def read_sends_by_sendfile_and_splice():
    put("f", noise(100_000))
    yield
    a, b = socket.socketpair()
    with opened("f", os.O_RDONLY) as fd:
        sent = os.sendfile(a.fileno(), fd, 1000, 50_000)
        same(b.recv(sent, socket.MSG_WAITALL), noise(100_000)[1000 : 1000 + sent])
        into, out = os.pipe()[::-1]
        got = os.splice(fd, into, 3000, offset_src=70_000)
        same(os.read(out, got), noise(100_000)[70_000 : 70_000 + got])


@case
def write_by_splice():
    put("f", b"." * 100)
    yield
    out, into = os.pipe()
    os.write(into, b"through a pipe")
    with opened("f", os.O_WRONLY) as fd:
        same(os.splice(out, fd, 14, offset_dst=50), 14)
    same(get("f"), b"." * 50 + b"through a pipe" + b"." * 36)


@case
def read_position_and_end():
    put("f", b"0123456789")
    yield
    with opened("f", os.O_RDWR) as fd:
        same(os.read(fd, 4), b"0123")
        same(os.lseek(fd, -3, os.SEEK_END), 7)
        same(os.read(fd, 100), b"789")
        same(os.read(fd, 100), b"")
        same(os.lseek(fd, 5, os.SEEK_CUR), 15)
        same(os.read(fd, 1), b"")
        refused(EINVAL, os.lseek, fd, -1, os.SEEK_SET)
        refused(EINVAL, os.lseek, fd, 0, 77)
        os.write(fd, b"x")
        same(os.fstat(fd).st_size, 16)
