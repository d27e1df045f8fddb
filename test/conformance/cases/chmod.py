"""chmod(2) and its relatives."""
import os

from kit import *


@case
def chmod_sets_every_bit():
    put("f", b"text")
    folder("d")
    fifo("p")
    yield
    for name in "fdp":
        for mode in (0o000, 0o111, 0o4755, 0o2755, 0o1777, 0o7777, 0o600, 0o755):
            os.chmod(name, mode)
            same(mode_of(name), mode, name)
        with touched({name: "c", ".": ""}):
            os.chmod(name, 0o755)
    same(get("f"), b"text")
    yield REMOUNT
    same([mode_of(name) for name in "fdp"], [0o755] * 3)


@case
def chmod_to_the_same_mode_changes_ctime():
    put("f", mode=0o644)
    yield
    with touched({"f": "c"}):
        os.chmod("f", 0o644)


@case
def chmod_keeps_everything_else():
    put("f", noise(150_000), 0o644)
    setxattr("f", "user.kept", b"value")
    os.utime("f", ns=(1_000_000_001, 1_500_000_000_123_456_789))
    yield
    was = look("f")
    os.chmod("f", 0o4711)
    now = look("f")
    for key in was:
        if key not in ("mode", "ctime"):
            same(now[key], was[key], key)
    yield KILL
    now = look("f")
    same((now["mode"], now["mtime"], now["xattrs"]), (oct(0o104711), was["mtime"], was["xattrs"]))
    true(now["data"] == was["data"], "content")


@case
def chmod_by_one_name_shows_by_the_other():
    put("a", b"x", 0o644)
    folder("d")
    os.link("a", "d/b")
    yield
    os.chmod("a", 0o600)
    same((mode_of("d/b"), links("d/b"), ino("a")), (0o600, 2, ino("d/b")))
    os.chmod("d/b", 0o640)
    same(mode_of("a"), 0o640)
    yield REMOUNT
    same((mode_of("a"), mode_of("d/b"), links("a")), (0o640, 0o640, 2))


@case
def chmod_of_a_descriptor():
    put("f", mode=0o644)
    folder("d")
    yield
    for name in "fd":
        with opened(name, os.O_RDONLY) as fd:
            with touched({name: "c"}):
                os.fchmod(fd, 0o700)
            same(stat.S_IMODE(os.fstat(fd).st_mode), 0o700)
        same(mode_of(name), 0o700)


@case
def chmod_follows_symlinks():
    put("f", mode=0o644)
    os.symlink("f", "l")
    os.symlink("none", "dangling")
    yield
    with touched({"f": "c", "l": ""}):
        os.chmod("l", 0o600)
    same((mode_of("f"), mode_of("l")), (0o600, 0o777))
    refused(ENOENT, os.chmod, "dangling", 0o600)


@case
def chmod_of_a_symlink_itself():
    """Linux has no modes of symlinks: fchmodat2(2) refuses."""
    os.symlink("t", "l")
    yield

    def lchmod():
        call(libc.syscall(452, AT_FDCWD, b"l", 0o600, AT_SYMLINK_NOFOLLOW))

    with unchanged("l"):
        refused((EOPNOTSUPP, ENOSYS), lchmod)
    same(mode_of("l"), 0o777)


@case
def chmod_refuses_what_it_must():
    put("f")
    os.symlink("self", "self")
    yield
    with unchanged("f"):
        refused(ENOENT, os.chmod, "none", 0o600)
        refused(ENOTDIR, os.chmod, "f/x", 0o600)
        refused(ELOOP, os.chmod, "self", 0o600)
        refused(ENAMETOOLONG, os.chmod, "n" * 256, 0o600)
        refused(EBADF, os.fchmod, 999, 0o600)


@case(root=True)
def chmod_is_the_owners():
    put("f", b"", 0o644, ALICE)
    folder("d", 0o777, ALICE)
    yield
    with user(BOB), unchanged("f", "d"):
        refused(EPERM, os.chmod, "f", 0o666)
        refused(EPERM, os.chmod, "d", 0o700)
        with opened("f", os.O_RDONLY) as fd:
            refused(EPERM, os.fchmod, fd, 0o666)
    with user(ALICE):
        os.chmod("f", 0o640)
        os.chmod("d", 0o1700)
    same((mode_of("f"), mode_of("d")), (0o640, 0o1700))


@case(root=True)
def chmod_setgid_needs_the_group():
    """Of a file whose group is not one of the caller's the bit is dropped without a word."""
    put("f", b"", 0o755, ALICE, TEAM)
    folder("d", 0o755, ALICE, TEAM)
    yield
    with user(ALICE, ALICE):
        os.chmod("f", 0o2755)
        os.chmod("d", 0o2755)
    same((mode_of("f"), mode_of("d")), (0o755, 0o755))
    with user(ALICE, ALICE, TEAM):
        os.chmod("f", 0o2755)
        os.chmod("d", 0o2755)
    same((mode_of("f"), mode_of("d")), (0o2755, 0o2755))
    os.chmod("f", 0o755)
    with user(ALICE, TEAM):
        os.chmod("f", 0o6755)
    same(mode_of("f"), 0o6755)


@case(root=True)
def chmod_sticky_of_a_users_file():
    put("f", b"", 0o644, ALICE)
    yield
    with user(ALICE):
        os.chmod("f", 0o1644)
    same(mode_of("f"), 0o1644)


@case(root=True)
def chmod_takes_effect_at_once():
    put("f", b"x", 0o644, ALICE)
    folder("d", 0o755)
    put("d/f", b"y", 0o644)
    yield
    with user(BOB):
        same(get("f"), b"x")
        same(get("d/f"), b"y")
    os.chmod("f", 0o600)
    os.chmod("d", 0o700)
    with user(BOB):
        refused(EACCES, os.open, "f", os.O_RDONLY)
        refused(EACCES, os.stat, "d/f")
    os.chmod("f", 0o604)
    os.chmod("d", 0o701)
    with user(BOB):
        same(get("f"), b"x")
        same(get("d/f"), b"y")


@case(root=True)
def chmod_of_a_device():
    os.mknod("c", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    yield
    with touched({"c": "c"}):
        os.chmod("c", 0o622)
    s = os.lstat("c")
    same((stat.S_IMODE(s.st_mode), s.st_rdev), (0o622, os.makedev(1, 3)))
    yield REMOUNT
    s = os.lstat("c")
    same((stat.S_IMODE(s.st_mode), s.st_rdev, stat.S_ISCHR(s.st_mode)), (0o622, os.makedev(1, 3), True))
