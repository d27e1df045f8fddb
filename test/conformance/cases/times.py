"""utimensat(2), and which times each change touches."""
import os
import time

from kit import *

S = 1_000_000_000


@case
def times_are_set_to_the_nanosecond():
    put("f")
    folder("d")
    fifo("p")
    os.symlink("t", "l")
    yield
    for name in "fdpl":
        with touched({name: "mc", ".": ""}):
            utimensat(name, (1_100_000_000, 123_456_789), (1_200_000_000, 987_654_321), AT_SYMLINK_NOFOLLOW)
        s = os.lstat(name)
        same((s.st_atime_ns, s.st_mtime_ns), (1_100_000_000 * S + 123_456_789, 1_200_000_000 * S + 987_654_321), name)
    yield REMOUNT
    for name in "fdpl":
        same(os.lstat(name).st_mtime_ns, 1_200_000_000 * S + 987_654_321, name)


@case
def times_before_1970():
    put("f")
    folder("d")
    yield
    for name in "fd":
        for seconds, nanoseconds in ((-1, 0), (-1, 999_999_999), (-2_000_000_000, 5), (0, 0)):
            utimensat(name, (seconds, nanoseconds), (seconds, nanoseconds))
            s = os.lstat(name)
            same((s.st_atime_ns, s.st_mtime_ns), (seconds * S + nanoseconds,) * 2, name)
    utimensat("f", (-5, 1), (-6, 2))
    yield REMOUNT
    same(os.lstat("f").st_mtime_ns, -6 * S + 2)


@case
def times_after_2038_and_2106():
    put("f")
    yield
    for seconds in (2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 5, 15_000_000_000):
        utimensat("f", (seconds, 7), (seconds, 9))
        s = os.lstat("f")
        same((s.st_atime_ns, s.st_mtime_ns), (seconds * S + 7, seconds * S + 9))
    yield REMOUNT
    same(os.lstat("f").st_mtime_ns, 15_000_000_000 * S + 9)


@case(reads=True)
def times_of_what_was_made_show_as_set():
    moments = [-2_000_000_000 * S - 1, -1, 0, 1, 1_500_000_000 * S + 123_456_789, 2**32 * S + 5, 15_000_000_000 * S]
    for i, moment in enumerate(moments):
        put(f"f{i}")
        folder(f"d{i}")
        os.symlink("t", f"l{i}")
        for letter in "fdl":
            os.utime(f"{letter}{i}", ns=(moment, moment), follow_symlinks=False)
    yield
    for i, moment in enumerate(moments):
        for letter in "fdl":
            same(os.lstat(f"{letter}{i}").st_mtime_ns, moment, f"{letter}{i}")


@case
def times_omitted_and_now():
    put("f")
    os.utime("f", ns=(6 * S, 6 * S))
    yield
    utimensat("f", OMIT, (70, 7))
    same((os.lstat("f").st_atime_ns, os.lstat("f").st_mtime_ns), (6 * S, 70 * S + 7))
    utimensat("f", (80, 8), OMIT)
    same((os.lstat("f").st_atime_ns, os.lstat("f").st_mtime_ns), (80 * S + 8, 70 * S + 7))
    before = time.time_ns() - 50_000_000
    utimensat("f", OMIT, NOW)
    same(os.lstat("f").st_atime_ns, 80 * S + 8)
    true(before <= os.lstat("f").st_mtime_ns <= time.time_ns(), "mtime is now")
    utimensat("f", NOW, (1, 1))
    same(os.lstat("f").st_mtime_ns, S + 1)
    true(before <= os.lstat("f").st_atime_ns <= time.time_ns(), "atime is now")
    utimensat("f", None, None)
    same(os.lstat("f").st_atime_ns, os.lstat("f").st_mtime_ns)
    true(before <= os.lstat("f").st_mtime_ns <= time.time_ns(), "both are now")


@case
def times_omitted_both_change_nothing():
    put("f")
    yield
    with touched({"f": "/"}):
        utimensat("f", OMIT, OMIT)


@case
def times_by_descriptor():
    put("f")
    folder("d")
    yield
    for name in "fd":
        with opened(name, os.O_RDONLY) as fd:
            futimens(fd, (11, 1), (12, 2))
            s = os.fstat(fd)
        same((s.st_atime_ns, s.st_mtime_ns), (11 * S + 1, 12 * S + 2))


@case
def times_of_a_symlink_or_its_target():
    put("f")
    os.symlink("f", "l")
    yield
    utimensat("l", (5, 0), (6, 0), AT_SYMLINK_NOFOLLOW)
    same((os.lstat("l").st_mtime_ns, os.lstat("f").st_mtime_ns != 6 * S), (6 * S, True))
    utimensat("l", (7, 0), (8, 0))
    same((os.lstat("l").st_mtime_ns, os.lstat("f").st_mtime_ns), (6 * S, 8 * S))


@case
def times_refuse_what_they_must():
    put("f")
    yield
    with unchanged("f"):
        refused(EINVAL, utimensat, "f", (1, S), (1, 0))
        refused(EINVAL, utimensat, "f", (1, 0), (1, -1))
        refused(ENOENT, utimensat, "none", (1, 0), (1, 0))
        refused(ENOTDIR, utimensat, "f/x", (1, 0), (1, 0))
        refused(EINVAL, utimensat, "f", (1, 0), (1, 0), 0x40000)


@case(root=True)
def times_are_the_owners_to_set():
    """Who may write may set both to now, and nothing else."""
    put("f", b"", 0o644, ALICE)
    put("open", b"", 0o666, ALICE)
    yield
    with user(BOB):
        with unchanged("f", "open"):
            refused(EACCES, utimensat, "f", None, None)
            refused(EACCES, utimensat, "f", NOW, NOW)
            refused(EPERM, utimensat, "f", (1, 0), (1, 0))
            refused(EPERM, utimensat, "open", (1, 0), (1, 0))
            refused(EPERM, utimensat, "open", NOW, OMIT)
            refused(EPERM, utimensat, "open", OMIT, NOW)
        with touched({"open": "mc"}):
            utimensat("open", None, None)
        with touched({"open": "mc"}):
            utimensat("open", NOW, NOW)
    with user(ALICE):
        utimensat("f", (1, 0), (2, 0))
    same(os.lstat("f").st_mtime_ns, 2 * S)


@case
def times_of_creation_are_told():
    before = time.time_ns() - 50_000_000
    put("f")
    folder("d")
    for name in "fd":
        told = statx(name)
        true(told["mask"] & STATX_BTIME, f"statx of {name} tells a time of birth")
        true(before <= told["btime"][0] * S + told["btime"][1] <= time.time_ns(), "it is now")
        was = told["btime"]
        tick()
        os.chmod(name, 0o700)
        os.utime(name, ns=(1, 1))
        same(statx(name)["btime"], was, "time of birth")


@case
def ctime_stays_when_only_copied_up():
    """A directory is not changed by what a descendant of it goes through."""
    folder("d")
    folder("d/e")
    put("d/e/f", b"x")
    yield
    before = os.lstat("d").st_ctime_ns, os.lstat("d/e").st_ctime_ns
    os.chmod("d/e/f", 0o600)
    yield REMOUNT
    same((os.lstat("d").st_ctime_ns, os.lstat("d/e").st_ctime_ns), before)


@case
def mtime_of_directories_stays_when_something_is_copied_up():
    folder("d")
    folder("d/e")
    put("d/e/f", b"x")
    os.symlink("f", "d/e/l")
    yield
    names_ = ("d", "d/e", ".")
    before = [os.lstat(name).st_mtime_ns for name in names_]
    os.chmod("d/e/f", 0o600)
    with opened("d/e/f", os.O_WRONLY) as fd:
        os.write(fd, b"y")
    os.utime("d/e/l", ns=(1, 1), follow_symlinks=False)
    same([os.lstat(name).st_mtime_ns for name in names_], before)
    yield REMOUNT
    same([os.lstat(name).st_mtime_ns for name in names_], before)


@case
def ctime_changes_with_every_change():
    put("f", b"text")
    folder("d")
    yield
    changes = {
        "chmod": lambda: os.chmod("f", 0o600),
        "utime": lambda: os.utime("f", ns=(1, 1)),
        "setxattr": lambda: os.setxattr("f", "user.a", b"1"),
        "setxattr again": lambda: os.setxattr("f", "user.a", b"2"),
        "removexattr": lambda: os.removexattr("f", "user.a"),
        "link": lambda: os.link("f", "g"),
        "unlink": lambda: os.unlink("g"),
        "rename": lambda: (os.rename("f", "d/f"), os.rename("d/f", "f")),
        "truncate": lambda: os.truncate("f", 2),
        "chown": lambda: os.chown("f", os.geteuid(), os.getegid()),
    }
    for what, change in changes.items():
        before = os.lstat("f").st_ctime_ns
        tick()
        change()
        true(os.lstat("f").st_ctime_ns > before, f"ctime grows by {what}")


@case
def times_of_a_write_are_of_the_write():
    """Not of when it was flushed, nor of the last look."""
    put("f", b"text")
    yield
    with opened("f", os.O_WRONLY) as fd:
        os.write(fd, b"1")
        first = os.fstat(fd).st_mtime_ns
        tick()
    same(os.lstat("f").st_mtime_ns, first, "mtime after close")
    with opened("f", os.O_WRONLY) as fd:
        os.write(fd, b"2")
        os.utime("f", ns=(5, 6))
        os.fsync(fd)
    same(os.lstat("f").st_mtime_ns, 6)


@case
def times_set_survive_a_close_after_writing():
    put("f", b"text")
    yield
    with opened("f", os.O_WRONLY) as fd:
        os.write(fd, b"new")
        os.utime(fd, ns=(111, 222))
    same(os.lstat("f").st_mtime_ns, 222)
    yield REMOUNT
    same(os.lstat("f").st_mtime_ns, 222)


@case
def atime_changes_by_reading_under_relatime():
    """Once a day, or when it is older than the last change."""
    put("f", b"text")
    utimensat("f", (1000, 0), (2000, 0))
    yield
    get("f")
    true(os.lstat("f").st_atime_ns > 2000 * S, "atime is not older than mtime any more")


@case
def atime_of_a_directory_changes_by_listing_it():
    folder("d")
    put("d/f")
    yield
    for mtime in (2000, 3000):
        utimensat("d", (1000, 0), (mtime, 0))
        names("d")
        true(os.lstat("d").st_atime_ns > mtime * S, "atime is not older than mtime any more")


@case
def atime_of_a_directory_stays_unless_listed():
    """Its links are counted and its emptiness is found without anybody having listed it."""
    folder("d")
    folder("d/e")
    yield
    utimensat("d", (1000, 0), (2000, 0))
    yield REMOUNT
    same(links("d"), 3)
    refused(ENOTEMPTY, os.rmdir, "d")
    same(os.lstat("d").st_atime_ns, 1000 * S)


@case
def atime_stays_with_noatime():
    put("f", b"text" * 20_000)
    yield
    utimensat("f", (1000, 0), (2000, 0))
    with opened("f", os.O_RDONLY | os.O_NOATIME) as fd:
        same(len(os.pread(fd, 80_000, 0)), 80_000)
    same(os.lstat("f").st_atime_ns, 1000 * S)
    yield REMOUNT
    with opened("f", os.O_RDONLY | os.O_NOATIME) as fd, opened("f", os.O_RDONLY) as other:
        os.pread(fd, 10, 0)
        same(os.lstat("f").st_atime_ns, 1000 * S)
        os.pread(other, 10, 70_000)
    true(os.lstat("f").st_atime_ns > 2000 * S, "who reads without it sets it")
