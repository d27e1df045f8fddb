"""Making files: open(2) with O_CREAT, modes, owners, times."""
import os
import time

from kit import *


@case
def create_gives_mode_owner_and_times():
    folder("d")
    yield
    before = time.time_ns()
    with umask(0o027), touched({"d": "mc"}):
        with opened("d/f", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666) as fd:
            s = os.fstat(fd)
    same(stat.S_IMODE(s.st_mode), 0o640)
    same((s.st_uid, s.st_gid), (os.geteuid(), os.getegid()))
    same((s.st_nlink, s.st_size), (1, 0))
    for moment in (s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns):
        true(before - 50_000_000 <= moment <= time.time_ns(), "the times are now")
    same(os.lstat("d/f").st_ino, s.st_ino)
    same(names("d"), ["f"])


@case
def create_with_each_umask():
    for mask in (0, 0o022, 0o077, 0o111, 0o777):
        with umask(mask):
            os.close(os.open(f"f{mask:o}", os.O_WRONLY | os.O_CREAT, 0o777))
            os.mkdir(f"d{mask:o}", 0o777)
            os.mkfifo(f"p{mask:o}", 0o777)
        for letter in "fdp":
            same(mode_of(f"{letter}{mask:o}"), 0o777 & ~mask, f"mode of {letter} under {mask:o}")


@case
def create_with_special_bits():
    with umask(0):
        os.close(os.open("f", os.O_WRONLY | os.O_CREAT, 0o7777))
    same(mode_of("f"), 0o7777)


@case
def create_unwritable_and_write():
    """The mode is for the next who opens it."""
    with opened("f", os.O_RDWR | os.O_CREAT, 0o000) as fd:
        os.write(fd, b"text")
        same(os.pread(fd, 9, 0), b"text")
        os.ftruncate(fd, 2)
    os.chmod("f", 0o400)
    same(get("f"), b"te")


@case
def create_read_only_open():
    with opened("f", os.O_RDONLY | os.O_CREAT, 0o600) as fd:
        same(os.read(fd, 1), b"")
        refused(EBADF, os.write, fd, b"x")
    same(os.lstat("f").st_size, 0)


@case
def create_after_unlink_is_new():
    put("f", b"the old one", 0o600)
    yield
    old = statx("f")
    with opened("f", os.O_RDONLY) as kept:
        os.unlink("f")
        absent("f")
        with touched({".": "mc"}):
            os.close(os.open("f", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
        same((get("f"), mode_of("f"), links("f")), (b"", 0o640, 1))
        true(ino("f") != old["ino"], "the new file has a number of its own")
        same(everything(kept), b"the old one")
        same(os.fstat(kept).st_nlink, 0)
    yield REMOUNT
    same((get("f"), mode_of("f"), links("f")), (b"", 0o640, 1))


@case
def create_where_a_directory_was():
    folder("d")
    put("d/x", b"inner")
    yield
    os.unlink("d/x")
    os.rmdir("d")
    put("d", b"a file now")
    refused(ENOTDIR, os.lstat, "d/x")
    yield KILL
    same(get("d"), b"a file now")


@case
def create_where_a_symlink_was():
    os.symlink("target", "l")
    yield
    os.unlink("l")
    put("l", b"a file now")
    absent("target")
    yield REMOUNT
    same(get("l"), b"a file now")


@case
def create_in_a_removed_directory():
    folder("d")
    yield
    with opened("d", os.O_RDONLY) as fd:
        os.rmdir("d")
        refused(ENOENT, os.open, "f", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=fd)
        refused(ENOENT, os.mkdir, "x", dir_fd=fd)
        refused(ENOENT, os.symlink, "t", "l", dir_fd=fd)
        refused(ENOENT, os.mkfifo, "p", dir_fd=fd)
        same(os.listdir(fd), [])
        same(os.fstat(fd).st_nlink, 0)
    absent("d")


@case
def create_many_and_find_each():
    folder("d")
    for i in range(100):
        put(f"d/below{i}")
    yield
    for i in range(150):
        os.close(os.open(f"d/n{i}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    same(len(names("d")), 250)
    for i in range(150):
        same(links(f"d/n{i}"), 1)
    same(len({ino(f"d/{name}") for name in names("d")}), 250, "numbers")


@case(root=True)
def create_belongs_to_the_maker():
    folder("d", 0o777)
    yield
    with user(ALICE, TEAM, CLUB):
        put("d/f", b"hers")
        os.mkdir("d/d")
        os.symlink("x", "d/l")
        os.mkfifo("d/p")
    for name in "fdlp":
        same(owner(f"d/{name}"), (ALICE, TEAM), name)
    yield REMOUNT
    for name in "fdlp":
        same(owner(f"d/{name}"), (ALICE, TEAM), name)


@case(root=True)
def create_over_a_removed_name_belongs_to_the_maker():
    folder("d", 0o777)
    for name in "fdlp":
        put(f"d/{name}")
    yield
    for name in "fdlp":
        os.unlink(f"d/{name}")
    with user(ALICE, TEAM), umask(0o007):
        os.close(os.open("d/f", os.O_WRONLY | os.O_CREAT, 0o666))
        os.mkdir("d/d", 0o777)
        os.symlink("x", "d/l")
        os.mkfifo("d/p", 0o666)
    for name, mode in (("f", 0o660), ("d", 0o770), ("p", 0o660)):
        same((owner(f"d/{name}"), mode_of(f"d/{name}")), ((ALICE, TEAM), mode), name)
    same(owner("d/l"), (ALICE, TEAM))


@case(root=True)
def create_needs_write_and_search():
    folder("d", 0o755, ALICE)
    yield
    with user(BOB), unchanged("d"):
        refused(EACCES, os.open, "d/f", os.O_WRONLY | os.O_CREAT, 0o600)
        refused(EACCES, os.mkdir, "d/x")
        refused(EACCES, os.symlink, "t", "d/x")
        refused(EACCES, os.mkfifo, "d/x")
        refused(EACCES, os.mknod, "d/x", 0o600 | stat.S_IFREG)
    os.chmod("d", 0o666)
    with user(BOB), unchanged("."):
        refused(EACCES, os.open, "d/f", os.O_WRONLY | os.O_CREAT, 0o600)
        refused(EACCES, os.mkdir, "d/x")
    os.chmod("d", 0o733)
    with user(BOB):
        put("d/f", b"x")
    same(names("d"), ["f"])


@case(root=True)
def create_keeps_group_of_a_setgid_directory():
    folder("d", 0o2777, 0, TEAM)
    yield
    with user(ALICE, ALICE), umask(0):
        os.close(os.open("d/f", os.O_WRONLY | os.O_CREAT, 0o666))
        os.mkdir("d/d", 0o777)
        os.mkfifo("d/p", 0o666)
        os.symlink("t", "d/l")
    for name in "fdpl":
        same(owner(f"d/{name}"), (ALICE, TEAM), name)
    same((mode_of("d/f"), mode_of("d/d"), mode_of("d/p")), (0o666, 0o2777, 0o666))
    with user(ALICE, ALICE), umask(0):
        os.mkdir("d/d/deeper", 0o700)
    same((owner("d/d/deeper"), mode_of("d/d/deeper")), ((ALICE, TEAM), 0o2700))


@case(root=True)
def create_over_a_removed_name_in_a_setgid_directory():
    folder("d", 0o2777, 0, TEAM)
    put("d/f")
    folder("d/d")
    yield
    os.unlink("d/f")
    os.rmdir("d/d")
    with user(ALICE, ALICE), umask(0):
        os.close(os.open("d/f", os.O_WRONLY | os.O_CREAT, 0o666))
        os.mkdir("d/d", 0o777)
    same((owner("d/f"), mode_of("d/f")), ((ALICE, TEAM), 0o666))
    same((owner("d/d"), mode_of("d/d")), ((ALICE, TEAM), 0o2777))


@case(root=True)
def create_setgid_executable_needs_the_group():
    folder("d", 0o2777, 0, TEAM)
    yield
    with umask(0):
        with user(ALICE, ALICE):
            os.close(os.open("d/stranger", os.O_WRONLY | os.O_CREAT, 0o2777))
            os.close(os.open("d/plain", os.O_WRONLY | os.O_CREAT, 0o2767))
        with user(ALICE, ALICE, TEAM):
            os.close(os.open("d/member", os.O_WRONLY | os.O_CREAT, 0o2777))
        os.close(os.open("d/root", os.O_WRONLY | os.O_CREAT, 0o2777))
    same(mode_of("d/stranger"), 0o777)
    same(mode_of("d/plain"), 0o2767)
    same(mode_of("d/member"), 0o2777)
    same(mode_of("d/root"), 0o2777)


@case(root=True)
def create_after_the_directory_changes_its_group():
    folder("d", 0o777, 0, TEAM)
    put("d/before")
    yield
    with user(ALICE):
        put("d/one")
    os.chmod("d", 0o2777)
    with user(ALICE):
        put("d/two")
    os.chown("d", 0, CLUB)
    with user(ALICE):
        put("d/three")
    os.chmod("d", 0o777)
    with user(ALICE):
        put("d/four")
    found = [owner(f"d/{name}")[1] for name in ("one", "two", "three", "four")]
    same(found, [ALICE, TEAM, CLUB, ALICE], "groups")
