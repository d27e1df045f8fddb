"""unlink(2), and files that live on without a name."""
import mmap
import os

from kit import *


@case
def unlink_removes_the_name():
    folder("d")
    put("d/f", b"x")
    os.symlink("f", "d/l")
    fifo("d/p")
    put("d/keep", b"kept")
    yield
    for name in "flp":
        with touched({"d": "mc", "d/keep": "", ".": ""}):
            os.unlink(f"d/{name}")
        absent(f"d/{name}")
        refused(ENOENT, os.unlink, f"d/{name}")
    same(names("d"), ["keep"])
    yield KILL
    same(names("d"), ["keep"])
    absent("d/f", "d/l", "d/p")


@case
def unlink_refuses_what_it_must():
    folder("d")
    put("f", b"x")
    yield
    with unchanged("d", "f", "."):
        refused(EISDIR, os.unlink, "d")
        refused(EISDIR, os.unlink, "d/.")
        refused(ENOENT, os.unlink, "none")
        refused(ENOENT, os.unlink, "none/x")
        refused(ENOTDIR, os.unlink, "f/x")
        refused(ENOTDIR, os.unlink, "f/")
        refused(ENAMETOOLONG, os.unlink, "n" * 256)
        refused(EISDIR, os.unlink, "..")


@case
def unlink_of_a_symlink_keeps_its_target():
    put("f", b"x")
    os.symlink("f", "l")
    folder("d")
    os.symlink("d", "ld")
    yield
    with unchanged("f", "d"):
        os.unlink("l")
        os.unlink("ld")
        refused(ENOTDIR, os.unlink, "f/")
    absent("l", "ld")


@case
def unlink_lowers_the_link_count():
    put("a", b"text")
    os.link("a", "b")
    os.link("a", "c")
    yield
    with touched({".": "mc"}):
        os.unlink("a")
    same((links("b"), links("c")), (2, 2))
    os.unlink("b")
    same(links("c"), 1)
    same(get("c"), b"text")
    yield REMOUNT
    same((links("c"), names()), (1, ["c"]))


@case
def unlink_changes_ctime_of_the_other_names():
    put("a", b"text")
    os.link("a", "b")
    yield
    with touched({"b": "c"}):
        os.unlink("a")


@case
def unlink_while_open():
    put("f", b"0123456789")
    yield
    with opened("f", os.O_RDWR) as fd:
        with touched({fd: "c"}):
            os.unlink("f")
        s = os.fstat(fd)
        same((s.st_nlink, s.st_size), (0, 10))
        os.pwrite(fd, b"AB", 8)
        os.pwrite(fd, b"more", 20)
        same(everything(fd), b"01234567AB" + bytes(10) + b"more")
        os.ftruncate(fd, 3)
        same(os.fstat(fd).st_size, 3)
        os.fchmod(fd, 0o612)
        same(stat.S_IMODE(os.fstat(fd).st_mode), 0o612)
        os.utime(fd, ns=(5, 6))
        same(os.fstat(fd).st_mtime_ns, 6)
        os.fsync(fd)
    absent("f")


@case
def unlink_while_open_for_reading():
    put("f", noise(200_000))
    yield
    with opened("f", os.O_RDONLY) as fd:
        os.unlink("f")
        same(everything(fd), noise(200_000))
        same(os.fstat(fd).st_nlink, 0)


@case
def unlink_while_mapped():
    put("f", b"m" * 8192)
    yield
    with opened("f", os.O_RDWR) as fd:
        mapped = mmap.mmap(fd, 8192)
        os.unlink("f")
    mapped[4096:4100] = b"text"
    mapped.flush()
    same(mapped[4094:4102], b"mmtextmm")
    put("f", b"another")
    same(mapped[0:2], b"mm")
    mapped.close()
    same(get("f"), b"another")


@case
def unlink_of_an_open_file_keeps_xattrs():
    put("f", b"x")
    setxattr("f", "user.a", b"1")
    yield
    with opened("f", os.O_RDWR) as fd:
        os.unlink("f")
        same(os.getxattr(fd, "user.a"), b"1")
        os.setxattr(fd, "user.b", b"2")
        same(sorted(os.listxattr(fd)), ["user.a", "user.b"])
        os.removexattr(fd, "user.a")
        refused(ENODATA, os.getxattr, fd, "user.a")


@case
def unlink_open_and_link_of_the_descriptor():
    """Without O_TMPFILE a file that has lost its last name does not get another."""
    put("f", b"x")
    yield
    with opened("f", os.O_RDWR) as fd:
        os.unlink("f")
        refused(ENOENT, link_descriptor, fd, "again")
    absent("again")


@case
def unlink_one_of_two_while_open():
    put("a", b"text")
    os.link("a", "b")
    yield
    with opened("a", os.O_RDWR) as fd:
        os.unlink("a")
        same(os.fstat(fd).st_nlink, 1)
        os.write(fd, b"TE")
        same(get("b"), b"TExt")
        link_descriptor(fd, "c")
        same((links("b"), get("c")), (2, b"TExt"))


@case
def unlink_a_fifo_in_use():
    fifo("p")
    yield
    with opened("p", os.O_RDWR | os.O_NONBLOCK) as fd:
        os.unlink("p")
        os.write(fd, b"still")
        same(os.read(fd, 10), b"still")
        same(os.fstat(fd).st_nlink, 0)
    absent("p")


@case
def unlink_and_make_again_many_times():
    put("f", b"first")
    yield
    for i in range(30):
        os.unlink("f")
        absent("f")
        put("f", str(i).encode())
        same((get("f"), links("f")), (str(i).encode(), 1))
    os.unlink("f")
    yield KILL
    absent("f")
    same(names(), [])


@case
def unlink_every_name_of_a_directory():
    folder("d")
    for i in range(50):
        put(f"d/f{i}", b"x")
    yield
    for i in range(50):
        os.unlink(f"d/f{i}")
    same(names("d"), [])
    yield REMOUNT
    same(names("d"), [])
    os.rmdir("d")
    absent("d")


@case(root=True)
def unlink_needs_write_of_the_directory():
    folder("d", 0o755, ALICE)
    put("d/f", b"x", 0o666, BOB)
    yield
    with user(BOB), unchanged("d", "d/f"):
        refused(EACCES, os.unlink, "d/f")
    with user(ALICE):
        os.unlink("d/f")
    absent("d/f")


@case(root=True)
def unlink_in_a_sticky_directory():
    """Who owns neither the file nor the directory may not, whatever the file's mode."""
    folder("d", 0o1777, CAROL)
    for name in "abcg":
        put(f"d/{name}", b"x", 0o666, ALICE, TEAM)
    folder("d/dir", 0o777, ALICE)
    yield
    with user(BOB, TEAM), unchanged("d", "d/a"):
        refused((EPERM, EACCES), os.unlink, "d/a")
        refused((EPERM, EACCES), os.rmdir, "d/dir")
        refused((EPERM, EACCES), os.rename, "d/a", "d/z")
    with user(ALICE):
        os.unlink("d/a")
        os.rmdir("d/dir")
    with user(CAROL):
        os.unlink("d/b")
    os.unlink("d/c")
    same(names("d"), ["g"])


@case(root=True)
def unlink_a_device():
    os.mknod("c", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod("b", 0o600 | stat.S_IFBLK, os.makedev(7, 200))
    yield
    os.unlink("c")
    os.unlink("b")
    absent("c", "b")
    yield REMOUNT
    absent("c", "b")
