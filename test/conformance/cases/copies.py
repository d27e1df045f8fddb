"""What an overlay has beyond an ordinary filesystem: objects that are copied when they change for the first time.

Every case holds for a plain directory as well; objects that start in an image go through a copy in the middle of it.
"""
import fcntl
import mmap
import os
import signal
import threading

from kit import *

CAPABILITY = bytes.fromhex("0100000200240000000000000000000000000000")


@case
def copy_keeps_everything_of_a_file():
    put("f", noise(200_000), 0o2751)
    setxattr("f", "user.a", b"\0\1\2")
    setxattr("f", "user.empty", b"")
    os.utime("f", ns=(1_234_567_890_987_654_321, 1_234_567_890_123_456_789))
    yield
    was = look("f")
    setxattr("f", "user.b", b"new")
    now = look("f")
    same(now.pop("xattrs"), {**was.pop("xattrs"), "user.b": b"new"})
    for key in was:
        if key != "ctime":
            same(now[key], was[key], key)
    yield REMOUNT
    now = look("f")
    for key in was:
        if key not in ("ctime", "xattrs"):
            same(now[key], was[key], key)


@case(root=True)
def copy_keeps_owner_capabilities_and_trusted_names():
    put("f", noise(5000), 0o755, ALICE, TEAM)
    os.setxattr("f", "security.capability", CAPABILITY)
    setxattr("f", "trusted.a", b"1")
    folder("d", 0o3755, BOB, CLUB)
    setxattr("d", "trusted.b", b"2")
    yield
    os.utime("f", ns=(1, 2))
    os.utime("d", ns=(3, 4))
    same((owner("f"), mode_of("f"), getxattr("f", "security.capability"), getxattr("f", "trusted.a")),
         ((ALICE, TEAM), 0o755, CAPABILITY, b"1"))  # fmt: skip
    same((owner("d"), mode_of("d"), getxattr("d", "trusted.b")), ((BOB, CLUB), 0o3755, b"2"))
    yield KILL
    same((owner("f"), mode_of("f"), getxattr("f", "security.capability")), ((ALICE, TEAM), 0o755, CAPABILITY))
    same((owner("d"), mode_of("d"), get("f") == noise(5000)), ((BOB, CLUB), 0o3755, True))


@case
def copy_keeps_holes():
    with opened("f", os.O_WRONLY | os.O_CREAT, 0o644) as fd:
        for at in (1 << 20, 5 << 20):
            os.pwrite(fd, b"data" * 1024, at)
        os.ftruncate(fd, 16 << 20)
    yield
    with opened("f", os.O_RDWR) as fd:
        os.pwrite(fd, b"more", 10 << 20)
        os.fsync(fd)
        true(os.fstat(fd).st_blocks * 512 < 1 << 20, f"{os.fstat(fd).st_blocks} blocks")
        same(os.lseek(fd, 0, os.SEEK_DATA), 1 << 20)
        same(os.pread(fd, 8, 5 << 20), b"datadata")
    yield REMOUNT
    true(os.lstat("f").st_blocks * 512 < 1 << 20, f"{os.lstat('f').st_blocks} blocks")


@case
def copy_happens_once_for_all_descriptors():
    put("f", noise(400_000))
    yield
    fds = [os.open("f", flags) for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY, os.O_RDONLY, os.O_RDWR | os.O_APPEND)]
    os.pwrite(fds[2], b"one", 100)
    os.write(fds[4], b"two")
    os.pwrite(fds[1], b"three", 399_998)
    expected = bytearray(noise(400_000) + b"two")
    expected[100:103], expected[399_998:400_003] = b"one", b"three"
    for fd in (fds[0], fds[1], fds[3]):
        true(everything(fd) == bytes(expected), "content")
    same({os.fstat(fd).st_ino for fd in fds}, {ino("f")})
    for fd in fds:
        os.close(fd)


@case
def copy_while_others_read():
    put("f", noise(2_000_000))
    yield
    data, wrong, stop = noise(2_000_000), [], []

    def reads(seed):
        with opened("f", os.O_RDONLY) as fd:
            at = seed * 1000
            while not stop:
                at = (at + 104_729) % 1_000_000
                if os.pread(fd, 3000, at) != data[at : at + 3000]:
                    wrong.append(at)

    threads = [threading.Thread(target=reads, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    try:
        for i in range(20):
            with opened("f", os.O_WRONLY) as fd:
                os.pwrite(fd, b"w" * 1000, 1_500_000 + i * 1000)
            os.chmod("f", 0o600 + i % 8)
    finally:
        stop.append(True)
        for thread in threads:
            thread.join()
    same(wrong, [])
    true(get("f")[1_500_000:1_520_000] == b"w" * 20_000, "what was written")


@case
def copy_by_many_processes_at_once():
    for i in range(5):
        put(f"f{i}", noise(100_000, i))
    yield
    children = []
    for who in range(6):
        pid = os.fork()
        if pid == 0:
            for i in range(5):
                with opened(f"f{i}", os.O_WRONLY) as fd:
                    os.pwrite(fd, bytes([65 + who]) * 100, who * 1000)
            os._exit(0)
        children.append(pid)
    for pid in children:
        same(os.waitpid(pid, 0)[1], 0)
    for i in range(5):
        expected = bytearray(noise(100_000, i))
        for who in range(6):
            expected[who * 1000 : who * 1000 + 100] = bytes([65 + who]) * 100
        true(get(f"f{i}") == bytes(expected), f"content of f{i}")


@case
def copy_of_a_file_in_a_deep_directory():
    ways = ["/".join("d" * depth) for depth in range(1, 13)]
    for way in ways:
        folder(way, 0o751)
    at = ways[-1]
    put(f"{at}/f", b"deep")
    for way in reversed(ways):
        os.utime(way, ns=(7, 8))
    yield
    os.chmod(f"{at}/f", 0o600)
    for way in ways:
        same((mode_of(way), os.lstat(way).st_mtime_ns), (0o751, 8), way)
    yield REMOUNT
    same((mode_of(f"{at}/f"), get(f"{at}/f"), mode_of(at)), (0o600, b"deep", 0o751))


@case
def copy_of_a_file_whose_name_went():
    put("a", b"text")
    put("b", noise(100_000))
    yield
    with opened("a", os.O_RDONLY) as a, opened("b", os.O_RDWR) as b:
        os.unlink("a")
        os.unlink("b")
        os.fchmod(a, 0o601)
        os.setxattr(a, "user.a", b"1")
        os.pwrite(b, b"changed", 10)
        os.ftruncate(b, 50)
        same((stat.S_IMODE(os.fstat(a).st_mode), os.getxattr(a, "user.a"), everything(a)), (0o601, b"1", b"text"))
        same(everything(b), noise(100_000)[:10] + b"changed" + noise(100_000)[17:50])
        same((os.fstat(a).st_nlink, os.fstat(b).st_nlink), (0, 0))
    same(names(), [])


@case
def copy_of_a_directory_that_is_open_and_removed():
    folder("d", 0o755)
    yield
    with opened("d", os.O_RDONLY) as fd:
        os.rmdir("d")
        os.fchmod(fd, 0o700)
        os.utime(fd, ns=(1, 2))
        s = os.fstat(fd)
        same((stat.S_IMODE(s.st_mode), s.st_mtime_ns, s.st_nlink), (0o700, 2, 0))
    absent("d")


@case
def copy_of_a_file_under_a_renamed_directory():
    folder("d")
    folder("d/e")
    put("d/e/f", noise(50_000))
    put("d/e/g", b"g")
    yield
    os.rename("d", "new")
    os.rename("new/e", "new/inner")
    with opened("new/inner/f", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b"!")
    os.unlink("new/inner/g")
    os.symlink("f", "new/inner/l")
    yield REMOUNT
    same((names("new/inner"), get("new/inner/l") == noise(50_000) + b"!"), (["f", "l"], True))
    os.rename("new", "d")
    os.rename("d/inner", "d/e")
    same((names("d/e"), get("d/e/f") == noise(50_000) + b"!"), (["f", "l"], True))
    yield KILL
    same((names("d/e"), get("d/e/f") == noise(50_000) + b"!"), (["f", "l"], True))


@case
def copy_replaced_by_each_other_type():
    for i in range(6):
        put(f"f{i}", b"below")
        folder(f"d{i}")
        put(f"d{i}/inner", b"below")
    yield
    for i in range(6):
        os.unlink(f"f{i}")
        os.unlink(f"d{i}/inner")
        os.rmdir(f"d{i}")
    os.mkdir("f0")
    os.symlink("t", "f1")
    os.mkfifo("f2")
    put("f3", b"new")
    put("d0", b"new")
    os.symlink("t", "d1")
    os.mkfifo("d2")
    os.mkdir("d3")
    yield REMOUNT
    same(names(), ["d0", "d1", "d2", "d3", "f0", "f1", "f2", "f3"])
    same((names("f0"), names("d3"), get("f3"), get("d0"), os.readlink("d1")), ([], [], b"new", b"new", "t"))
    absent("f4", "f5", "d4", "d5")


@case
def copy_then_the_same_as_before():
    """A change that is taken back leaves a file as good as the old one."""
    put("f", noise(10_000), 0o644)
    folder("d", 0o755)
    put("d/x", b"x")
    yield
    os.chmod("f", 0o600)
    os.chmod("f", 0o644)
    os.rename("f", "g")
    os.rename("g", "f")
    os.rename("d", "e")
    os.rename("e", "d")
    os.unlink("d/x")
    put("d/x", b"x")
    yield KILL
    same((names(), names("d"), get("f") == noise(10_000), get("d/x")), (["d", "f"], ["x"], True, b"x"))


@case
def copy_of_what_others_execute_or_map():
    put("f", noise(100_000), 0o755)
    yield
    with opened("f", os.O_RDONLY) as fd:
        m = mmap.mmap(fd, 100_000, prot=mmap.PROT_READ)
        before = m[50_000:50_010]
        os.chmod("f", 0o700)
        os.rename("f", "g")
        same(m[50_000:50_010], before)
        with opened("g", os.O_WRONLY) as writer:
            os.pwrite(writer, b"0123456789", 50_000)
        same(m[50_000:50_010], b"0123456789")
        m.close()


@case
def lease_of_a_file():
    """fcntl(2) F_SETLEASE: a reader is told before a writer comes."""
    put("f", b"x")
    yield
    told = []
    signal.signal(signal.SIGIO, lambda *_: told.append(True))
    with opened("f", os.O_RDONLY) as fd:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        same(fcntl.fcntl(fd, fcntl.F_GETLEASE), fcntl.F_RDLCK)
        refused(EAGAIN, os.open, "f", os.O_WRONLY | os.O_NONBLOCK)
        same(told, [True])
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        os.close(os.open("f", os.O_WRONLY | os.O_NONBLOCK))


@case
def write_with_flags_of_its_own():
    put("f", b"0123456789")
    yield
    with opened("f", os.O_RDWR) as fd:
        same(os.pwritev(fd, [b"AB"], 3, os.RWF_DSYNC), 2)
        same(os.pwritev(fd, [b"end"], 0, getattr(os, "RWF_APPEND", 0x10)), 3)
        part = bytearray(5)
        same(os.preadv(fd, [part], 2), 5)
        same((bytes(part), everything(fd)), (b"2AB56", b"012AB56789end"))
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        same(os.pread(fd, 3, 3), b"AB5")
        call(libc.readahead(fd, ctypes.c_long(0), ctypes.c_size_t(10)))
