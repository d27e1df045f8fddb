"""O_TMPFILE, and giving such a file a name."""
import fcntl
import mmap
import os

from kit import *

TMP = os.O_TMPFILE


@case
def tmpfile_has_no_name():
    folder("d")
    yield
    with umask(0o027), unchanged("d"):
        with opened("d", TMP | os.O_RDWR, 0o666) as fd:
            os.write(fd, b"text")
            s = os.fstat(fd)
            same((s.st_nlink, s.st_size, stat.S_IMODE(s.st_mode)), (0, 4, 0o640))
            same((s.st_uid, s.st_gid, everything(fd)), (os.geteuid(), os.getegid(), b"text"))
    same(names("d"), [])


@case
def tmpfile_is_linked():
    folder("d")
    yield
    with opened("d", TMP | os.O_RDWR, 0o640) as fd:
        os.write(fd, b"text")
        os.setxattr(fd, "user.a", b"1")
        with touched({"d": "mc"}):
            link_descriptor(fd, "d/named")
        same((os.fstat(fd).st_nlink, ino("d/named") == os.fstat(fd).st_ino), (1, True))
        os.write(fd, b" more")
        link_descriptor(fd, "again")
    same((get("d/named"), mode_of("d/named"), links("again"), getxattr("again", "user.a")), (b"text more", 0o640, 2, b"1"))
    yield KILL
    same((get("d/named"), mode_of("d/named"), links("again")), (b"text more", 0o640, 2))


@case
def tmpfile_linked_where_a_name_was():
    put("f", b"old")
    yield
    with opened(".", TMP | os.O_RDWR, 0o600) as fd:
        os.write(fd, b"new")
        refused(EEXIST, link_descriptor, fd, "f")
        os.unlink("f")
        link_descriptor(fd, "f")
    same((get("f"), links("f")), (b"new", 1))
    yield REMOUNT
    same((get("f"), links("f")), (b"new", 1))


@case
def tmpfile_exclusive_is_never_linked():
    with opened(".", TMP | os.O_RDWR | os.O_EXCL, 0o600) as fd:
        refused(ENOENT, link_descriptor, fd, "f")
    absent("f")


@case
def tmpfile_refuses_what_it_must():
    put("f")
    folder("d")
    yield
    refused(ENOTDIR, os.open, "f", TMP | os.O_RDWR)
    refused(ENOENT, os.open, "none", TMP | os.O_RDWR)
    refused(EINVAL, os.open, "d", TMP | os.O_RDONLY)


@case
def tmpfile_in_a_removed_directory():
    folder("d")
    yield
    with opened("d", os.O_RDONLY) as at:
        os.rmdir("d")
        refused((ENOENT, EPERM), os.open, ".", TMP | os.O_RDWR, dir_fd=at)


@case
def tmpfile_is_mapped_cut_and_locked():
    with opened(".", TMP | os.O_RDWR, 0o600) as fd:
        os.ftruncate(fd, 8192)
        m = mmap.mmap(fd, 8192)
        m[5000:5004] = b"text"
        m.flush()
        same(os.pread(fd, 4, 5000), b"text")
        m.close()
        os.ftruncate(fd, 5002)
        same(os.pread(fd, 9, 5000), b"te")
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.fchmod(fd, 0o644)
        os.utime(fd, ns=(1, 2))
        same((os.fstat(fd).st_mtime_ns, stat.S_IMODE(os.fstat(fd).st_mode)), (2, 0o644))


@case(root=True)
def tmpfile_of_another_user():
    folder("d", 0o2777, 0, TEAM)
    folder("closed", 0o755)
    yield
    with user(ALICE):
        refused(EACCES, os.open, "closed", TMP | os.O_RDWR)
        with opened("d", TMP | os.O_RDWR, 0o600) as fd:
            s = os.fstat(fd)
            same((s.st_uid, s.st_gid), (ALICE, TEAM))
            link_descriptor(fd, "d/f")
    same(owner("d/f"), (ALICE, TEAM))
