"""access(2), search, sticky directories, and who is asked as what."""
import os
import struct

from kit import *

EACCESS = AT_EACCESS


@case
def access_of_what_is_there_and_not():
    put("f", b"x", 0o640)
    folder("d")
    os.symlink("none", "dangling")
    yield
    access("f", os.F_OK)
    access("f", os.R_OK | os.W_OK)
    access("d", os.R_OK | os.W_OK | os.X_OK)
    refused(EACCES, access, "f", os.X_OK)
    refused(ENOENT, access, "none", os.F_OK)
    refused(ENOENT, access, "dangling", os.F_OK)
    refused(ENOTDIR, access, "f/x", os.F_OK)
    refused(EINVAL, access, "f", 8)


@case(root=True)
def access_for_each_class():
    put("f", b"x", 0o421, ALICE, TEAM)
    yield
    for who, may in (((ALICE, ALICE), 4), ((BOB, TEAM), 2), ((BOB, BOB, TEAM), 2), ((CAROL, CAROL), 1)):
        with user(*who):
            for wanted in (4, 2, 1):
                if wanted == may:
                    access("f", wanted, EACCESS)
                else:
                    refused(EACCES, access, "f", wanted, EACCESS)


@case(root=True)
def access_by_root():
    put("none", b"x", 0o000, ALICE)
    put("one", b"x", 0o001, ALICE)
    folder("d", 0o000, ALICE)
    yield
    access("none", os.R_OK | os.W_OK)
    refused(EACCES, access, "none", os.X_OK)
    access("one", os.X_OK)
    access("d", os.R_OK | os.W_OK | os.X_OK)


@case(root=True)
def search_of_each_class():
    folder("d", 0o100, ALICE, TEAM)
    put("d/f", b"x", 0o444)
    yield
    for mode, allowed in ((0o100, ALICE), (0o010, BOB), (0o001, CAROL)):
        os.chmod("d", mode)
        for who in ((ALICE, ALICE), (BOB, TEAM), (CAROL, CAROL)):
            with user(*who):
                if who[0] == allowed:
                    same(get("d/f"), b"x")
                else:
                    refused(EACCES, os.open, "d/f", os.O_RDONLY)


@case(root=True)
def search_of_a_deep_way():
    folder("a", 0o755)
    folder("a/b", 0o711)
    folder("a/b/c", 0o700, ALICE)
    put("a/b/c/f", b"x", 0o644)
    os.symlink("a/b/c/f", "l")
    yield
    with user(BOB):
        refused(EACCES, os.listdir, "a/b")
        same(os.lstat("a/b/c").st_uid, ALICE)
        for action in (os.lstat, os.readlink, os.listxattr, os.unlink, os.rmdir, os.chdir):
            refused(EACCES, action, "a/b/c/f")
        refused(EACCES, os.stat, "l")
    with user(ALICE):
        same(get("l"), b"x")


@case(root=True)
def search_right_taken_while_inside():
    folder("d", 0o755)
    put("d/f", b"x")
    yield
    with user(ALICE):
        os.chdir("d")
    os.chmod(".", 0o700)
    with user(ALICE):
        refused(EACCES, os.lstat, "f")
        refused(EACCES, os.listdir, ".")
    os.chdir("..")


@case(root=True)
def sticky_directory_and_each_owner():
    folder("d", 0o1777, CAROL)
    for name, uid in (("alice", ALICE), ("bob", BOB), ("carol", CAROL), ("root", 0)):
        put(f"d/{name}", b"x", 0o666, uid)
    yield
    with user(ALICE):
        for name in ("bob", "carol", "root"):
            refused((EPERM, EACCES), os.unlink, f"d/{name}")
            refused((EPERM, EACCES), os.rename, f"d/{name}", "d/mine")
            refused((EPERM, EACCES), os.rename, "d/alice", f"d/{name}")
        os.rename("d/alice", "d/mine")
        os.unlink("d/mine")
    with user(CAROL):
        os.unlink("d/root")
        os.rename("d/bob", "d/carol")
    same(names("d"), ["carol"])


@case(root=True)
def sticky_bit_set_later_counts():
    folder("d", 0o777)
    put("d/a", b"x", 0o644, ALICE)
    put("d/b", b"x", 0o644, ALICE)
    yield
    with user(BOB):
        os.unlink("d/a")
    os.chmod("d", 0o1777)
    with user(BOB):
        refused((EPERM, EACCES), os.unlink, "d/b")
    os.chmod("d", 0o777)
    with user(BOB):
        os.unlink("d/b")
    same(names("d"), [])


@case(root=True)
def groups_of_the_caller_all_count():
    folder("d", 0o770, 0, CLUB)
    yield
    with user(ALICE, ALICE):
        refused(EACCES, os.mkdir, "d/x")
    with user(ALICE, ALICE, TEAM, CLUB):
        os.mkdir("d/x")
        put("d/f", b"x")
        os.symlink("t", "d/l")
        os.rename("d/f", "d/g")
        os.link("d/g", "d/h")
        os.unlink("d/g")
    same((names("d"), owner("d/x"), owner("d/h")), (["h", "l", "x"], (ALICE, ALICE), (ALICE, ALICE)))


@case(root=True)
def groups_of_the_caller_and_removed_names():
    folder("d", 0o770, 0, CLUB)
    put("d/f", b"x")
    yield
    os.unlink("d/f")
    with user(ALICE, ALICE, CLUB):
        put("d/f", b"hers")
    same((owner("d/f"), get("d/f")), ((ALICE, ALICE), b"hers"))


@case(root=True)
def users_own_their_mode_bits_only():
    put("f", b"x", 0o666, ALICE)
    yield
    with user(BOB):
        with opened("f", os.O_RDWR) as fd:
            os.write(fd, b"y")
            refused(EPERM, os.fchmod, fd, 0o600)
            refused(EPERM, os.fchown, fd, BOB, -1)
            refused(EPERM, os.utime, fd, ns=(1, 1))
    same((get("f"), mode_of("f")), (b"y", 0o666))


@case(root=True)
def capabilities_of_the_caller_count():
    """CAP_DAC_OVERRIDE and CAP_FOWNER without being root."""
    put("f", b"x", 0o600, ALICE)
    folder("d", 0o700, ALICE)
    yield

    def keeps(*wanted):
        call(libc.prctl(8, 1, 0, 0, 0))  # PR_SET_KEEPCAPS
        os.setgroups([])
        os.setresgid(BOB, BOB, BOB)
        os.setresuid(BOB, BOB, BOB)
        bits = sum(1 << number for number in wanted)
        header = ctypes.create_string_buffer(struct.pack("<Ii", 0x20080522, 0))
        call(libc.capset(header, ctypes.create_string_buffer(struct.pack("<IIIIII", bits, bits, 0, 0, 0, 0))))

    def overrides():
        keeps(1)
        same(get("f"), b"x")
        os.close(os.open("d/made", os.O_WRONLY | os.O_CREAT, 0o600))
        os.mkdir("d/dir")
        refused(EPERM, os.chmod, "f", 0o644)

    def owns():
        keeps(3)
        refused(EACCES, os.open, "f", os.O_RDONLY)
        os.chmod("f", 0o640)
        os.utime("f", ns=(1, 1))

    in_child(overrides)
    in_child(owns)
    same((owner("d/made"), owner("d/dir"), mode_of("f")), ((BOB, BOB), (BOB, BOB), 0o640))
