"""What is of the filesystem as a whole: statfs, device and inode numbers, execution, file handles, sync."""
import os
import shutil
import struct
import subprocess

from kit import *


@case(reads=True)
def statfs_tells_sane_numbers():
    put("f")
    yield
    s = os.statvfs(".")
    same(s.f_namemax, 255)
    true(s.f_bsize > 0 and s.f_frsize > 0 and s.f_blocks > 0, "sizes")
    true(s.f_bavail <= s.f_bfree <= s.f_blocks, "free blocks")
    true(s.f_files > 0 and s.f_ffree <= s.f_files, "inodes")
    with opened("f", os.O_RDONLY) as fd:
        same(os.fstatvfs(fd).f_blocks, s.f_blocks)
    same(os.pathconf(".", "PC_NAME_MAX"), 255)


@case(reads=True)
def device_number_is_one():
    folder("d")
    put("d/f")
    put("g")
    os.symlink("t", "l")
    yield
    same(len({os.lstat(name).st_dev for name in (".", "d", "d/f", "g", "l")}), 1)


@case
def device_number_is_one_through_copies():
    folder("d")
    put("d/f", b"x")
    put("g", b"x")
    yield
    before = os.lstat("g").st_dev
    os.chmod("d/f", 0o600)
    with opened("g", os.O_WRONLY) as fd:
        os.write(fd, b"y")
    put("new")
    same({os.lstat(name).st_dev for name in (".", "d", "d/f", "g", "new")}, {before})


@case
def inode_numbers_stay():
    folder("d")
    put("d/f", noise(100_000))
    os.symlink("t", "d/l")
    fifo("d/p")
    paths = ("d", "d/f", "d/l", "d/p")
    yield
    before = [ino(each) for each in paths]
    same(len(set(before)), 4)
    for each in paths:
        os.utime(each, ns=(1, 1), follow_symlinks=False)
    with opened("d/f", os.O_RDWR) as fd:
        os.write(fd, b"x")
        same(os.fstat(fd).st_ino, before[1])
    same([ino(each) for each in paths], before)
    os.rename("d/f", "g")
    os.rename("g", "d/f")
    yield REMOUNT
    same([ino(each) for each in paths], before)
    os.rename("d", "e")
    same([ino(each.replace("d", "e", 1)) for each in paths], before)
    yield KILL
    same([ino(each.replace("d", "e", 1)) for each in paths], before)


@case
def inode_numbers_are_never_shared_by_the_living():
    folder("d")
    for i in range(50):
        put(f"d/f{i}")
    yield
    kept = []
    for i in range(25):
        kept.append(os.open(f"d/f{i}", os.O_RDONLY))
        os.unlink(f"d/f{i}")
        put(f"d/g{i}")
    living = [os.fstat(fd).st_ino for fd in kept] + [ino(f"d/{name}") for name in names("d")]
    same(len(living), len(set(living)))
    for fd in kept:
        os.close(fd)


@case
def execution_keeps_a_program_from_being_written():
    shutil.copy("/bin/sleep", "program")
    os.chmod("program", 0o755)
    yield
    running = subprocess.Popen(["./program", "60"])
    try:
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            refused(ETXTBSY, os.open, "program", flags)
        refused(ETXTBSY, os.truncate, "program", 0)
        os.chmod("program", 0o700)
        os.rename("program", "other")
        refused(ETXTBSY, os.open, "other", os.O_WRONLY)
        os.close(os.open("other", os.O_RDONLY))
    finally:
        running.kill()
        running.wait()
    os.close(os.open("other", os.O_WRONLY))


@case
def execution_of_what_is_open_for_writing():
    shutil.copy("/bin/true", "program")
    os.chmod("program", 0o755)
    yield
    with opened("program", os.O_WRONLY):
        refused(ETXTBSY, os.execv, "./program", ["program"])
    same(subprocess.run(["./program"]).returncode, 0)


@case
def execution_of_scripts_and_what_may_not():
    put("script", b"#!/bin/sh\necho ran $1\n", 0o755)
    put("plain", b"#!/bin/sh\n", 0o644)
    put("garbage", b"\x00\x01\x02", 0o755)
    folder("d")
    yield
    same(subprocess.run(["./script", "it"], capture_output=True).stdout, b"ran it\n")
    refused(EACCES, os.execv, "plain", ["plain"])
    refused(EACCES, os.execv, "d", ["d"])
    refused(ENOEXEC, os.execv, "garbage", ["garbage"])
    refused(ENOENT, os.execv, "none", ["none"])
    os.chmod("plain", 0o755)
    same(subprocess.run(["./plain"]).returncode, 0)


@case(root=True)
def execution_of_setuid_programs():
    shutil.copy("/usr/bin/id", "id")
    os.chown("id", ALICE, TEAM)
    os.chmod("id", 0o6755)
    yield

    def runs():
        os.setgroups([])
        os.setresgid(BOB, BOB, BOB)
        os.setresuid(BOB, BOB, BOB)
        done = subprocess.run(["./id"], capture_output=True)
        true(f"euid={ALICE}".encode() in done.stdout and f"egid={TEAM}".encode() in done.stdout, done.stdout.decode())

    in_child(runs)
    os.chmod("id", 0o755)
    same(subprocess.run(["./id", "-u"], capture_output=True).stdout, b"0\n")


@case
def sync_of_everything():
    put("f", b"x")
    folder("d")
    yield
    for name in "fd":
        with opened(name, os.O_RDONLY) as fd:
            os.fsync(fd)
            os.fdatasync(fd)
    with opened("f", os.O_RDWR) as fd:
        os.write(fd, b"y")
        call(libc.syncfs(fd))
        call(libc.sync_file_range(fd, ctypes.c_long(0), ctypes.c_long(0), 7))
    with opened("f", os.O_PATH) as fd:
        refused(EBADF, os.fsync, fd)


def handle_of(name):
    buffer = ctypes.create_string_buffer(struct.pack("<Ii", 128, 0), 8 + 128)
    mount = ctypes.c_int()
    call(libc.name_to_handle_at(AT_FDCWD, path(name), buffer, ctypes.byref(mount), 0))
    return buffer


def open_handle(handle, flags=os.O_RDONLY):
    with opened(".", os.O_RDONLY) as at:
        return call(libc.open_by_handle_at(at, handle, flags))


@case(root=True)
def handle_opens_a_file():
    put("f", b"text")
    folder("d")
    put("d/g", b"deep")
    yield
    for name, data in (("f", b"text"), ("d/g", b"deep")):
        handle = handle_of(name)
        fd = open_handle(handle)
        same((everything(fd), os.fstat(fd).st_ino), (data, ino(name)))
        os.close(fd)
        os.chmod(name, 0o600)
        with opened(name, os.O_WRONLY) as changed:
            os.write(changed, data.upper())
        os.rename(name, f"{name}2")
        fd = open_handle(handle, os.O_RDWR)
        same(everything(fd), data.upper())
        os.close(fd)
    fd = open_handle(handle_of("d"), os.O_RDONLY | os.O_DIRECTORY)
    same(os.listdir(fd), ["g2"])
    os.close(fd)


@case(root=True)
def handle_of_what_is_gone_is_stale():
    put("f", b"text")
    yield
    handle = handle_of("f")
    os.unlink("f")
    refused(ESTALE, open_handle, handle)
    put("f", b"another")
    refused(ESTALE, open_handle, handle)


@case(root=True)
def handle_is_told_the_same_each_time():
    put("f")
    put("g")
    yield
    same(handle_of("f").raw, handle_of("f").raw)
    true(handle_of("f").raw != handle_of("g").raw, "handles of two files differ")
    was = handle_of("f").raw
    os.rename("f", "h")
    same(handle_of("h").raw, was)
