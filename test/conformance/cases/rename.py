"""rename(2): names of what is not a directory, and what it refuses."""
import os
import socket

from kit import *


def make_each():
    put("f", b"text", 0o640)
    os.symlink("t", "l")
    fifo("p", 0o622)


@case
def rename_to_a_new_name():
    make_each()
    folder("d")
    yield
    for name in "flp":
        was = look(name)
        with touched({".": "mc", "d": "mc"}):
            os.rename(name, f"d/{name}2")
        now = look(f"d/{name}2")
        for key in was:
            if key != "ctime":
                same(now[key], was[key], f"{key} of {name}")
        absent(name)
    yield REMOUNT
    same((names(), names("d")), (["d"], ["f2", "l2", "p2"]))
    same((get("d/f2"), mode_of("d/f2"), os.readlink("d/l2"), mode_of("d/p2")), (b"text", 0o640, "t", 0o622))


@case
def rename_changes_ctime():
    put("f", b"text")
    folder("d")
    yield
    before = os.lstat("f").st_ctime_ns, os.lstat("d").st_ctime_ns
    tick()
    os.rename("f", "g")
    os.rename("d", "e")
    true(os.lstat("g").st_ctime_ns > before[0], "ctime of the file grows")
    true(os.lstat("e").st_ctime_ns > before[1], "ctime of the directory grows")


@case
def rename_over_each_type():
    for source in "flp":
        for target in "flp":
            folder(source + target)
            os.chdir(source + target)
            put("f", b"source" if source == "f" else b"target", 0o640)
            os.symlink(f"of-{source}", "l")
            fifo("p")
            if source == target:
                {"f": lambda: put("other", b"target"), "l": lambda: os.symlink("x", "other"), "p": lambda: fifo("other")}[
                    source
                ]()
            os.chdir("..")
    yield
    for source in "flp":
        for target in "flp":
            to = "other" if source == target else target
            at = source + target
            number = ino(f"{at}/{source}")
            with touched({at: "mc"}):
                os.rename(f"{at}/{source}", f"{at}/{to}")
            absent(f"{at}/{source}")
            same((ino(f"{at}/{to}"), links(f"{at}/{to}")), (number, 1), at)
    yield REMOUNT
    for target in "lp":
        same(get(f"f{target}/{target}"), b"source")
    same(get("ff/other"), b"source")
    same([os.readlink(f"l{to}") for to in ("f/f", "l/other", "p/p")], ["of-l"] * 3)
    same(names("ff"), ["l", "other", "p"])
    same([names(at) for at in ("lf", "pf", "fl", "fp")], [["f", "p"], ["f", "l"], ["l", "p"], ["l", "p"]])


@case
def rename_over_a_file_that_is_open():
    put("old", b"old")
    put("new", b"new")
    yield
    with opened("old", os.O_RDWR) as fd:
        os.rename("new", "old")
        same((os.fstat(fd).st_nlink, everything(fd)), (0, b"old"))
        os.write(fd, b"OLD")
        same(get("old"), b"new")
    same(names(), ["old"])


@case
def rename_of_an_open_file():
    put("f", b"text")
    folder("d")
    yield
    with opened("f", os.O_RDWR) as fd:
        os.rename("f", "d/g")
        os.pwrite(fd, b"TE", 0)
        same(get("d/g"), b"TExt")
        os.rename("d/g", "f")
        os.ftruncate(fd, 3)
        same((get("f"), os.fstat(fd).st_nlink), (b"TEx", 1))


@case
def rename_to_itself_does_nothing():
    put("f", b"x")
    folder("d")
    yield
    with unchanged("f", "d", "."):
        os.rename("f", "f")
        os.rename("d", "d")
        os.rename("d", "./d")
        os.rename("d/../f", "f")


@case
def rename_between_names_of_one_file_does_nothing():
    put("a", b"x")
    os.link("a", "b")
    folder("d")
    os.link("a", "d/c")
    yield
    with unchanged("a", "b", "d", "."):
        os.rename("a", "b")
        os.rename("b", "d/c")
    same((names(), names("d"), links("a")), (["a", "b", "d"], ["c"], 3))


@case
def rename_over_one_of_several_names():
    put("a", b"a")
    os.link("a", "b")
    put("c", b"c")
    yield
    os.rename("c", "b")
    same((get("a"), links("a"), get("b"), links("b")), (b"a", 1, b"c", 1))
    yield REMOUNT
    same((get("a"), links("a"), get("b"), links("b"), names()), (b"a", 1, b"c", 1, ["a", "b"]))


@case
def rename_over_a_name_changes_ctime_of_the_others():
    put("a", b"a")
    os.link("a", "b")
    put("c", b"c")
    yield
    with touched({"a": "c"}):
        os.rename("c", "b")


@case
def rename_one_of_several_names():
    put("a", b"text")
    os.link("a", "b")
    folder("d")
    yield
    number = ino("a")
    os.rename("a", "d/c")
    same((ino("b"), ino("d/c"), links("b"), links("d/c")), (number, number, 2, 2))
    put("d/c", b"new")
    same(get("b"), b"new")
    yield REMOUNT
    same((ino("b"), ino("d/c"), links("b"), get("b")), (number, number, 2, b"new"))
    absent("a")


@case
def rename_of_nothing():
    folder("d")
    put("f")
    yield
    with unchanged(".", "d", "f"):
        refused(ENOENT, os.rename, "none", "x")
        refused(ENOENT, os.rename, "none", "f")
        refused(ENOENT, os.rename, "none", "d")
        refused(ENOENT, os.rename, "none/x", "x")
        refused(ENOENT, os.rename, "f", "none/x")
        refused(ENOTDIR, os.rename, "f/x", "y")
        refused(ENOTDIR, os.rename, "d", "f/x")


@case
def rename_between_file_and_directory():
    folder("d")
    folder("full")
    put("full/x", b"x")
    put("f", b"f")
    os.symlink("d", "l")
    fifo("p")
    yield
    with unchanged("d", "full", "f", "l", "p", "."):
        for name in "flp":
            refused(EISDIR, os.rename, name, "d")
            refused((EISDIR, ENOTEMPTY), os.rename, name, "full")
            refused(ENOTDIR, os.rename, "d", name)
            refused(ENOTDIR, os.rename, "full", name)


@case
def rename_with_slashes_at_the_end():
    put("f", b"x")
    folder("d")
    os.symlink("d", "l")
    yield
    with unchanged("f", "d", "."):
        refused(ENOTDIR, os.rename, "f/", "x")
        refused(ENOTDIR, os.rename, "f", "x/")
        refused(ENOTDIR, os.rename, "l/", "x")
    os.rename("d/", "e/")
    same(names(), ["e", "f", "l"])


@case
def rename_of_dots():
    folder("d")
    yield
    with unchanged("d", "."):
        refused((EBUSY, EINVAL), os.rename, "d/.", "x")
        refused((EBUSY, EINVAL), os.rename, "d/..", "x")
        refused((EBUSY, EINVAL, EEXIST, ENOTEMPTY), os.rename, "d", "d/..")
        refused((EBUSY, EINVAL), os.rename, "d", "d/.")


@case
def rename_to_names_that_are_too_long():
    put("f", b"x")
    yield
    with unchanged("f", "."):
        refused(ENAMETOOLONG, os.rename, "f", "n" * 256)
        refused(ENAMETOOLONG, os.rename, "n" * 256, "f")
        refused(ENAMETOOLONG, renameat2, "f", "n" * 256, NOREPLACE)
    os.rename("f", "n" * 255)
    same(names(), ["n" * 255])


@case
def rename_back_and_forth():
    put("a", b"a")
    put("b", b"b")
    yield
    for _ in range(10):
        os.rename("a", "t")
        os.rename("b", "a")
        os.rename("t", "b")
        os.rename("a", "t")
        os.rename("b", "a")
        os.rename("t", "b")
    same((get("a"), get("b"), names()), (b"a", b"b", ["a", "b"]))
    os.rename("a", "c")
    os.rename("c", "a")
    yield KILL
    same((get("a"), get("b"), names()), (b"a", b"b", ["a", "b"]))


@case
def rename_over_then_unlink_shows_nothing():
    put("a", b"a")
    put("b", b"b")
    yield
    os.rename("a", "b")
    os.unlink("b")
    absent("a", "b")
    put("a", b"new a")
    yield KILL
    same(names(), ["a"])
    same(get("a"), b"new a")


@case
def rename_noreplace():
    put("a", b"a")
    put("b", b"b")
    folder("d")
    os.symlink("none", "l")
    yield
    with unchanged("a", "b", "d", "l", "."):
        for target in ("b", "d", "l", "a"):
            refused(EEXIST, renameat2, "a", target, NOREPLACE)
        refused(EEXIST, renameat2, "d", "b", NOREPLACE)
        refused(ENOENT, renameat2, "none", "x", NOREPLACE)
    renameat2("a", "c", NOREPLACE)
    renameat2("d", "e", NOREPLACE)
    same((get("c"), names()), (b"a", ["b", "c", "e", "l"]))
    # A name that has gone is free.
    os.unlink("b")
    renameat2("c", "b", NOREPLACE)
    same(get("b"), b"a")
    yield REMOUNT
    same((get("b"), names()), (b"a", ["b", "e", "l"]))


@case
def rename_exchange():
    put("a", b"a", 0o600)
    put("b", b"b", 0o644)
    folder("d")
    put("d/x", b"in d")
    os.symlink("t", "l")
    yield
    numbers = ino("a"), ino("b"), ino("d"), ino("l")
    with touched({".": "mc"}):
        renameat2("a", "b", EXCHANGE)
    same((get("a"), get("b"), ino("a"), ino("b")), (b"b", b"a", numbers[1], numbers[0]))
    renameat2("a", "d", EXCHANGE)
    same((get("d"), names("a"), ino("a")), (b"b", ["x"], numbers[2]))
    renameat2("l", "a", EXCHANGE)
    same((os.readlink("a"), get("l/x"), ino("a")), ("t", b"in d", numbers[3]))
    renameat2("a", "a", EXCHANGE)
    yield REMOUNT
    same((os.readlink("a"), get("b"), get("d"), get("l/x")), ("t", b"a", b"b", b"in d"))
    same((ino("b"), ino("d"), ino("l"), ino("a")), numbers)


@case
def rename_exchange_refuses_what_it_must():
    put("a", b"a")
    folder("d")
    folder("d/e")
    yield
    with unchanged("a", "d", "."):
        refused(ENOENT, renameat2, "a", "none", EXCHANGE)
        refused(ENOENT, renameat2, "none", "a", EXCHANGE)
        refused(EINVAL, renameat2, "d", "d/e", EXCHANGE)
        refused((EINVAL, ENOTEMPTY), renameat2, "d/e", "d", EXCHANGE)
        refused(EINVAL, renameat2, "a", "d", EXCHANGE | NOREPLACE)
        refused(EINVAL, renameat2, "a", "d", 1 << 7)


@case
def rename_exchange_across_directories():
    folder("d")
    folder("e")
    folder("d/sub")
    put("d/sub/deep", b"deep")
    put("e/f", b"file")
    yield
    with touched({"d": "mc", "e": "mc"}):
        renameat2("d/sub", "e/f", EXCHANGE)
    same((get("d/sub"), get("e/f/deep")), (b"file", b"deep"))
    same((links("d"), links("e")), (2, 3))
    same(ino("e/f/.."), ino("e"))
    yield REMOUNT
    same((get("d/sub"), get("e/f/deep"), links("d"), links("e")), (b"file", b"deep", 2, 3))


@case(root=True)
def rename_whiteout_leaves_a_device():
    put("a", b"a")
    yield
    renameat2("a", "b", WHITEOUT)
    same(get("b"), b"a")
    s = os.lstat("a")
    true(stat.S_ISCHR(s.st_mode) and s.st_rdev == 0, "a device 0:0 stays")
    yield REMOUNT
    true(stat.S_ISCHR(os.lstat("a").st_mode), "a device 0:0 stays after a remount")
    same(names(), ["a", "b"])


@case(root=True)
def rename_needs_write_of_both_directories():
    folder("mine", 0o755, ALICE)
    folder("other", 0o755, BOB)
    put("mine/f", b"x", 0o644, ALICE)
    put("other/g", b"y", 0o644, BOB)
    yield
    with user(ALICE), unchanged("mine", "other", "mine/f", "other/g"):
        refused(EACCES, os.rename, "mine/f", "other/f")
        refused(EACCES, os.rename, "other/g", "mine/g")
        refused(EACCES, os.rename, "mine/f", "other/g")
        refused(EACCES, os.rename, "other/g", "other/h")
    with user(ALICE):
        os.rename("mine/f", "mine/h")
    same(names("mine"), ["h"])


@case(root=True)
def rename_in_sticky_directories():
    folder("sticky", 0o1777, CAROL)
    folder("open", 0o777)
    put("sticky/a", b"a", 0o666, ALICE)
    put("sticky/b", b"b", 0o666, BOB)
    put("open/c", b"c", 0o666, BOB)
    yield
    with user(BOB), unchanged("sticky", "sticky/a", "open"):
        refused((EPERM, EACCES), os.rename, "sticky/a", "open/a")
        refused((EPERM, EACCES), os.rename, "sticky/b", "sticky/a")
        refused((EPERM, EACCES), os.rename, "open/c", "sticky/a")
    with user(BOB):
        os.rename("sticky/b", "open/b")
    with user(CAROL):
        os.rename("sticky/a", "sticky/z")
    same((names("sticky"), names("open")), (["z"], ["b", "c"]))


@case(root=True)
def rename_a_device():
    os.mknod("c", 0o644 | stat.S_IFCHR, os.makedev(1, 3))
    put("f", b"f")
    yield
    os.rename("c", "x")
    s = os.lstat("x")
    same((stat.S_ISCHR(s.st_mode), s.st_rdev), (True, os.makedev(1, 3)))
    os.rename("x", "f")
    yield REMOUNT
    s = os.lstat("f")
    same((stat.S_ISCHR(s.st_mode), s.st_rdev, names()), (True, os.makedev(1, 3), ["f"]))


@case
def rename_a_socket():
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind("s")
    server.listen(1)
    os.rename("s", "t")
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect("t")
    client.sendall(b"x")
    same(server.accept()[0].recv(2), b"x")
