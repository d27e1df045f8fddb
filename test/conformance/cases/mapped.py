"""mmap(2)."""
import mmap
import os
import shutil

from kit import *


@contextlib.contextmanager
def mapping(name, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE, mode=os.O_RDWR):
    with opened(name, mode) as fd:
        m = mmap.mmap(fd, size, flags, prot)
    yield m
    m.close()


@case
def mmap_shared_writes_reach_the_file():
    put("f", noise(20_000))
    yield
    with mapping("f", 20_000) as m:
        with touched({"f": "mc"}):
            m[5000:5004] = b"text"
            m[19_999:] = b"!"
            m.flush()
    expected = bytearray(noise(20_000))
    expected[5000:5004], expected[19_999:] = b"text", b"!"
    same(get("f") == bytes(expected), True, "content")
    yield KILL
    same(get("f") == bytes(expected), True, "content after a remount")


@case
def mmap_private_writes_do_not():
    put("f", b"a" * 5000)
    yield
    with unchanged("f"), mapping("f", 5000, mmap.MAP_PRIVATE, mode=os.O_RDONLY) as m:
        m[0:4] = b"mine"
        same(m[0:5], b"minea")
    same(get("f"), b"a" * 5000)


@case
def mmap_from_before_sees_writes():
    put("f", noise(300_000))
    yield
    with mapping("f", 300_000, prot=mmap.PROT_READ, mode=os.O_RDONLY) as m:
        same(m[100:110], noise(300_000)[100:110])
        with opened("f", os.O_WRONLY) as fd:
            os.pwrite(fd, b"written", 100)
            os.pwrite(fd, b"further", 250_000)
        same((m[100:107], m[250_000:250_007]), (b"written", b"further"))
        os.chmod("f", 0o600)
        same(m[100:107], b"written")


@case
def mmap_of_two_names_is_one():
    put("a", b"." * 4096)
    os.link("a", "b")
    yield
    with mapping("a", 4096) as one, mapping("b", 4096) as two:
        one[10:14] = b"here"
        same(two[10:14], b"here")
        two[20:24] = b"back"
        same(one[20:24], b"back")
    same(get("b")[10:14], b"here")


@case
def mmap_and_writes_agree():
    put("f", b"." * 12_288)
    yield
    with opened("f", os.O_RDWR) as fd:
        m = mmap.mmap(fd, 12_288)
        m[0:3] = b"map"
        same(os.pread(fd, 4, 0), b"map.")
        os.pwrite(fd, b"written", 4093)
        same(m[4092:4101], b".written.")
        os.ftruncate(fd, 4096)
        same(m[4090:4096], b"...wri")
        os.ftruncate(fd, 12_288)
        same(m[4094:4100], b"ri" + bytes(4))
        m.close()


@case
def mmap_beyond_the_end_is_a_bus_error():
    put("f", b"x" * 4096)
    yield
    with opened("f", os.O_RDWR) as fd:
        m = mmap.mmap(fd, 4096)
        os.ftruncate(fd, 0)
        pid = os.fork()
        if pid == 0:
            _ = m[0]
            os._exit(0)
        same(os.waitpid(pid, 0)[1] & 0x7F, 7, "signal")
        same(get("f"), b"")


@case
def mmap_needs_the_right_open():
    put("f", b"x" * 4096)
    yield
    with opened("f", os.O_RDONLY) as fd:
        refused(EACCES, mmap.mmap, fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    with opened("f", os.O_WRONLY) as fd:
        refused(EACCES, mmap.mmap, fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ)


@case
def mmap_in_the_last_page_shows_zeros():
    put("f", b"x" * 10)
    yield
    with opened("f", os.O_RDWR) as fd:
        m = mmap.mmap(fd, 10)
        same(m[:], b"x" * 10)
        address = ctypes.addressof(ctypes.c_char.from_buffer(m))
        same(ctypes.string_at(address, 4096), b"x" * 10 + bytes(4086))
        os.ftruncate(fd, 4096)
        same(os.pread(fd, 5000, 0), b"x" * 10 + bytes(4086))


@case
def mmap_shared_between_processes():
    put("f", bytes(4096))
    yield
    with mapping("f", 4096) as m:

        def writes():
            with mapping("f", 4096) as other:
                other[7] = 77

        in_child(writes)
        same(m[7], 77)


@case(reads=True)
def mmap_of_a_large_file_reads_it_all():
    put("f", noise(2_500_000))
    yield
    with mapping("f", 2_500_000, prot=mmap.PROT_READ, mode=os.O_RDONLY) as m:
        true(m[:] == noise(2_500_000), "content")


@case(reads=True)
def mmap_executes():
    shutil.copy("/bin/true", "program")
    os.chmod("program", 0o755)
    yield
    pid = os.fork()
    if pid == 0:
        os.execv("./program", ["program"])
    same(os.waitpid(pid, 0)[1], 0, "status")
