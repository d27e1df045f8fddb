"""symlink(2), readlink(2), and the ways through them."""
import os

from kit import *


@case
def symlink_is_made():
    folder("d")
    yield
    with touched({"d": "mc"}):
        os.symlink("some/target", "d/l")
    s = os.lstat("d/l")
    same((s.st_nlink, s.st_size, stat.S_ISLNK(s.st_mode), stat.S_IMODE(s.st_mode)), (1, 11, True, 0o777))
    same((s.st_uid, s.st_gid, os.readlink("d/l")), (os.geteuid(), os.getegid(), "some/target"))
    yield REMOUNT
    same((os.readlink("d/l"), os.lstat("d/l").st_size), ("some/target", 11))


@case
def symlink_of_what_exists():
    put("f")
    folder("d")
    os.symlink("none", "dangling")
    yield
    with unchanged("f", "d", "dangling", "."):
        for name in ("f", "d", "dangling", "."):
            refused(EEXIST, os.symlink, "t", name)
    absent("none")


@case
def symlink_refuses_what_it_must():
    put("f")
    os.symlink("self", "self")
    yield
    with unchanged("."):
        refused(ENOENT, os.symlink, "", "l")
        refused(ENOENT, os.symlink, "t", "none/l")
        refused(ENOENT, os.symlink, "t", "none/")
        refused(ENOTDIR, os.symlink, "t", "f/l")
        refused(ELOOP, os.symlink, "t", "self/l")
        refused(ENAMETOOLONG, os.symlink, "t", "n" * 256)
        refused(ENAMETOOLONG, os.symlink, "t" * 4096, "l")


@case
def symlink_targets_of_every_length():
    for size in (1, 59, 60, 255, 1000, 4094, 4095):
        target = ("t" * 200 + "/") * 25
        os.symlink(target[:size].rstrip("/") or "x", f"l{size}")
    yield
    for size in (1, 59, 60, 255, 1000, 4094, 4095):
        wanted = (("t" * 200 + "/") * 25)[:size].rstrip("/")
        same(os.readlink(f"l{size}"), wanted, size)
        same(os.lstat(f"l{size}").st_size, len(wanted))
        os.symlink(wanted, f"m{size}")
        same(os.readlink(f"m{size}"), wanted)


@case
def symlink_target_is_bytes():
    target = bytes(range(1, 256))
    os.symlink(target, b"l")
    yield
    same(os.readlink(b"l"), target)
    os.symlink(target, b"m")
    same(os.readlink(b"m"), target)


@case
def symlink_is_followed_on_the_way_and_at_the_end():
    folder("d")
    put("d/f", b"x")
    os.symlink("d", "ld")
    os.symlink("ld/f", "lf")
    os.symlink(final("d"), "absolute")
    os.symlink("../d/f", "d/up")
    yield
    same([get(name) for name in ("ld/f", "lf", "absolute/f", "d/up", "absolute/../lf")], [b"x"] * 5)
    same(os.stat("lf").st_ino, ino("d/f"))
    put("absolute/new", b"made through it")
    same(get("d/new"), b"made through it")
    os.rename("absolute/new", "ld/newer")
    same(get("d/newer"), b"made through it")
    os.unlink("ld/newer")
    absent("d/newer")
    same(sorted(os.listdir("ld")), ["f", "up"])


@case
def symlink_with_an_absolute_target_and_every_call():
    """The paths of the mount are none of the daemon's: what follows them must be the kernel alone."""
    put("f", b"text", 0o644)
    os.symlink(final("f"), "l")
    yield
    os.chmod("l", 0o600)
    os.utime("l", ns=(5, 6))
    os.truncate("l", 2)
    os.chown("l", os.geteuid(), -1)
    with opened("l", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b"!")
    same((get("f"), mode_of("f"), os.readlink("l")), (b"te!", 0o600, final("f")))
    call(libc.linkat(AT_FDCWD, b"l", AT_FDCWD, b"hard", AT_SYMLINK_FOLLOW))
    same((links("f"), ino("hard")), (2, ino("f")))
    os.link("l", "hardlink", follow_symlinks=False)
    same(os.readlink("hardlink"), final("f"))
    os.unlink("l")
    same(get("f"), b"te!")


@case
def readlink_of_what_is_none():
    put("f")
    folder("d")
    os.symlink("12345", "l")
    yield
    refused(EINVAL, os.readlink, "f")
    refused(EINVAL, os.readlink, "d")
    refused(ENOENT, os.readlink, "none")
    refused(ENOTDIR, os.readlink, "f/x")
    buffer = ctypes.create_string_buffer(3)
    same((call(libc.readlink(b"l", buffer, 3)), buffer.raw), (3, b"123"))


@case
def symlink_has_hard_links():
    os.symlink("t", "l")
    os.link("l", "m", follow_symlinks=False)
    yield
    same((links("l"), links("m"), ino("l") == ino("m")), (2, 2, True))
    os.link("m", "n", follow_symlinks=False)
    os.unlink("l")
    same((links("n"), os.readlink("m")), (2, "t"))
    yield REMOUNT
    same((links("n"), os.readlink("m"), names()), (2, "t", ["m", "n"]))


@case
def symlink_forty_deep():
    put("f", b"x")
    os.symlink("f", "l0")
    for i in range(1, 45):
        os.symlink(f"l{i - 1}", f"l{i}")
    yield
    same(get("l39"), b"x")
    refused(ELOOP, os.open, "l40", os.O_RDONLY)


@case
def symlink_replaced_in_one_step():
    os.symlink("one", "l")
    yield
    os.symlink("two", "tmp")
    os.rename("tmp", "l")
    same((os.readlink("l"), names()), ("two", ["l"]))
    os.unlink("l")
    os.symlink("three", "l")
    same(os.readlink("l"), "three")
    yield KILL
    same(os.readlink("l"), "three")


@case(root=True)
def symlink_can_be_read_by_all():
    folder("d", 0o711, ALICE)
    os.symlink("t", "d/l")
    os.lchown("d/l", ALICE, ALICE)
    yield
    with user(BOB):
        same(os.readlink("d/l"), "t")
