"""The same of every type of object: one case for each operation and type, made from a list of each."""
import os
import socket

from kit import *


def make_socket(name):
    socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).bind(name)


# How each is made, and whether that takes root. A socket has no place in an image, and is made by the body.
MAKE = {
    "file": (lambda name: put(name, b"text", 0o644), False),
    "directory": (folder, False),
    "symlink": (lambda name: os.symlink("target", name), False),
    "fifo": (lambda name: fifo(name, 0o644), False),
    "char": (lambda name: os.mknod(name, 0o644 | stat.S_IFCHR, os.makedev(1, 3)), True),
    "block": (lambda name: os.mknod(name, 0o644 | stat.S_IFBLK, os.makedev(7, 9)), True),
    "socket": (make_socket, False),
}


def of_each_type(kinds="file directory symlink fifo char block socket", objects=("x",), root=False):
    """Makes a case for each type from `act(kind)`: its setup makes `objects` of the type, in `d`, a folder for all."""

    def register(act):
        for kind in kinds.split():
            make, needs_root = MAKE[kind]

            def run(make=make, kind=kind):
                folder("d", 0o777)
                if kind == "socket":
                    yield
                for name in objects:
                    make(f"d/{name}")
                if kind != "socket":
                    yield
                yield from act(kind) or ()

            run.__name__, run.__module__ = f"{act.__name__}_{kind}", __name__
            case(root=root or needs_root)(run)
        return act

    return register


def remove(name, kind):
    (os.rmdir if kind == "directory" else os.unlink)(name)


@of_each_type()
def each_type_tells_itself(kind):
    s = os.lstat("d/x")
    same(
        (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK, stat.S_ISFIFO, stat.S_ISCHR, stat.S_ISBLK, stat.S_ISSOCK)[
            list(MAKE).index(kind)
        ](s.st_mode),
        True,
        "type",
    )
    same(s.st_nlink, 2 if kind == "directory" else 1)
    same((s.st_uid, s.st_gid), (os.geteuid(), os.getegid()))
    if kind in ("char", "block"):
        same(s.st_rdev, os.makedev(1, 3) if kind == "char" else os.makedev(7, 9))
    with opened("d/x", os.O_PATH | os.O_NOFOLLOW) as fd:
        same(os.fstat(fd).st_ino, s.st_ino)


@of_each_type("file directory fifo char block socket")
def each_type_changes_its_mode(kind):
    for mode in (0o111, 0o4711, 0o2644, 0o1777, 0o000, 0o640):
        os.chmod("d/x", mode)
        same(mode_of("d/x"), mode)
    with touched({"d/x": "c", "d": ""}):
        os.chmod("d/x", 0o751)
    os.symlink("x", "d/l")
    os.chmod("d/l", 0o715)
    same(mode_of("d/x"), 0o715)
    yield REMOUNT
    same(mode_of("d/x"), 0o715)


@of_each_type(root=True)
def each_type_changes_its_owner(kind):
    with touched({"d/x": "c", "d": ""}):
        os.lchown("d/x", ALICE, TEAM)
    same(owner("d/x"), (ALICE, TEAM))
    with user(ALICE, TEAM, CLUB):
        os.lchown("d/x", -1, CLUB)
        os.lchown("d/x", ALICE, TEAM)
        refused(EPERM, os.lchown, "d/x", BOB, -1)
    with user(BOB, BOB):
        with touched({"d/x": "c"}):
            os.lchown("d/x", -1, -1)
        with unchanged("d/x"):
            refused(EPERM, os.lchown, "d/x", BOB, BOB)
            refused(EPERM, os.lchown, "d/x", -1, BOB)
    same(owner("d/x"), (ALICE, TEAM))
    yield REMOUNT
    same(owner("d/x"), (ALICE, TEAM))


@of_each_type("file directory fifo char block socket", root=True)
def each_type_loses_setuid_with_its_owner(kind):
    """A directory does not: there the bits mean something else."""
    kept = kind == "directory"
    os.chown("d/x", ALICE, TEAM)
    os.chmod("d/x", 0o6555)
    with user(ALICE, TEAM, CLUB):
        os.chown("d/x", -1, CLUB)
    same(oct(mode_of("d/x")), oct(0o6555 if kept else 0o555))
    os.chmod("d/x", 0o6555)
    os.chown("d/x", BOB, BOB)
    same(oct(mode_of("d/x")), oct(0o6555 if kept else 0o555))


@of_each_type()
def each_type_has_its_times_set(kind):
    with touched({"d/x": "mc", "d": ""}):
        utimensat("d/x", (-5, 1), (4_300_000_000, 999_999_999), AT_SYMLINK_NOFOLLOW)
    s = os.lstat("d/x")
    same((s.st_atime_ns, s.st_mtime_ns), (-4_999_999_999, 4_300_000_000_999_999_999))
    yield REMOUNT
    same(os.lstat("d/x").st_mtime_ns, 4_300_000_000_999_999_999)


@of_each_type("file symlink fifo char block socket")
def each_type_is_linked(kind):
    number = ino("d/x")
    with touched({"d": "mc", "d/x": "c"}):
        os.link("d/x", "d/y", follow_symlinks=False)
    os.link("d/y", "z", follow_symlinks=False)
    same(([ino(n) for n in ("d/x", "d/y", "z")], [links(n) for n in ("d/x", "d/y", "z")]), ([number] * 3, [3] * 3))
    with unchanged("d/x", "d"):
        refused(EEXIST, os.link, "d/x", "d/y", follow_symlinks=False)
    os.lchown("d/y", -1, os.getegid())
    with touched({"d/x": "c"}):
        os.unlink("d/y")
    same((links("d/x"), links("z")), (2, 2))
    yield REMOUNT
    same((ino("z"), links("d/x"), links("z")), (ino("d/x"), 2, 2))
    os.unlink("d/x")
    same(links("z"), 1)


@of_each_type(objects=("x", "y"))
def each_type_is_renamed(kind):
    number, was = ino("d/x"), look("d/x")
    with touched({"d": "mc", ".": "mc"}):
        os.rename("d/x", "moved")
    absent("d/x")
    now = look("moved")
    for key in was:
        if key != "ctime":
            same(now[key], was[key], key)
    os.rename("moved", "d/y")
    same((ino("d/y"), names("d"), names()), (number, ["y"], ["d"]))
    yield KILL
    same((ino("d/y"), names("d"), names()), (number, ["y"], ["d"]))


@of_each_type(objects=("x", "y"))
def each_type_is_exchanged(kind):
    numbers = ino("d/x"), ino("d/y")
    renameat2("d/x", "d/y", EXCHANGE)
    same((ino("d/y"), ino("d/x")), numbers)
    put("f", b"file")
    renameat2("d/x", "f", EXCHANGE)
    same((get("d/x"), ino("f")), (b"file", numbers[1]))
    with unchanged("f", "d"):
        refused(EEXIST, renameat2, "d/y", "f", NOREPLACE)
    yield REMOUNT
    same((get("d/x"), ino("f"), ino("d/y")), (b"file", numbers[1], numbers[0]))


@of_each_type()
def each_type_is_removed_and_made_again(kind):
    make = MAKE[kind][0]
    number = ino("d/x")
    with touched({"d": "mc"}):
        remove("d/x", kind)
    absent("d/x")
    make("d/x")
    same((names("d"), links("d/x")), (["x"], 2 if kind == "directory" else 1))
    remove("d/x", kind)
    for other in MAKE:
        if MAKE[other][1] and os.geteuid() != 0:
            continue
        MAKE[other][0]("d/x")
        same(names("d"), ["x"])
        remove("d/x", other)
        same(names("d"), [])
    make("d/x")
    true(number > 0, "it had a number")
    yield KILL
    same(names("d"), ["x"])


@of_each_type(objects=("x", "y"), root=True)
def each_type_in_a_sticky_directory(kind):
    for name in "xy":
        os.lchown(f"d/{name}", ALICE, TEAM)
    os.chmod("d", 0o1777)
    make, needs_root = MAKE[kind]
    with user(BOB, TEAM), unchanged("d/x"):
        refused((EPERM, EACCES), remove, "d/x", kind)
        refused((EPERM, EACCES), os.rename, "d/x", "d/z")
        if not needs_root:
            make("d/mine")
            refused((EPERM, EACCES), os.rename, "d/mine", "d/x")
            remove("d/mine", kind)
    with user(ALICE):
        os.rename("d/x", "d/z")
        remove("d/z", kind)
    same(names("d"), ["y"])


@of_each_type("file directory")
def each_type_keeps_xattrs(kind):
    for i in range(5):
        setxattr("d/x", f"user.{i}", noise(50, i))
    os.chmod("d/x", 0o700)
    os.rename("d/x", "d/y")
    same(listxattr("d/y"), [f"user.{i}" for i in range(5)])
    yield REMOUNT
    for i in range(5):
        same(getxattr("d/y", f"user.{i}"), noise(50, i))


@of_each_type("symlink fifo char block socket")
def each_type_refuses_data(kind):
    with unchanged("d/x"):
        if kind == "symlink":
            refused(ENOENT, truncate, "d/x", 0)
        else:
            refused(EINVAL, truncate, "d/x", 0)
        refused(EPERM, setxattr, "d/x", "user.a", b"1")
        refused(ENOTDIR if kind != "symlink" else ENOENT, os.lstat, "d/x/y")
        refused(ENOTDIR, os.rmdir, "d/x")
