"""open(2) of what exists: flags, types, errors."""
import os
import socket

from kit import *


@case
def open_without_create_of_nothing():
    with unchanged("."):
        refused(ENOENT, os.open, "none", os.O_RDONLY)
        refused(ENOENT, os.open, "none", os.O_RDWR | os.O_TRUNC)
        refused(ENOENT, os.open, "none/x", os.O_RDONLY)
        refused(ENOENT, os.open, "none/x", os.O_WRONLY | os.O_CREAT)


@case
def open_through_a_file():
    put("f", b"x")
    yield
    with unchanged("f", "."):
        refused(ENOTDIR, os.open, "f/x", os.O_RDONLY)
        refused(ENOTDIR, os.open, "f/x", os.O_WRONLY | os.O_CREAT)
        refused(ENOTDIR, os.open, "f/", os.O_RDONLY)
        refused(ENOTDIR, os.open, "f/.", os.O_RDONLY)
        refused(ENOTDIR, os.open, "f", os.O_RDONLY | os.O_DIRECTORY)


@case
def open_existing_with_create_changes_nothing():
    put("f", b"x", 0o640)
    yield
    with unchanged("f", "."):
        os.close(os.open("f", os.O_RDWR | os.O_CREAT, 0o777))


@case
def open_truncates():
    put("f", b"some text", 0o640)
    yield
    with touched({"f": "mc", ".": ""}):
        os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))
    same(get("f"), b"")
    same(mode_of("f"), 0o640)


@case
def open_truncates_empty():
    put("f")
    yield
    with touched({"f": "mc", ".": ""}):
        os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))


@case
def open_truncates_existing_with_create():
    put("f", noise(70000), 0o604)
    yield
    with touched({"f": "mc", ".": ""}):
        os.close(os.open("f", os.O_WRONLY | os.O_TRUNC | os.O_CREAT, 0o777))
    same((get("f"), mode_of("f")), (b"", 0o604))


@case
def open_for_writing_alone_changes_no_time():
    put("f", noise(5000))
    yield
    with touched({"f": "", ".": ""}):
        os.close(os.open("f", os.O_RDWR))
        os.close(os.open("f", os.O_WRONLY | os.O_APPEND))
    same(get("f"), noise(5000))


@case
def open_exclusive_of_what_exists():
    put("f", b"x")
    folder("d")
    os.symlink("f", "l")
    os.symlink("none", "dangling")
    fifo("p")
    yield
    for name in ("f", "d", "l", "dangling", "p"):
        with unchanged(name, "."):
            refused(EEXIST, os.open, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            refused(EEXIST, os.open, name, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o600)
    absent("none")


@case
def open_of_a_directory_for_writing():
    folder("d")
    yield
    with unchanged("d", "."):
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_RDONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT):
            refused(EISDIR, os.open, "d", flags)


@case
def open_of_a_directory_reads_nothing():
    folder("d")
    yield
    with opened("d", os.O_RDONLY) as fd:
        refused(EISDIR, os.read, fd, 10)
        refused(EISDIR, os.pread, fd, 10, 0)
        refused(EBADF, os.write, fd, b"x")
        refused(EINVAL, os.ftruncate, fd, 0)


@case
def open_nofollow_of_a_symlink():
    put("f", b"x")
    os.symlink("f", "l")
    folder("d")
    os.symlink("d", "ld")
    yield
    refused(ELOOP, os.open, "l", os.O_RDONLY | os.O_NOFOLLOW)
    refused(ELOOP, os.open, "l", os.O_WRONLY | os.O_NOFOLLOW)
    refused(ELOOP, os.open, "l", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW)
    refused(ENOTDIR, os.open, "ld", os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    with opened("ld/../l", os.O_RDONLY) as fd:
        same(os.read(fd, 9), b"x")


@case
def open_symlink_loop():
    os.symlink("b", "a")
    os.symlink("a", "b")
    os.symlink("self", "self")
    yield
    for name in ("a", "b", "self", "a/x"):
        refused(ELOOP, os.open, name, os.O_RDONLY)
        refused(ELOOP, os.stat, name)
    refused(ELOOP, os.open, "self", os.O_WRONLY | os.O_CREAT)


@case
def open_creates_through_a_dangling_symlink():
    folder("d")
    os.symlink("d/made", "l")
    yield
    with touched({"d": "mc", ".": "", "l": ""}):
        with opened("l", os.O_WRONLY | os.O_CREAT, 0o640) as fd:
            os.write(fd, b"new")
    same((get("d/made"), mode_of("d/made")), (b"new", 0o640))
    same(os.readlink("l"), "d/made")


@case
def open_create_with_a_slash_at_the_end():
    folder("d")
    put("f")
    yield
    with unchanged("."):
        refused(EISDIR, os.open, "none/", os.O_WRONLY | os.O_CREAT)
        refused(EISDIR, os.open, "d/", os.O_WRONLY | os.O_CREAT)
        refused((EISDIR, ENOTDIR), os.open, "f/", os.O_WRONLY | os.O_CREAT)


@case
def open_path_only():
    put("f", b"text", 0o600)
    os.symlink("f", "l")
    folder("d")
    put("d/x", b"in d")
    yield
    with opened("f", os.O_PATH) as fd:
        same(os.fstat(fd).st_size, 4)
        refused(EBADF, os.read, fd, 1)
        refused(EBADF, os.write, fd, b"x")
        refused(EBADF, os.fchmod, fd, 0o777)
        same(get(f"/proc/self/fd/{fd}"), b"text")
    with opened("l", os.O_PATH | os.O_NOFOLLOW) as fd:
        same(os.readlink("", dir_fd=fd), "f")
        same(stat.S_ISLNK(os.fstat(fd).st_mode), True, "is a symlink")
    with opened("d", os.O_PATH) as fd:
        with opened("x", os.O_RDONLY, dir_fd=fd) as inner:
            same(os.read(inner, 9), b"in d")
    same(mode_of("f"), 0o600)


@case
def open_write_only_cannot_read():
    put("f", b"text")
    yield
    with opened("f", os.O_WRONLY) as fd:
        refused(EBADF, os.read, fd, 1)
    with opened("f", os.O_RDONLY) as fd:
        refused(EBADF, os.write, fd, b"x")
        refused(EINVAL, os.ftruncate, fd, 1)
    same(get("f"), b"text")


@case
def open_fifo_without_a_reader():
    fifo("p")
    yield
    refused(ENXIO, os.open, "p", os.O_WRONLY | os.O_NONBLOCK)
    with opened("p", os.O_RDONLY | os.O_NONBLOCK) as reader:
        with opened("p", os.O_WRONLY | os.O_NONBLOCK) as writer:
            os.write(writer, b"through")
            same(os.read(reader, 20), b"through")


@case
def open_of_a_socket():
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind("s")
    server.listen(1)
    refused(ENXIO, os.open, "s", os.O_RDONLY)
    refused(ENXIO, os.open, "s", os.O_WRONLY)
    true(stat.S_ISSOCK(os.lstat("s").st_mode), "it is a socket")
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect("s")
    client.sendall(b"hello")
    same(server.accept()[0].recv(9), b"hello")


@case
def open_truncate_for_reading_truncates():
    put("f", b"text")
    yield
    with touched({"f": "mc"}):
        os.close(os.open("f", os.O_RDONLY | os.O_TRUNC))
    same(get("f"), b"")


@case
def open_again_by_descriptor():
    put("f", b"text")
    yield
    with opened("f", os.O_RDWR) as fd:
        os.unlink("f")
        with opened(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_APPEND) as again:
            os.write(again, b" and more")
        same(everything(fd), b"text and more")
    absent("f")


@case
def open_by_two_names_is_one_file():
    put("a", b"0123456789")
    os.link("a", "b")
    yield
    with opened("a", os.O_RDWR) as first, opened("b", os.O_RDWR) as second:
        os.pwrite(first, b"AB", 2)
        same(os.pread(second, 10, 0), b"01AB456789")
        os.ftruncate(second, 4)
        same(os.pread(first, 10, 0), b"01AB")


@case
def open_long_paths():
    folder("d")
    put("d/f", b"x")
    yield
    refused(ENAMETOOLONG, os.open, "n" * 256, os.O_RDONLY)
    refused(ENAMETOOLONG, os.open, "n" * 256, os.O_WRONLY | os.O_CREAT)
    longest = "d/" + "./" * ((4095 - 3) // 2) + "f"
    same(len(longest), 4095, "length")
    same(get(longest), b"x")
    refused(ENAMETOOLONG, os.open, "/" + longest, os.O_RDONLY)


@case
def open_directory_relative():
    folder("d")
    put("d/f", b"one")
    yield
    with opened("d", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rename("d", "moved")
        with opened("f", os.O_WRONLY | os.O_APPEND, dir_fd=fd) as inner:
            os.write(inner, b"two")
        os.close(os.open("new", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=fd))
    same(get("moved/f"), b"onetwo")
    same(names("moved"), ["f", "new"])


@case
def open_synchronous():
    put("f", b"x")
    yield
    with opened("f", os.O_WRONLY | os.O_SYNC) as fd:
        os.write(fd, b"one")
    with opened("f", os.O_WRONLY | os.O_DSYNC | os.O_APPEND) as fd:
        os.write(fd, b"two")
    same(get("f"), b"onetwo")


@case(root=True)
def open_noatime_is_the_owners():
    put("f", b"x", 0o644, ALICE)
    yield
    with user(BOB):
        refused(EPERM, os.open, "f", os.O_RDONLY | os.O_NOATIME)
    with user(ALICE):
        os.close(os.open("f", os.O_RDONLY | os.O_NOATIME))
    os.close(os.open("f", os.O_RDONLY | os.O_NOATIME))


@case(root=True)
def open_asks_for_permission():
    put("f", b"x", 0o640, ALICE, TEAM)
    yield
    for mode, reads, writes in ((0o400, True, False), (0o200, False, True), (0o600, True, True), (0o000, False, False)):
        for who, shift in (((ALICE, ALICE), 0), ((BOB, TEAM), 3), ((CAROL, CAROL), 6)):
            os.chmod("f", mode >> shift)
            with user(*who):
                for flags, may in ((os.O_RDONLY, reads), (os.O_WRONLY, writes), (os.O_RDWR, reads and writes)):
                    if may:
                        os.close(os.open("f", flags))
                    else:
                        refused(EACCES, os.open, "f", flags)
                if not writes:
                    refused(EACCES, os.open, "f", os.O_RDONLY | os.O_TRUNC)
    same(get("f"), b"x")


@case(root=True)
def open_asks_the_first_class_that_fits():
    """The owner is not asked as one of the group or of the others, nor one of the group as one of the others."""
    put("f", b"x", 0o077, ALICE, TEAM)
    put("g", b"x", 0o707, ALICE, TEAM)
    yield
    with user(ALICE):
        refused(EACCES, os.open, "f", os.O_RDONLY)
    with user(BOB, TEAM):
        refused(EACCES, os.open, "g", os.O_RDONLY)
        os.close(os.open("f", os.O_RDWR))
    with user(CAROL):
        os.close(os.open("g", os.O_RDWR))


@case(root=True)
def open_by_a_supplementary_group():
    put("f", b"x", 0o060, 0, CLUB)
    yield
    with user(BOB, BOB):
        refused(EACCES, os.open, "f", os.O_RDONLY)
    with user(BOB, BOB, TEAM, CLUB):
        with opened("f", os.O_RDWR) as fd:
            os.write(fd, b"y")
    same(get("f"), b"y")


@case(root=True)
def open_needs_search_of_the_way():
    folder("d", 0o700, ALICE)
    put("d/f", b"x", 0o666)
    yield
    with user(BOB):
        refused(EACCES, os.open, "d/f", os.O_RDONLY)
        refused(EACCES, os.open, "d/none", os.O_RDONLY)
        refused(EACCES, os.stat, "d/f")
    os.chmod("d", 0o644)
    with user(BOB):
        refused(EACCES, os.open, "d/f", os.O_RDONLY)
        same(os.listdir("d"), ["f"])
    os.chmod("d", 0o711)
    with user(BOB):
        same(get("d/f"), b"x")
        refused(EACCES, os.listdir, "d")


@case(root=True)
def open_root_reads_what_nobody_may():
    put("f", b"x", 0o000, ALICE)
    folder("d", 0o000, ALICE)
    yield
    same(get("f"), b"x")
    with opened("f", os.O_RDWR) as fd:
        os.write(fd, b"y")
    put("d/made", b"z")
    same(names("d"), ["made"])
    refused(EACCES, os.execv, "f", ["f"])


@case(root=True)
def open_of_a_device():
    os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod("zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    os.mknod("nothing", 0o666 | stat.S_IFCHR, os.makedev(250, 77))
    yield
    with opened("null", os.O_RDWR) as fd:
        os.write(fd, b"gone")
        same(os.read(fd, 5), b"")
    with opened("zero", os.O_RDONLY) as fd:
        same(os.read(fd, 5), bytes(5))
    refused((ENXIO, ENODEV), os.open, "nothing", os.O_RDONLY)


@case(reads=True)
def open_and_read_everything():
    put("f", noise(300_000))
    put("small", b"x" * 100)
    put("empty")
    folder("d")
    put("d/f", b"deep")
    os.symlink("d/f", "l")
    yield
    same(get("f"), noise(300_000))
    same(get("small"), b"x" * 100)
    same(get("empty"), b"")
    same(get("l"), b"deep")
    same(names(), ["d", "empty", "f", "l", "small"])
    with opened("f", os.O_RDONLY) as fd:
        same(os.pread(fd, 10, 299_995), noise(300_000)[299_995:])
        same(os.pread(fd, 10, 300_000), b"")
        same(os.pread(fd, 10, 1 << 40), b"")
