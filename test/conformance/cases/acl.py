"""POSIX ACLs: kept, checked, inherited, and tied to the mode."""
import os
import struct

from kit import *

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 0x10, 0x20
NOBODY = 0xFFFFFFFF


def acl(*entries):
    """The value of an ACL: entries are (tag, permissions) or (tag, permissions, id)."""
    packed = b"".join(struct.pack("<HHI", e[0], e[1], e[2] if len(e) > 2 else NOBODY) for e in entries)
    return struct.pack("<I", 2) + packed


def entries(name, key=ACCESS):
    value = os.getxattr(name, key)
    same(value[:4], struct.pack("<I", 2), "version")
    found = [struct.unpack_from("<HHI", value, at) for at in range(4, len(value), 8)]
    return [e[:2] if e[2] == NOBODY else e for e in found]


def named(who, permissions, mask=7):
    return ((USER_OBJ, 6), (USER, permissions, who), (GROUP_OBJ, 4), (MASK, mask), (OTHER, 0))


@case
def acl_is_kept_and_shows_in_the_mode():
    put("f", b"x", 0o640)
    folder("d", 0o750)
    yield
    for name in "fd":
        with touched({name: "c"}):
            os.setxattr(name, ACCESS, acl((USER_OBJ, 6), (USER, 7, 1234), (GROUP_OBJ, 4), (MASK, 5), (OTHER, 1)))
        same(oct(mode_of(name)), oct(0o651), name)
        same(entries(name), [(USER_OBJ, 6), (USER, 7, 1234), (GROUP_OBJ, 4), (MASK, 5), (OTHER, 1)])
        same(os.listxattr(name), [ACCESS])
    yield REMOUNT
    for name in "fd":
        same((oct(mode_of(name)), entries(name)[1]), (oct(0o651), (USER, 7, 1234)))


@case
def acl_made_before_is_kept():
    put("f", b"x", 0o640)
    os.setxattr("f", ACCESS, acl(*named(1234, 6)))
    folder("d")
    os.setxattr("d", DEFAULT, acl(*named(1234, 7)))
    yield
    same((entries("f"), entries("d", DEFAULT)), ([*named(1234, 6)], [*named(1234, 7)]))
    with opened("f", os.O_WRONLY) as fd:
        os.write(fd, b"y")
    os.utime("d", ns=(1, 1))
    yield KILL
    same((entries("f"), entries("d", DEFAULT), get("f")), ([*named(1234, 6)], [*named(1234, 7)], b"y"))


@case
def acl_follows_chmod():
    put("f", b"x", 0o640)
    os.setxattr("f", ACCESS, acl((USER_OBJ, 6), (USER, 7, 1234), (GROUP_OBJ, 4), (MASK, 7), (OTHER, 0)))
    yield
    os.chmod("f", 0o714)
    same(entries("f"), [(USER_OBJ, 7), (USER, 7, 1234), (GROUP_OBJ, 4), (MASK, 1), (OTHER, 4)])
    same(oct(mode_of("f")), oct(0o714))


@case
def acl_that_says_no_more_than_a_mode_is_a_mode():
    put("f", b"x", 0o600)
    yield
    os.setxattr("f", ACCESS, acl((USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 1)))
    same((oct(mode_of("f")), os.listxattr("f")), (oct(0o751), []))
    refused(ENODATA, os.getxattr, "f", ACCESS)


@case
def acl_is_removed():
    put("f", b"x", 0o640)
    os.setxattr("f", ACCESS, acl(*named(1234, 7)))
    folder("d")
    os.setxattr("d", DEFAULT, acl(*named(1234, 7)))
    yield
    os.removexattr("f", ACCESS)
    os.removexattr("d", DEFAULT)
    same((os.listxattr("f"), os.listxattr("d")), ([], []))
    same(oct(mode_of("f")), oct(0o670))
    put("d/f", mode=0o644)
    same(os.listxattr("d/f"), [])


@case
def acl_default_is_inherited():
    folder("d", 0o755)
    os.setxattr("d", DEFAULT, acl((USER_OBJ, 7), (USER, 6, 1234), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 5)))
    yield
    with umask(0o077):
        os.close(os.open("d/f", os.O_WRONLY | os.O_CREAT, 0o664))
        os.mkdir("d/sub", 0o770)
        os.mkfifo("d/p", 0o666)
        os.symlink("t", "d/l")
    # The umask does not count; the mode asked for does.
    same(entries("d/f"), [(USER_OBJ, 6), (USER, 6, 1234), (GROUP_OBJ, 5), (MASK, 6), (OTHER, 4)])
    same(oct(mode_of("d/f")), oct(0o664))
    same(entries("d/sub"), [(USER_OBJ, 7), (USER, 6, 1234), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 0)])
    same(entries("d/sub", DEFAULT), [(USER_OBJ, 7), (USER, 6, 1234), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 5)])
    same(oct(mode_of("d/p")), oct(0o664))
    same(listxattr("d/l"), [])
    os.mkdir("d/sub/more", 0o700)
    same(entries("d/sub/more", DEFAULT), entries("d", DEFAULT))
    yield REMOUNT
    same(entries("d/sub/more", DEFAULT), entries("d", DEFAULT))
    put("d/sub/more/f", mode=0o640)
    same(oct(mode_of("d/sub/more/f")), oct(0o640))


@case
def acl_default_is_inherited_over_removed_names():
    folder("d", 0o755)
    put("d/f")
    folder("d/sub")
    os.setxattr("d", DEFAULT, acl((USER_OBJ, 7), (USER, 6, 1234), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 5)))
    yield
    os.unlink("d/f")
    os.rmdir("d/sub")
    with umask(0o077):
        os.close(os.open("d/f", os.O_WRONLY | os.O_CREAT, 0o664))
        os.mkdir("d/sub", 0o770)
    same(entries("d/f"), [(USER_OBJ, 6), (USER, 6, 1234), (GROUP_OBJ, 5), (MASK, 6), (OTHER, 4)])
    same(entries("d/sub"), [(USER_OBJ, 7), (USER, 6, 1234), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 0)])
    same(entries("d/sub", DEFAULT), entries("d", DEFAULT))


@case
def acl_default_of_three_entries_replaces_the_umask():
    folder("d", 0o755)
    os.setxattr("d", DEFAULT, acl((USER_OBJ, 7), (GROUP_OBJ, 7), (OTHER, 0)))
    yield
    with umask(0o022):
        os.close(os.open("d/f", os.O_WRONLY | os.O_CREAT, 0o666))
        os.mkdir("d/sub", 0o777)
    same((oct(mode_of("d/f")), oct(mode_of("d/sub"))), (oct(0o660), oct(0o770)))
    same((os.listxattr("d/f"), os.listxattr("d/sub")), ([], [DEFAULT]))


@case(root=True)
def acl_default_is_inherited_by_devices():
    folder("d", 0o755)
    os.setxattr("d", DEFAULT, acl((USER_OBJ, 7), (USER, 6, 1234), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 5)))
    folder("plain", 0o755)
    os.setxattr("plain", DEFAULT, acl((USER_OBJ, 7), (GROUP_OBJ, 4), (OTHER, 1)))
    yield
    with umask(0o077):
        for name, kind, number in (("c", stat.S_IFCHR, (1, 3)), ("b", stat.S_IFBLK, (7, 9)), ("zero", stat.S_IFCHR, (0, 0))):
            os.mknod(f"d/{name}", 0o664 | kind, os.makedev(*number))
            os.mknod(f"plain/{name}", 0o666 | kind, os.makedev(*number))
    for name in ("c", "b", "zero"):
        same(entries(f"d/{name}"), [(USER_OBJ, 6), (USER, 6, 1234), (GROUP_OBJ, 5), (MASK, 6), (OTHER, 4)], name)
        same((oct(mode_of(f"d/{name}")), oct(mode_of(f"plain/{name}"))), (oct(0o664), oct(0o640)), name)
        same(listxattr(f"plain/{name}"), [], name)
    yield REMOUNT
    same(entries("d/zero"), [(USER_OBJ, 6), (USER, 6, 1234), (GROUP_OBJ, 5), (MASK, 6), (OTHER, 4)])


@case(root=True)
def acl_default_is_inherited_by_what_a_rename_leaves():
    folder("d", 0o755)
    os.setxattr("d", DEFAULT, acl((USER_OBJ, 7), (USER, 6, 1234), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 5)))
    put("d/f")
    yield
    renameat2("d/f", "d/g", WHITEOUT)
    expected = [(USER_OBJ, 0), (USER, 6, 1234), (GROUP_OBJ, 5), (MASK, 0), (OTHER, 0)]
    same((entries("d/f"), mode_of("d/f")), (expected, 0))
    yield REMOUNT
    same((entries("d/f"), mode_of("d/f")), (expected, 0))


@case
def acl_default_is_for_directories():
    put("f")
    fifo("p")
    yield
    with unchanged("f"):
        refused(EACCES, os.setxattr, "f", DEFAULT, acl(*named(1234, 7)))
        refused(EACCES, os.setxattr, "p", DEFAULT, acl(*named(1234, 7)))
    refused(ENODATA, os.getxattr, "f", DEFAULT)


@case
def acl_that_is_malformed():
    put("f")
    os.symlink("f", "l")
    yield
    with unchanged("f"):
        refused(EINVAL, os.setxattr, "f", ACCESS, acl((USER, 7, 1234)))
        refused(EINVAL, os.setxattr, "f", ACCESS, acl((USER_OBJ, 7), (USER, 7, 1234), (GROUP_OBJ, 5), (OTHER, 0)))
        refused((EINVAL, EOPNOTSUPP), os.setxattr, "f", ACCESS, b"\x07\0\0\0")
        refused((EINVAL, ERANGE), os.setxattr, "f", ACCESS, acl((USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 0))[:-3])
    refused(EOPNOTSUPP, setxattr, "l", ACCESS, acl(*named(1234, 7)))


@case(root=True)
def acl_is_checked():
    put("f", b"x", 0o600, ALICE)
    os.setxattr("f", ACCESS, acl((USER_OBJ, 6), (USER, 4, BOB), (GROUP_OBJ, 0), (GROUP, 6, CLUB), (MASK, 6), (OTHER, 0)))
    yield
    with user(BOB):
        same(get("f"), b"x")
        refused(EACCES, os.open, "f", os.O_WRONLY)
    with user(CAROL, CAROL, CLUB):
        os.close(os.open("f", os.O_RDWR))
    with user(CAROL):
        refused(EACCES, os.open, "f", os.O_RDONLY)
    os.chmod("f", 0o640)
    with user(CAROL, CAROL, CLUB):
        refused(EACCES, os.open, "f", os.O_WRONLY)
        same(get("f"), b"x")
    os.removexattr("f", ACCESS)
    with user(BOB):
        refused(EACCES, os.open, "f", os.O_RDONLY)


@case(root=True)
def acl_is_the_owners_to_change():
    put("f", b"x", 0o666, ALICE)
    yield
    with user(BOB), unchanged("f"):
        refused(EPERM, os.setxattr, "f", ACCESS, acl(*named(BOB, 7)))
        refused(EPERM, os.removexattr, "f", ACCESS)
    with user(ALICE):
        os.setxattr("f", ACCESS, acl(*named(BOB, 7)))
    same(entries("f"), [*named(BOB, 7)])


@case(root=True)
def acl_takes_setgid_from_who_is_not_of_the_group():
    put("f", b"x", 0o2755, ALICE, TEAM)
    put("g", b"x", 0o2755, ALICE, TEAM)
    yield
    with user(ALICE, ALICE):
        os.setxattr("f", ACCESS, acl((USER_OBJ, 7), (USER, 7, BOB), (GROUP_OBJ, 5), (MASK, 5), (OTHER, 5)))
    with user(ALICE, ALICE, TEAM):
        os.setxattr("g", ACCESS, acl((USER_OBJ, 7), (USER, 7, BOB), (GROUP_OBJ, 5), (MASK, 5), (OTHER, 5)))
    same((oct(mode_of("f")), oct(mode_of("g"))), (oct(0o755), oct(0o2755)))


@case(root=True)
def acl_default_and_setgid_together():
    folder("d", 0o2775, 0, TEAM)
    os.setxattr("d", DEFAULT, acl((USER_OBJ, 7), (USER, 6, BOB), (GROUP_OBJ, 7), (MASK, 7), (OTHER, 5)))
    os.chmod("d", 0o2777)
    yield
    with user(ALICE, ALICE):
        os.close(os.open("d/f", os.O_WRONLY | os.O_CREAT, 0o666))
        os.mkdir("d/sub", 0o777)
    same((owner("d/f"), oct(mode_of("d/f"))), ((ALICE, TEAM), oct(0o664)))
    same((owner("d/sub"), oct(mode_of("d/sub"))), ((ALICE, TEAM), oct(0o2775)))
    same(entries("d/sub", DEFAULT), entries("d", DEFAULT))
