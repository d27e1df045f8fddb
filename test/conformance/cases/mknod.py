"""mknod(2) and mkfifo(3): each type of object."""
import os
import select
import socket

from kit import *


@case
def mknod_makes_a_file():
    folder("d")
    yield
    with umask(0o022), touched({"d": "mc"}):
        os.mknod("d/f", 0o666 | stat.S_IFREG)
    s = os.lstat("d/f")
    same((stat.S_ISREG(s.st_mode), stat.S_IMODE(s.st_mode), s.st_size, s.st_nlink), (True, 0o644, 0, 1))
    put("d/f", b"usable")
    same(get("d/f"), b"usable")
    os.mknod("d/g", 0o600)
    true(stat.S_ISREG(os.lstat("d/g").st_mode), "no type is a file")


@case
def mknod_refuses_what_it_must():
    put("f")
    folder("d")
    os.symlink("none", "l")
    yield
    with unchanged("f", "d", "l", "."):
        for kind in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK):
            for name in "fdl":
                refused(EEXIST, os.mknod, name, 0o600 | kind)
            refused(ENOENT, os.mknod, "none/x", 0o600 | kind)
            refused(ENOTDIR, os.mknod, "f/x", 0o600 | kind)
            refused(ENAMETOOLONG, os.mknod, "n" * 256, 0o600 | kind)
        refused(EPERM, os.mknod, "x", 0o600 | stat.S_IFDIR)
        refused(EINVAL, os.mknod, "x", 0o600 | stat.S_IFLNK)


@case
def mkfifo_passes_bytes():
    fifo("p", 0o640)
    yield
    s = os.lstat("p")
    same((stat.S_ISFIFO(s.st_mode), stat.S_IMODE(s.st_mode), s.st_nlink), (True, 0o640, 1))
    pid = os.fork()
    if pid == 0:
        with opened("p", os.O_WRONLY) as fd:
            os.write(fd, b"from a child")
        os._exit(0)
    with opened("p", os.O_RDONLY) as fd:
        same(os.read(fd, 100), b"from a child")
    os.waitpid(pid, 0)
    same(os.lstat("p").st_size, 0)


@case
def mkfifo_two_names_one_pipe():
    fifo("p")
    os.link("p", "q")
    yield
    with opened("p", os.O_RDONLY | os.O_NONBLOCK) as reader, opened("q", os.O_WRONLY | os.O_NONBLOCK) as writer:
        os.write(writer, b"x")
        same(select.select([reader], [], [], 5)[0], [reader])
        same(os.read(reader, 5), b"x")
    same(links("p"), 2)


@case
def mkfifo_stays_in_use_while_it_changes():
    fifo("p")
    yield
    with opened("p", os.O_RDWR | os.O_NONBLOCK) as fd:
        os.write(fd, b"one")
        os.chmod("p", 0o600)
        os.utime("p", ns=(1, 2))
        os.rename("p", "q")
        with opened("q", os.O_WRONLY | os.O_NONBLOCK) as writer:
            os.write(writer, b"two")
        same(os.read(fd, 10), b"onetwo")
    same(mode_of("q"), 0o600)


@case
def socket_names_are_bound():
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with umask(0o027):
        server.bind("s")
    s = os.lstat("s")
    same((stat.S_ISSOCK(s.st_mode), stat.S_IMODE(s.st_mode)), (True, 0o750))
    refused(EADDRINUSE, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).bind, "s")
    client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    os.link("s", "t")
    client.sendto(b"x", "t")
    same(server.recv(5), b"x")
    os.unlink("s")
    refused(ENOENT, client.sendto, b"x", "s")
    client.sendto(b"y", "t")
    same(server.recv(5), b"y")
    server.close()
    refused(ECONNREFUSED, client.sendto, b"x", "t")


@case
def socket_of_a_name_from_before():
    """What is left of a socket that nobody listens on."""
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind("s")
    left.close()
    put("f")
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    refused(ECONNREFUSED, client.connect, "s")
    refused(ECONNREFUSED, client.connect, "f")
    refused(ENOENT, client.connect, "none")
    os.unlink("s")
    absent("s")


@case(root=True)
def mknod_makes_devices():
    for kind, name, number in ((stat.S_IFCHR, "c", (1, 3)), (stat.S_IFBLK, "b", (7, 200))):
        with umask(0):
            os.mknod(name, 0o640 | kind, os.makedev(*number))
        s = os.lstat(name)
        same((stat.S_IFMT(s.st_mode), stat.S_IMODE(s.st_mode), s.st_rdev), (kind, 0o640, os.makedev(*number)), name)
    yield
    same(os.lstat("c").st_rdev, os.makedev(1, 3))
    os.mknod("big", 0o600 | stat.S_IFCHR, os.makedev(0xFFF, 0xFFFFF))
    same(os.lstat("big").st_rdev, os.makedev(0xFFF, 0xFFFFF))
    yield REMOUNT
    same([os.lstat(n).st_rdev for n in ("c", "b", "big")], [os.makedev(*n) for n in ((1, 3), (7, 200), (0xFFF, 0xFFFFF))])


@case(root=True)
def mknod_of_device_zero_is_a_device():
    folder("d")
    put("f")
    yield
    os.mknod("d/z", 0o600 | stat.S_IFCHR, 0)
    s = os.lstat("d/z")
    same((stat.S_ISCHR(s.st_mode), s.st_rdev, names("d")), (True, 0, ["z"]))
    os.unlink("f")
    os.mknod("f", 0o600 | stat.S_IFCHR, 0)
    yield REMOUNT
    same((names(), names("d"), stat.S_ISCHR(os.lstat("f").st_mode)), (["d", "f"], ["z"], True))
    os.unlink("d/z")
    os.rename("f", "g")
    same((names(), names("d")), (["d", "g"], []))


@case(root=True)
def mknod_of_block_device_zero():
    os.mknod("b", 0o600 | stat.S_IFBLK, 0)
    s = os.lstat("b")
    same((stat.S_ISBLK(s.st_mode), s.st_rdev, names()), (True, 0, ["b"]))
    yield
    same(names(), ["b"])
    os.chmod("b", 0o640)
    yield REMOUNT
    same((names(), mode_of("b")), (["b"], 0o640))


@case(root=True)
def mknod_of_devices_is_roots():
    folder("d", 0o777)
    yield
    with user(ALICE), unchanged("d"):
        refused(EPERM, os.mknod, "d/c", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        refused(EPERM, os.mknod, "d/b", 0o600 | stat.S_IFBLK, os.makedev(1, 3))
    with user(ALICE):
        os.mknod("d/p", 0o600 | stat.S_IFIFO)
        os.mknod("d/s", 0o600 | stat.S_IFSOCK)
        os.mknod("d/f", 0o600 | stat.S_IFREG)
    same((names("d"), owner("d/s")), (["f", "p", "s"], (ALICE, ALICE)))


@case(root=True)
def mkfifo_asks_for_permission():
    fifo("p", 0o620)
    os.chown("p", ALICE, TEAM)
    yield
    with user(BOB):
        refused(EACCES, os.open, "p", os.O_RDONLY | os.O_NONBLOCK)
    with user(BOB, TEAM):
        refused(EACCES, os.open, "p", os.O_RDONLY | os.O_NONBLOCK)
        refused(ENXIO, os.open, "p", os.O_WRONLY | os.O_NONBLOCK)
    with user(ALICE):
        os.close(os.open("p", os.O_RDWR | os.O_NONBLOCK))


@case(root=True)
def socket_asks_for_permission():
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind("s")
    server.listen(5)
    os.chmod("s", 0o600)
    os.chown("s", ALICE, ALICE)
    with user(BOB):
        refused(EACCES, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect, "s")
    with user(ALICE):
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect("s")
    os.chmod("s", 0o666)
    with user(BOB):
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect("s")
