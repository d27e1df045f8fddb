"""chown(2), and what it and writing take from setuid, setgid and capable files."""
import mmap
import os
import struct

from kit import *

# VFS_CAP_REVISION_2, CAP_NET_RAW permitted and effective.
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


@case(root=True)
def chown_changes_owner_and_group():
    put("f", noise(150_000), 0o644)
    folder("d")
    os.symlink("t", "l")
    fifo("p")
    yield
    for name in "fdlp":
        was = look(name)
        with touched({name: "c", ".": ""}):
            os.lchown(name, ALICE, TEAM)
        same(owner(name), (ALICE, TEAM), name)
        os.lchown(name, -1, CLUB)
        same(owner(name), (ALICE, CLUB), name)
        os.lchown(name, BOB, -1)
        same(owner(name), (BOB, CLUB), name)
        now = look(name)
        for key in was:
            if key not in ("uid", "gid", "ctime"):
                same(now[key], was[key], f"{key} of {name}")
    yield REMOUNT
    for name in "fdlp":
        same(owner(name), (BOB, CLUB), name)
    true(get("f") == noise(150_000), "content")


@case(root=True)
def chown_follows_symlinks_or_not():
    put("f")
    os.symlink("f", "l")
    yield
    os.chown("l", ALICE, ALICE)
    same((owner("f"), owner("l")), ((ALICE, ALICE), (0, 0)))
    os.lchown("l", BOB, BOB)
    same((owner("f"), owner("l")), ((ALICE, ALICE), (BOB, BOB)))
    same(os.readlink("l"), "f")


@case(root=True)
def chown_by_one_name_shows_by_the_other():
    put("a")
    os.link("a", "b")
    yield
    os.chown("a", ALICE, TEAM)
    same((owner("b"), links("b")), ((ALICE, TEAM), 2))
    yield KILL
    same((owner("a"), owner("b"), links("b")), ((ALICE, TEAM), (ALICE, TEAM), 2))


@case(root=True)
def chown_by_descriptor():
    put("f")
    yield
    with opened("f", os.O_RDONLY) as fd:
        os.fchown(fd, ALICE, TEAM)
        s = os.fstat(fd)
        same((s.st_uid, s.st_gid), (ALICE, TEAM))


@case(root=True)
def chown_to_large_ids():
    put("f")
    yield
    for number in (65_535, 65_536, 2**31, 2**32 - 2):
        os.chown("f", number, number - 1)
        same(owner("f"), (number, number - 1))
    yield REMOUNT
    same(owner("f"), (2**32 - 2, 2**32 - 3))


@case(root=True)
def chown_by_the_owner():
    """A user may give a file to another of his groups and to nobody else."""
    put("f", b"", 0o644, ALICE, ALICE)
    yield
    with user(ALICE, ALICE, TEAM):
        with unchanged("f"):
            refused(EPERM, os.chown, "f", BOB, -1)
            refused(EPERM, os.chown, "f", -1, CLUB)
            refused(EPERM, os.chown, "f", BOB, TEAM)
        os.chown("f", -1, TEAM)
        os.chown("f", ALICE, TEAM)
    same(owner("f"), (ALICE, TEAM))
    with user(BOB, BOB, TEAM), unchanged("f"):
        refused(EPERM, os.chown, "f", -1, BOB)
        refused(EPERM, os.chown, "f", BOB, BOB)
        refused(EPERM, os.chown, "f", ALICE, TEAM)


@case
def chown_to_nothing_new():
    put("f")
    folder("d")
    yield
    for name in "fd":
        was = owner(name)
        os.chown(name, -1, -1)
        os.chown(name, os.geteuid(), -1)
        os.chown(name, -1, os.getegid())
        same(owner(name), was)


@case
def chown_refuses_what_it_must():
    put("f")
    os.symlink("self", "self")
    os.symlink("none", "dangling")
    yield
    me = os.geteuid()
    with unchanged("f"):
        refused(ENOENT, os.chown, "none", me, -1)
        refused(ENOENT, os.chown, "dangling", me, -1)
        refused(ENOTDIR, os.chown, "f/x", me, -1)
        refused(ELOOP, os.chown, "self", me, -1)
        refused(ENAMETOOLONG, os.chown, "n" * 256, me, -1)


@case(root=True)
def chown_takes_setuid_and_setgid_away():
    for name, mode in (("a", 0o6755), ("b", 0o6711), ("c", 0o4700), ("plain", 0o2644), ("e", 0o6555)):
        put(name, b"#!/bin/sh\n", mode, ALICE, ALICE)
    folder("d", 0o6755, ALICE, ALICE)
    yield
    with user(ALICE, ALICE, TEAM):
        for name in ("a", "plain", "d"):
            os.chown(name, -1, TEAM)
    os.chown("b", BOB, -1)
    os.chown("c", -1, TEAM)
    same((mode_of("a"), mode_of("b"), mode_of("c")), (0o755, 0o711, 0o700))
    # Without the group's x it was a mark of mandatory locking: root's chown keeps it. On directories the bits mean
    # something else.
    same(mode_of("d"), 0o6755)
    os.chown("e", -1, -1)
    same(mode_of("e"), 0o555)


@case
def chown_to_nothing_takes_setuid_away_and_changes_ctime():
    put("f", b"#!/bin/sh\n", 0o6755)
    folder("d", 0o2755)
    fifo("p")
    yield
    for name in "fdp":
        with touched({name: "c"}):
            os.chown(name, -1, -1)
    same((mode_of("f"), mode_of("d")), (0o755, 0o2755))


@case(root=True)
def chown_takes_setgid_of_a_directory_never():
    folder("d", 0o2755, ALICE, TEAM)
    yield
    os.chown("d", BOB, CLUB)
    same((mode_of("d"), owner("d")), (0o2755, (BOB, CLUB)))


@case(root=True)
def chown_takes_capabilities_away():
    put("f", b"x", 0o755)
    os.setxattr("f", "security.capability", CAPABILITY)
    yield
    same(os.getxattr("f", "security.capability"), CAPABILITY)
    os.chown("f", ALICE, -1)
    refused(ENODATA, os.getxattr, "f", "security.capability")
    yield REMOUNT
    refused(ENODATA, os.getxattr, "f", "security.capability")


@case(root=True)
def write_by_a_user_takes_setuid_and_setgid_away():
    for name in ("write", "pwrite", "truncate", "ftruncate", "otrunc", "append"):
        put(name, b"#!/bin/sh\n", 0o6777)
    yield
    with user(ALICE):
        for name in ("write", "pwrite", "append"):
            flags = os.O_WRONLY | (os.O_APPEND if name == "append" else 0)
            with opened(name, flags) as fd:
                os.write(fd, b"x")
        os.truncate("truncate", 1)
        with opened("ftruncate", os.O_WRONLY) as fd:
            os.ftruncate(fd, 3)
        os.close(os.open("otrunc", os.O_WRONLY | os.O_TRUNC))
    for name in ("write", "pwrite", "append", "truncate", "ftruncate", "otrunc"):
        same(oct(mode_of(name)), oct(0o777), name)
    yield REMOUNT
    for name in ("write", "pwrite", "append", "truncate", "ftruncate", "otrunc"):
        same(oct(mode_of(name)), oct(0o777), name)


@case(root=True)
def write_by_a_user_keeps_setgid_without_group_execution():
    put("f", b"text", 0o2767, 0, TEAM)
    yield
    with user(BOB, BOB, TEAM):
        with opened("f", os.O_WRONLY) as fd:
            os.write(fd, b"x")
    same(mode_of("f"), 0o2767)


@case(root=True)
def write_by_a_stranger_takes_even_that():
    """Since Linux 6.2, from who is not of the group."""
    put("f", b"text", 0o2767, 0, TEAM)
    yield
    with user(ALICE):
        with opened("f", os.O_WRONLY) as fd:
            os.write(fd, b"x")
    same(mode_of("f"), 0o767)


@case(root=True)
def write_by_a_user_into_fallocated_and_copied():
    for name in ("fallocate", "punch", "copy"):
        put(name, noise(10_000), 0o6777)
    put("source", noise(5000))
    yield
    with user(ALICE):
        with opened("fallocate", os.O_RDWR) as fd:
            fallocate(fd, 0, 0, 20_000)
        with opened("punch", os.O_RDWR) as fd:
            fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, 4096)
        with opened("copy", os.O_WRONLY) as fd, opened("source", os.O_RDONLY) as source:
            os.copy_file_range(source, fd, 5000)
    for name in ("fallocate", "punch", "copy"):
        same(oct(mode_of(name)), oct(0o777), name)


@case(root=True)
def write_by_mapping_keeps_setuid():
    """Nothing is asked when a page is written, by any filesystem."""
    put("f", b"x" * 4096, 0o4777)
    yield
    with user(ALICE), opened("f", os.O_RDWR) as fd:
        m = mmap.mmap(fd, 4096)
        m[0] = 65
        m.flush()
        m.close()
    same(get("f")[:2], b"Ax")


@case(root=True)
def write_by_root_keeps_setuid():
    put("f", b"text", 0o6755, ALICE, ALICE)
    yield
    with opened("f", os.O_RDWR) as fd:
        os.write(fd, b"T")
        os.ftruncate(fd, 2)
    os.truncate("f", 1)
    same((mode_of("f"), get("f")), (0o6755, b"T"))


@case(root=True)
def write_takes_capabilities_away():
    """From everyone, root too."""
    for name in ("write", "truncate", "otrunc", "root"):
        put(name, b"text", 0o777)
        os.setxattr(name, "security.capability", CAPABILITY)
    yield
    with user(ALICE):
        with opened("write", os.O_WRONLY) as fd:
            os.write(fd, b"x")
        os.truncate("truncate", 1)
        os.close(os.open("otrunc", os.O_WRONLY | os.O_TRUNC))
    with opened("root", os.O_WRONLY) as fd:
        os.write(fd, b"x")
    for name in ("write", "truncate", "otrunc", "root"):
        refused(ENODATA, os.getxattr, name, "security.capability")
        same(os.listxattr(name), [], name)


@case(root=True)
def capabilities_survive_what_is_no_write():
    put("f", b"text", 0o755)
    os.setxattr("f", "security.capability", CAPABILITY)
    yield
    os.chmod("f", 0o700)
    os.utime("f", ns=(1, 2))
    os.rename("f", "g")
    os.link("g", "h")
    setxattr("g", "user.x", b"1")
    same(os.getxattr("h", "security.capability"), CAPABILITY)
    yield KILL
    same(os.getxattr("g", "security.capability"), CAPABILITY)


@case(root=True)
def setuid_takes_effect_and_goes():
    """What the kernel has cached of the mode must not outlive the write."""
    put("f", b"x", 0o4755, BOB)
    os.chmod("f", 0o4777)
    yield
    same(mode_of("f"), 0o4777)
    with user(ALICE), opened("f", os.O_WRONLY) as fd:
        os.write(fd, b"y")
        same(stat.S_IMODE(os.fstat(fd).st_mode), 0o777)
    same(statx("f")["mode"] & 0o7777, 0o777)
