"""mkdir(2) and rmdir(2)."""
import os
import time

from kit import *


@case
def mkdir_gives_mode_owner_links_and_times():
    folder("d")
    yield
    before = time.time_ns()
    with umask(0o027), touched({"d": "mc", ".": ""}):
        os.mkdir("d/e", 0o777)
    s = os.lstat("d/e")
    same((stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid, s.st_nlink), (0o750, os.geteuid(), os.getegid(), 2))
    for moment in (s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns):
        true(before - 50_000_000 <= moment <= time.time_ns(), "the times are now")
    same((links("d"), names("d"), names("d/e")), (3, ["e"], []))
    yield REMOUNT
    same((links("d"), mode_of("d/e")), (3, 0o750))


@case
def mkdir_with_special_bits():
    with umask(0):
        os.mkdir("sticky", 0o1777)
        os.mkdir("all", 0o7777)
    same(mode_of("sticky"), 0o1777)
    # mkdir(2) takes the sticky bit and the permissions; the others depend on the filesystem: ext4 drops them.
    same(mode_of("all") & 0o1777, 0o1777)
    same(mode_of("all"), 0o1777)


@case
def mkdir_of_what_exists():
    folder("d")
    put("f")
    os.symlink("f", "l")
    os.symlink("none", "dangling")
    fifo("p")
    yield
    with unchanged("d", "f", "l", "dangling", "p", "."):
        for name in ("d", "f", "l", "dangling", "p", ".", "..", "d/.", "d/"):
            refused(EEXIST, os.mkdir, name)
    absent("none")


@case
def mkdir_refuses_what_it_must():
    put("f")
    os.symlink("self", "self")
    yield
    with unchanged("."):
        refused(ENOENT, os.mkdir, "none/x")
        refused(ENOTDIR, os.mkdir, "f/x")
        refused(ELOOP, os.mkdir, "self/x")
        refused(ENAMETOOLONG, os.mkdir, "n" * 256)
        refused(ENOENT, os.mkdir, "none/.")


@case
def mkdir_with_a_slash_at_the_end():
    os.mkdir("d/")
    same(names(), ["d"])
    os.rmdir("d/")
    same(names(), [])


@case
def mkdir_in_the_place_of_a_full_directory():
    folder("d", 0o700)
    put("d/f", b"x")
    folder("d/e")
    put("d/e/g", b"y")
    yield
    for name in ("d/e/g", "d/f"):
        os.unlink(name)
    os.rmdir("d/e")
    os.rmdir("d")
    absent("d")
    os.mkdir("d", 0o751)
    same((names("d"), mode_of("d"), links("d")), ([], 0o751, 2))
    absent("d/f", "d/e")
    os.mkdir("d/e")
    same(names("d/e"), [])
    yield KILL
    same((names("d"), names("d/e"), mode_of("d")), (["e"], [], 0o751))
    absent("d/f", "d/e/g")


@case
def mkdir_in_the_place_of_a_file():
    put("f", b"x")
    os.symlink("t", "l")
    yield
    for name in "fl":
        os.unlink(name)
        os.mkdir(name)
        put(f"{name}/x", b"inner")
    yield REMOUNT
    same((names(), names("f"), get("l/x"), links(".")), (["f", "l"], ["x"], b"inner", 4))


@case
def mkdir_deep():
    folder("d")
    yield
    at = "d"
    for i in range(40):
        at += f"/{i}"
        os.mkdir(at)
    put(f"{at}/f", b"deep")
    yield REMOUNT
    same(get(f"{at}/f"), b"deep")
    same(links("d"), 3)


@case
def mkdir_counts_links():
    folder("d")
    for i in range(5):
        folder(f"d/s{i}")
    put("d/f")
    os.symlink("s0", "d/l")
    yield
    same(links("d"), 7)
    os.mkdir("d/s5")
    same(links("d"), 8)
    os.rmdir("d/s0")
    same(links("d"), 7)
    os.rename("d/s1", "s1")
    same((links("d"), links(".")), (6, 4))
    os.rename("d/s2", "d/s3")
    same(links("d"), 5)
    yield REMOUNT
    same((links("d"), links(".")), (5, 4))


@case
def rmdir_removes():
    folder("d")
    folder("d/e")
    yield
    with touched({"d": "mc"}):
        os.rmdir("d/e")
    absent("d/e")
    same(links("d"), 2)
    refused(ENOENT, os.rmdir, "d/e")
    yield REMOUNT
    absent("d/e")
    same((links("d"), names("d")), (2, []))


@case
def rmdir_refuses_what_it_must():
    folder("d")
    put("d/f")
    folder("e")
    folder("e/sub")
    put("f")
    os.symlink("empty", "l")
    folder("empty")
    fifo("p")
    yield
    with unchanged("d", "e", "f", "l", "empty", "p", "."):
        refused((ENOTEMPTY, EEXIST), os.rmdir, "d")
        refused((ENOTEMPTY, EEXIST), os.rmdir, "e")
        for name in ("f", "l", "l/", "p", "f/x", "d/f/"):
            refused(ENOTDIR, os.rmdir, name)
        refused(ENOENT, os.rmdir, "none")
        refused(ENOENT, os.rmdir, "none/x")
        refused(EINVAL, os.rmdir, "empty/.")
        refused((ENOTEMPTY, EEXIST, EBUSY), os.rmdir, "empty/..")
        refused(ENAMETOOLONG, os.rmdir, "n" * 256)


@case
def rmdir_of_one_that_only_looks_empty():
    folder("d")
    put("d/.hidden")
    yield
    refused((ENOTEMPTY, EEXIST), os.rmdir, "d")
    os.unlink("d/.hidden")
    os.rmdir("d")
    absent("d")


@case
def rmdir_of_an_open_directory():
    folder("d")
    put("d/f", b"x")
    yield
    with opened("d", os.O_RDONLY) as fd:
        refused((ENOTEMPTY, EEXIST), os.rmdir, "d")
        os.unlink("f", dir_fd=fd)
        os.rmdir("d")
        s = os.fstat(fd)
        same((s.st_nlink, stat.S_ISDIR(s.st_mode), os.listdir(fd)), (0, True, []))
        refused(ENOENT, os.stat, "f", dir_fd=fd)
        os.fchmod(fd, 0o701)
        same(stat.S_IMODE(os.fstat(fd).st_mode), 0o701)
        os.mkdir("d")
        same(os.fstat(fd).st_nlink, 0)
        true(ino("d") != s.st_ino, "the new one is another")


@case
def rmdir_of_the_working_directory():
    folder("d")
    yield
    os.chdir("d")
    os.rmdir("../d")
    refused(ENOENT, os.getcwd)
    refused(ENOENT, os.open, "f", os.O_WRONLY | os.O_CREAT)
    same(os.listdir("."), [])
    os.chdir(final())
    absent("d")


@case
def rmdir_and_mkdir_many_times():
    folder("d")
    put("d/f", b"below")
    yield
    os.unlink("d/f")
    for i in range(20):
        os.rmdir("d")
        os.mkdir("d")
        same(names("d"), [])
        put("d/f", str(i).encode())
        same(get("d/f"), str(i).encode())
        os.unlink("d/f")
    yield KILL
    same((names(), names("d")), (["d"], []))


@case(root=True)
def rmdir_needs_write_of_the_directory():
    folder("d", 0o755)
    folder("d/his", 0o777, ALICE)
    yield
    with user(ALICE), unchanged("d", "d/his"):
        refused(EACCES, os.rmdir, "d/his")
    os.chmod("d", 0o777)
    with user(BOB):
        os.rmdir("d/his")
    same(names("d"), [])


@case(root=True)
def mkdir_in_a_setgid_directory():
    folder("d", 0o2775, ALICE, TEAM)
    yield
    with umask(0o022):
        os.mkdir("d/roots")
        with user(ALICE, ALICE):
            os.mkdir("d/hers", 0o770)
            os.mkdir("d/hers/more", 0o700)
    same((owner("d/roots"), mode_of("d/roots")), ((0, TEAM), 0o2755))
    same((owner("d/hers"), mode_of("d/hers")), ((ALICE, TEAM), 0o2750))
    same((owner("d/hers/more"), mode_of("d/hers/more")), ((ALICE, TEAM), 0o2700))
