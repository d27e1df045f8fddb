"""truncate(2), fallocate(2), holes, copy_file_range(2)."""
import os

from kit import *

M = 1 << 20


@case
def truncate_down_and_up():
    put("f", noise(100_000), 0o640)
    yield
    with touched({"f": "mc", ".": ""}):
        os.truncate("f", 50_000)
    same((get("f"), mode_of("f")), (noise(100_000)[:50_000], 0o640))
    with touched({"f": "mc"}):
        os.truncate("f", 60_000)
    same(get("f"), noise(100_000)[:50_000] + bytes(10_000))
    os.truncate("f", 0)
    os.truncate("f", 5)
    same(get("f"), bytes(5))
    yield REMOUNT
    same(get("f"), bytes(5))


@case
def truncate_to_the_same_size_changes_times():
    put("f", b"12345")
    yield
    with touched({"f": "mc"}):
        os.truncate("f", 5)
    with opened("f", os.O_RDWR) as fd, touched({"f": "mc"}):
        os.ftruncate(fd, 5)
    same(get("f"), b"12345")


@case
def truncate_up_makes_a_hole():
    put("f", b"x")
    yield
    os.truncate("f", 64 * M)
    s = os.lstat("f")
    same(s.st_size, 64 * M)
    true(s.st_blocks * 512 < M, f"{s.st_blocks} blocks")
    with opened("f", os.O_RDONLY) as fd:
        same((os.pread(fd, 2, 0), os.pread(fd, 10, 63 * M)), (b"x\0", bytes(10)))


@case
def truncate_large_file_to_a_little():
    put("f", noise(3 * M))
    yield
    os.truncate("f", 3)
    same(get("f"), noise(3 * M)[:3])
    os.truncate("f", 3 * M)
    true(get("f") == noise(3 * M)[:3] + bytes(3 * M - 3), "what was cut off does not come back")
    yield KILL
    true(get("f") == noise(3 * M)[:3] + bytes(3 * M - 3), "what was cut off does not come back")


@case
def truncate_inside_a_page_zeros_the_rest():
    put("f", b"y" * 10_000)
    yield
    with opened("f", os.O_RDWR) as fd:
        same(len(everything(fd)), 10_000)
        os.ftruncate(fd, 100)
        os.ftruncate(fd, 5000)
        same(everything(fd), b"y" * 100 + bytes(4900))


@case
def truncate_refuses_what_it_must():
    put("f", b"x")
    folder("d")
    os.symlink("self", "self")
    fifo("p")
    yield
    with unchanged("f", "d", "p", "."):
        refused(EISDIR, truncate, "d", 0)
        refused(ENOENT, truncate, "none", 0)
        refused(ENOTDIR, truncate, "f/x", 0)
        refused(ELOOP, truncate, "self", 0)
        refused(ENAMETOOLONG, truncate, "n" * 256, 0)
        refused(EINVAL, truncate, "f", -1)
        refused(EINVAL, truncate, "p", 0)
        with opened("f", os.O_RDONLY) as fd:
            refused((EINVAL, EBADF), os.ftruncate, fd, 0)
        refused(EINVAL, os.ftruncate, os.pipe()[1], 0)


@case
def truncate_through_a_symlink():
    put("f", b"12345")
    os.symlink("f", "l")
    yield
    os.truncate("l", 2)
    same((get("f"), os.readlink("l")), (b"12", "f"))


@case(root=True)
def truncate_asks_for_permission():
    put("f", b"12345", 0o644, ALICE)
    yield
    with user(BOB), unchanged("f"):
        refused(EACCES, truncate, "f", 0)
    with user(ALICE):
        os.truncate("f", 2)
    same(get("f"), b"12")


@case
def fallocate_extends():
    put("f", b"12345")
    yield
    with opened("f", os.O_RDWR) as fd:
        fallocate(fd, 0, 0, 100_000)
        s = os.fstat(fd)
        same(s.st_size, 100_000)
        true(s.st_blocks * 512 >= 100_000, f"{s.st_blocks} blocks")
        same(everything(fd), b"12345" + bytes(99_995))


@case
def fallocate_keeps_the_size():
    put("f", b"12345")
    yield
    with opened("f", os.O_RDWR) as fd:
        fallocate(fd, KEEP_SIZE, 0, 200_000)
        s = os.fstat(fd)
        same((s.st_size, everything(fd)), (5, b"12345"))
        true(s.st_blocks * 512 >= 200_000, f"{s.st_blocks} blocks")


@case
def fallocate_inside_changes_no_byte():
    put("f", noise(300_000))
    yield
    with opened("f", os.O_RDWR) as fd:
        fallocate(fd, 0, 100, 200_000)
        true(everything(fd) == noise(300_000), "content")


@case
def fallocate_punches_holes():
    put("f", noise(300_000))
    yield
    expected = bytearray(noise(300_000))
    with opened("f", os.O_RDWR) as fd:
        before = os.fstat(fd).st_blocks
        for at, size in ((4096, 131_072), (200_001, 5), (290_000, 100_000)):
            with touched({"f": "mc"}):
                fallocate(fd, PUNCH_HOLE | KEEP_SIZE, at, size)
            end = min(at + size, 300_000)
            expected[at:end] = bytes(end - at)
            same(os.fstat(fd).st_size, 300_000)
        same(everything(fd) == bytes(expected), True, "content")
        true(os.fstat(fd).st_blocks < before or before < 200, "blocks are free again")
        same(os.lseek(fd, 4096, os.SEEK_DATA), 4096 + 131_072)
        same(os.lseek(fd, 0, os.SEEK_HOLE), 4096)
    yield KILL
    same(get("f") == bytes(expected), True, "content after a remount")


@case
def fallocate_zeros_a_range():
    put("f", noise(100_000))
    yield
    with opened("f", os.O_RDWR) as fd:
        fallocate(fd, ZERO_RANGE, 10_000, 50_001)
        expected = noise(100_000)[:10_000] + bytes(50_001) + noise(100_000)[60_001:]
        true(everything(fd) == expected, "content")
        fallocate(fd, ZERO_RANGE | KEEP_SIZE, 90_000, 50_000)
        same(os.fstat(fd).st_size, 100_000)
        fallocate(fd, ZERO_RANGE, 90_000, 50_000)
        true(everything(fd) == expected[:90_000] + bytes(50_000), "content and size")


@case
def fallocate_collapse_and_insert():
    """A filesystem may lack them; then it says so and changes nothing."""
    put("f", noise(16384))
    yield
    data = noise(16384)
    with opened("f", os.O_RDWR) as fd:
        try:
            fallocate(fd, COLLAPSE, 4096, 4096)
            data = data[:4096] + data[8192:]
            fallocate(fd, INSERT, 4096, 8192)
            data = data[:4096] + bytes(8192) + data[4096:]
        except OSError as cause:
            same(cause.errno, EOPNOTSUPP)
        true(everything(fd) == data, "content")


@case
def fallocate_refuses_what_it_must():
    put("f", b"12345")
    folder("d")
    fifo("p")
    yield
    with unchanged("f"):
        with opened("f", os.O_RDWR) as fd:
            refused(EINVAL, fallocate, fd, 0, -1, 10)
            refused(EINVAL, fallocate, fd, 0, 0, 0)
            refused(EINVAL, fallocate, fd, 0, 0, -5)
            refused(EFBIG, fallocate, fd, 0, 2**62, 2**62)
            refused((EOPNOTSUPP, EINVAL), fallocate, fd, PUNCH_HOLE, 0, 10)
            refused(EOPNOTSUPP, fallocate, fd, 0x4000, 0, 10)
        with opened("f", os.O_RDONLY) as fd:
            refused(EBADF, fallocate, fd, 0, 0, 10)
        with opened("p", os.O_RDWR | os.O_NONBLOCK) as fd:
            refused(ESPIPE, fallocate, fd, 0, 0, 10)


@case(reads=True)
def seek_finds_data_and_holes():
    with opened("f", os.O_WRONLY | os.O_CREAT) as fd:
        os.pwrite(fd, b"x" * 8192, 65536)
        os.pwrite(fd, b"y" * 4096, 524_288)
        os.ftruncate(fd, M)
    yield
    with opened("f", os.O_RDONLY) as fd:
        same(os.lseek(fd, 0, os.SEEK_DATA), 65536)
        same(os.lseek(fd, 0, os.SEEK_HOLE), 0)
        same(os.lseek(fd, 65537, os.SEEK_DATA), 65537)
        same(os.lseek(fd, 65537, os.SEEK_HOLE), 65536 + 8192)
        same(os.lseek(fd, 80_000, os.SEEK_DATA), 524_288)
        same(os.lseek(fd, 524_288, os.SEEK_HOLE), 524_288 + 4096)
        refused(ENXIO, os.lseek, fd, 600_000, os.SEEK_DATA)
        same(os.lseek(fd, 600_000, os.SEEK_HOLE), 600_000)
        refused(ENXIO, os.lseek, fd, M, os.SEEK_DATA)
        refused(ENXIO, os.lseek, fd, M, os.SEEK_HOLE)
        refused(ENXIO, os.lseek, fd, -1, os.SEEK_DATA)


@case(reads=True)
def seek_in_files_without_holes():
    put("f", noise(100_000))
    put("small", b"x")
    put("empty")
    yield
    with opened("f", os.O_RDONLY) as fd:
        same((os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 5, os.SEEK_HOLE)), (0, 100_000))
        same(os.lseek(fd, 99_999, os.SEEK_DATA), 99_999)
    with opened("small", os.O_RDONLY) as fd:
        same((os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE)), (0, 1))
    with opened("empty", os.O_RDONLY) as fd:
        refused(ENXIO, os.lseek, fd, 0, os.SEEK_DATA)
        refused(ENXIO, os.lseek, fd, 0, os.SEEK_HOLE)


@case
def seek_after_writing_into_a_hole():
    with opened("f", os.O_WRONLY | os.O_CREAT) as fd:
        os.ftruncate(fd, M)
    yield
    with opened("f", os.O_RDWR) as fd:
        refused(ENXIO, os.lseek, fd, 0, os.SEEK_DATA)
        os.pwrite(fd, b"x" * 4096, 409_600)
        same((os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 409_600, os.SEEK_HOLE)), (409_600, 413_696))
        true(os.fstat(fd).st_blocks * 512 < 100_000, f"{os.fstat(fd).st_blocks} blocks: it stays sparse")


@case
def copy_file_range_copies():
    put("a", noise(200_000))
    put("b", b"." * 10)
    yield
    with opened("a", os.O_RDONLY) as source, opened("b", os.O_RDWR) as target:
        done = 0
        with touched({"b": "mc", "a": ""}):
            while done < 150_000:
                done += os.copy_file_range(source, target, 150_000 - done, 1000 + done, 5 + done)
        true(everything(target) == b"....." + noise(200_000)[1000:151_000], "content")
        same(os.copy_file_range(source, target, 100, 200_000, 0), 0)
        same(os.lseek(source, 0, os.SEEK_CUR), 0)
    true(get("a") == noise(200_000), "the source")


@case
def copy_file_range_moves_the_positions():
    put("a", b"0123456789")
    put("b", b"abcdefghij")
    yield
    with opened("a", os.O_RDONLY) as source, opened("b", os.O_RDWR) as target:
        os.lseek(source, 3, os.SEEK_SET)
        same(os.copy_file_range(source, target, 4), 4)
        same((os.lseek(source, 0, os.SEEK_CUR), os.lseek(target, 0, os.SEEK_CUR)), (7, 4))
    same(get("b"), b"3456efghij")


@case
def copy_file_range_within_one_file():
    put("f", noise(50_000))
    yield
    with opened("f", os.O_RDWR) as fd:
        done = 0
        while done < 10_000:
            done += os.copy_file_range(fd, fd, 10_000 - done, done, 30_000 + done)
        true(everything(fd) == noise(50_000)[:30_000] + noise(50_000)[:10_000] + noise(50_000)[40_000:], "content")
        refused(EINVAL, os.copy_file_range, fd, fd, 100, 0, 50)


@case
def copy_file_range_refuses_what_it_must():
    put("a", b"0123456789")
    put("b", b"x")
    folder("d")
    fifo("p")
    yield
    with opened("a", os.O_RDONLY) as source, opened("b", os.O_WRONLY) as target, unchanged("a", "b"):
        refused(EBADF, os.copy_file_range, target, source, 5)
        with opened("b", os.O_WRONLY | os.O_APPEND) as appends:
            refused(EBADF, os.copy_file_range, source, appends, 5)
        with opened("d", os.O_RDONLY) as directory:
            refused(EISDIR, os.copy_file_range, directory, target, 5)
        with opened("p", os.O_RDWR | os.O_NONBLOCK) as pipe:
            refused(EINVAL, os.copy_file_range, pipe, target, 5)


@case
def copy_file_range_of_a_removed_file():
    put("a", noise(70_000))
    yield
    with opened("a", os.O_RDONLY) as source:
        os.unlink("a")
        with opened("b", os.O_RDWR | os.O_CREAT) as target:
            done = 0
            while got := os.copy_file_range(source, target, 100_000, done, done):
                done += got
            same((done, everything(target) == noise(70_000)), (70_000, True))
