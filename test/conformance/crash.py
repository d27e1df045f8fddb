#!/usr/bin/env python3
"""Kills the daemon at each step of each operation that changes the disk, and has each step fail.

  crash.py tree   FOLDER COUNT                 the tree of the image: COUNT equal folders, one for each case
  crash.py trace  CLI IMAGE FOLDER FORM        what each operation passes, and what the tree is before and after it: JSON
  crash.py kill   CLI IMAGE FOLDER FORM PART OF  < JSON   every OF-th of the kills, from PART on
  crash.py errors CLI IMAGE FOLDER FORM PART OF  < JSON   each operation again and again, each step failing once
          JSON is a list: the trace of this form, and those of others, which have done what is the same in them
  crash.py setup  CLI IMAGE FOLDER FORM POINT...   both for the steps of a mount that makes its upper
  crash.py end    CLI IMAGE FOLDER FORM POINT...   both for the steps at the end of a mount

FORM is what the kernel lets the daemon do: `whole`, `no-rename` (RENAME_WHITEOUT is refused), `no-mknod` (devices are), or
`no-owners` (nothing is given to another user, and no device made).
Each operation has a folder of its own in the image. A failure is one line on stdout and exit 1.
"""
import ctypes
import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_FOLLOW, NOREPLACE, EXCHANGE, WHITEOUT = -100, 0x400, 1, 2, 4
USER, GROUP = 1000, 2
# Points of what nobody sees yet.
STAGING = ("copy-up.", "mark.", "moved.record", "complete.", "whiteout.stage", "override.", "kept.", "stand-in.")
SOAK = os.environ.get("IMGFS_SOAK") == "1"
START = time.time_ns() - 1_000_000_000


class Wrong(Exception):
    pass


# ------------------------------------------------------------------------------------------------ the image


def make_tree(folder, count):
    os.makedirs(folder)
    for i in range(count):
        make_case(os.path.join(folder, f"c{i:03}"))


def make_case(c):
    def file(path, data, mode=0o644, owner=(0, 0)):
        with open(f"{c}/{path}", "wb") as f:
            f.write(data)
        os.chown(f"{c}/{path}", *owner)
        os.chmod(f"{c}/{path}", mode)

    for folder in ("", "d", "d/sub", "e", "full", "full2", "gonedir", "empty", "shared"):
        os.mkdir(f"{c}/{folder}")
    file("d/file", b"what the image has\n" * 300, 0o640, (7, 8))
    os.setxattr(f"{c}/d/file", "user.note", b"kept")
    file("d/other", b"other\n")
    file("d/sub/deep", b"deep\n")
    file("gone", b"removed before\n")
    file("full/x", b"x\n")
    file("full/y", b"y\n")
    file("full2/z", b"z\n")
    file("h1", b"two names\n")
    os.link(f"{c}/h1", f"{c}/e/h2")
    file("suid", b"s\n" * 100, 0o4757)
    os.symlink("d/file", f"{c}/link")
    os.symlink("d/other", f"{c}/olink")
    os.lchown(f"{c}/olink", 7, 8)
    os.mkfifo(f"{c}/fifo")
    os.chmod(f"{c}/d", 0o2755)
    os.chown(f"{c}/shared", 0, GROUP)
    os.chmod(f"{c}/shared", 0o770)
    for top, folders, files in os.walk(c, topdown=False):
        for name in folders + files:
            os.utime(f"{top}/{name}", (1e9, 1e9), follow_symlinks=False)
    os.utime(c, (1e9, 1e9))


# ------------------------------------------------------------------------------------------------ the operations
# Each is (name, what was done at some time before, the operation); `p` makes a path of the case's folder.


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def renameat2(old, new, flags):
    call(libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def as_user(action):
    """In a process of an ordinary user who has a group beside the first."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            os.setgroups([GROUP])
            os.setgid(USER)
            os.setuid(USER)
            action()
        except OSError as cause:
            code = cause.errno
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0:
        raise OSError(code, os.strerror(code))


def make(path, mode=0o644, data=b"new\n"):
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    os.close(fd)
    if data:
        with open(path, "wb") as f:
            f.write(data)


def touch_empty(path, mode=0o644):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))


def write_at(path, data, offset):
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, data, offset)
    finally:
        os.close(fd)


def on_file(path, action):
    fd = os.open(path, os.O_RDWR)
    try:
        return action(fd)
    finally:
        os.close(fd)


def tmpfile(p, name=None):
    fd = os.open(p("shared"), os.O_TMPFILE | os.O_RDWR, 0o4640)
    try:
        if name is not None:
            source = b"/proc/self/fd/%d" % fd
            call(libc.linkat(AT_FDCWD, source, AT_FDCWD, os.fsencode(p(name)), AT_SYMLINK_FOLLOW))
    finally:
        os.close(fd)


def acl(path, name="system.posix_acl_default"):
    entries = [(1, 7, -1), (2, 7, USER), (4, 5, -1), (0x10, 7, -1), (0x20, 0, -1)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr(path, name, value)


def warm(p):
    """Every folder is copied up, so that an operation passes its own steps alone."""
    for folder in ("", "d", "e", "full", "empty", "shared"):
        os.utime(p(folder), (1e9, 1e9))


def empty_full(p):
    os.unlink(p("full/x"))
    os.unlink(p("full/y"))


def born_folder(p):
    os.mkdir(p("born"))
    make(p("born/in"))


held = {}


def hold(path, flags=os.O_RDONLY):
    held[path] = os.open(path, flags)
    return held[path]


def nameless(p, name, remove):
    fd = held.get(name) or hold(p(name))
    held[name] = fd
    try:
        remove(p(name))
    except FileNotFoundError:
        pass
    os.fchmod(fd, 0o700)


def nothing(p):
    pass


SCENARIOS = [
    ("chmod of what nothing was copied up of", None, lambda p: os.chmod(p("d/sub/deep"), 0o600)),
    ("chown of a setuid file", nothing, lambda p: os.chown(p("suid"), 5, 6)),
    ("chown of a copy", lambda p: os.chmod(p("d/file"), 0o600), lambda p: os.chown(p("d/file"), 5, 6)),
    ("utimes", nothing, lambda p: os.utime(p("d/file"), ns=(5, 5))),
    ("setxattr", nothing, lambda p: os.setxattr(p("d/file"), "user.new", b"v")),
    ("removexattr", nothing, lambda p: os.removexattr(p("d/file"), "user.note")),
    ("write", nothing, lambda p: write_at(p("d/file"), b"new", 10)),
    ("write to a new file", lambda p: make(p("n")), lambda p: write_at(p("n"), b"new", 10)),
    ("truncate", nothing, lambda p: os.truncate(p("d/file"), 3)),
    ("truncate of a setuid file", nothing, lambda p: as_user(lambda: os.truncate(p("suid"), 3))),
    ("truncate of a copy of a setuid file", lambda p: os.utime(p("suid")), lambda p: as_user(lambda: os.truncate(p("suid"), 3))),
    ("truncate of a copy", lambda p: os.chmod(p("d/file"), 0o600), lambda p: os.truncate(p("d/file"), 3)),
    ("truncate to more", nothing, lambda p: os.truncate(p("d/file"), 30_000)),
    ("O_TRUNC", nothing, lambda p: os.close(os.open(p("d/file"), os.O_TRUNC | os.O_WRONLY))),
    ("fallocate", lambda p: make(p("n")), lambda p: on_file(p("n"), lambda fd: os.posix_fallocate(fd, 0, 9000))),
    ("copy_file_range", lambda p: make(p("n")),
     lambda p: on_file(p("n"), lambda fd: on_file(p("d/file"), lambda source: os.copy_file_range(source, fd, 50, 0, 4)))),
    ("chmod of a hard link", nothing, lambda p: os.chmod(p("h1"), 0o600)),
    ("chown of a symlink", nothing, lambda p: os.lchown(p("link"), 5, 6)),
    ("utimes of a symlink of another's", nothing, lambda p: os.utime(p("olink"), ns=(5, 5), follow_symlinks=False)),
    ("symlink by a group's right", nothing, lambda p: as_user(lambda: os.symlink("to", p("shared/n")))),
    ("mkfifo by a group's right", nothing, lambda p: as_user(lambda: os.mkfifo(p("shared/n"), 0o640))),
    ("mknod of a device", nothing, lambda p: os.mknod(p("n"), stat.S_IFCHR | 0o600, os.makedev(1, 3))),
    ("chmod of a fifo", nothing, lambda p: os.chmod(p("fifo"), 0o600)),
    ("create", nothing, lambda p: touch_empty(p("n"))),
    ("create by a group's right", nothing, lambda p: as_user(lambda: touch_empty(p("shared/n"), 0o640))),
    ("create over a whiteout", lambda p: os.unlink(p("gone")), lambda p: touch_empty(p("gone"))),
    ("create by another over a whiteout", lambda p: os.chmod(p(""), 0o777) or os.unlink(p("gone")),
     lambda p: as_user(lambda: touch_empty(p("gone"), 0o4755))),
    ("create over a whiteout under a default ACL", lambda p: acl(p("d")) or os.unlink(p("d/other")),
     lambda p: touch_empty(p("d/other"), 0o666)),
    ("mkdir", nothing, lambda p: os.mkdir(p("n"))),
    ("mkdir by a group's right", nothing, lambda p: as_user(lambda: os.mkdir(p("shared/n"), 0o1770))),
    ("mkdir over a whiteout", lambda p: shutil.rmtree(p("full")), lambda p: os.mkdir(p("full"))),
    ("mkdir by another over a whiteout", lambda p: os.chmod(p(""), 0o777) or os.unlink(p("gone")),
     lambda p: as_user(lambda: os.mkdir(p("gone"), 0o700))),
    ("symlink over a whiteout", lambda p: os.unlink(p("gone")), lambda p: os.symlink("to", p("gone"))),
    ("mkfifo over a whiteout", lambda p: os.unlink(p("gone")), lambda p: os.mkfifo(p("gone"))),
    ("O_TMPFILE", nothing, lambda p: tmpfile(p)),
    ("O_TMPFILE by a group's right, and a name for it", nothing, lambda p: as_user(lambda: tmpfile(p, "shared/n"))),
    ("link", nothing, lambda p: os.link(p("d/file"), p("n"))),
    ("link over a whiteout", lambda p: os.unlink(p("gone")), lambda p: os.link(p("d/file"), p("gone"))),
    ("link of a hard link", nothing, lambda p: os.link(p("h1"), p("d/n"))),
    ("unlink", nothing, lambda p: os.unlink(p("d/file"))),
    ("unlink of a copy", lambda p: os.chmod(p("d/file"), 0o600), lambda p: os.unlink(p("d/file"))),
    ("unlink of what is new", lambda p: make(p("n")), lambda p: os.unlink(p("n"))),
    ("unlink of one of two names", nothing, lambda p: os.unlink(p("h1"))),
    ("unlink of the last of two names", lambda p: os.chmod(p("h1"), 0o600) or os.unlink(p("e/h2")), lambda p: os.unlink(p("h1"))),
    ("chmod of an open file without a name", nothing, lambda p: nameless(p, "d/file", os.unlink)),
    ("chmod of an open folder without a name", nothing, lambda p: nameless(p, "empty", os.rmdir)),
    ("rmdir", nothing, lambda p: os.rmdir(p("empty"))),
    ("rmdir of what was emptied", empty_full, lambda p: os.rmdir(p("full"))),
    ("rmdir of what is new", lambda p: os.mkdir(p("n")), lambda p: os.rmdir(p("n"))),
    ("rmdir of what was moved and emptied", lambda p: empty_full(p) or os.rename(p("full"), p("n")), lambda p: os.rmdir(p("n"))),
    ("rename", nothing, lambda p: os.rename(p("d/file"), p("n"))),
    ("rename of what is new", lambda p: make(p("n")), lambda p: os.rename(p("n"), p("d/n"))),
    ("rename over a file of the image", nothing, lambda p: os.rename(p("d/file"), p("d/other"))),
    ("rename of what is new over a file of the image", lambda p: make(p("n")), lambda p: os.rename(p("n"), p("d/other"))),
    ("rename over a copy", lambda p: os.chmod(p("d/other"), 0o600), lambda p: os.rename(p("d/file"), p("d/other"))),
    ("rename over what is new", lambda p: make(p("n")), lambda p: os.rename(p("d/file"), p("n"))),
    ("rename of what is new over the same", lambda p: make(p("n")) or make(p("n2")), lambda p: os.rename(p("n"), p("n2"))),
    ("rename over a whiteout", lambda p: os.unlink(p("gone")), lambda p: os.rename(p("d/file"), p("gone"))),
    ("rename of what is new over a whiteout", lambda p: os.unlink(p("gone")) or make(p("n")), lambda p: os.rename(p("n"), p("gone"))),
    ("rename of a hard link", nothing, lambda p: os.rename(p("h1"), p("e/n"))),
    ("rename of a hard link over a file", nothing, lambda p: os.rename(p("h1"), p("gone"))),
    ("rename of a symlink", nothing, lambda p: os.rename(p("link"), p("d/n"))),
    ("rename of a name that its copy has not yet", "unlinked", lambda p: os.rename(p("e/h2"), p("n"))),
    ("rename of a folder", nothing, lambda p: os.rename(p("d"), p("n"))),
    ("rename of a folder to another one", nothing, lambda p: os.rename(p("d/sub"), p("e/n"))),
    ("rename of a folder over a whiteout", lambda p: shutil.rmtree(p("gonedir")), lambda p: os.rename(p("d"), p("gonedir"))),
    ("rename of a folder over an empty one", nothing, lambda p: os.rename(p("d"), p("empty"))),
    ("rename of a folder over one that was emptied", empty_full, lambda p: os.rename(p("d"), p("full"))),
    ("rename of a folder over a new one", lambda p: os.mkdir(p("n")), lambda p: os.rename(p("d"), p("n"))),
    ("rename of a moved folder", lambda p: os.rename(p("d"), p("n")), lambda p: os.rename(p("n"), p("e/n"))),
    ("rename of a folder in a moved one", lambda p: os.rename(p("d"), p("n")), lambda p: os.rename(p("n/sub"), p("e/n"))),
    ("rename of a moved folder back", lambda p: os.rename(p("d"), p("n")), lambda p: os.rename(p("n"), p("d"))),
    ("rename of a new folder", born_folder, lambda p: os.rename(p("born"), p("d/n"))),
    ("rename of a new folder over a whiteout", lambda p: shutil.rmtree(p("gonedir")) or born_folder(p), lambda p: os.rename(p("born"), p("gonedir"))),
    ("rename of a new folder over one that was emptied", lambda p: empty_full(p) or born_folder(p), lambda p: os.rename(p("born"), p("full"))),
    ("exchange of files", nothing, lambda p: renameat2(p("d/file"), p("gone"), EXCHANGE)),
    ("exchange of folders", nothing, lambda p: renameat2(p("d"), p("full"), EXCHANGE)),
    ("exchange of a file and a folder", nothing, lambda p: renameat2(p("gone"), p("d"), EXCHANGE)),
    ("exchange of a new folder and one of the image", born_folder, lambda p: renameat2(p("born"), p("full"), EXCHANGE)),
    ("access ACL", nothing, lambda p: acl(p("d/file"), "system.posix_acl_access")),
    ("rename that leaves a device", nothing, lambda p: renameat2(p("d/file"), p("n"), WHITEOUT)),
    ("rename over a whiteout that leaves a device", lambda p: os.unlink(p("gone")),
     lambda p: renameat2(p("d/file"), p("gone"), WHITEOUT)),
    ("fsync", lambda p: make(p("n")), lambda p: on_file(p("n"), os.fsync)),
]  # fmt: skip


# Two steps that show, of which the first is not taken back when the second fails.
IN_TWO_STEPS = {"rename that leaves a device", "rename over a whiteout that leaves a device", "access ACL"}

# ------------------------------------------------------------------------------------------------ what a tree is


def look(path, inos):
    """What a program sees of everything below `path`; inode numbers as the paths that had them before."""
    found = {}
    for top, folders, files in os.walk(path):
        for name in ["", *files] if top == path else [*files, ""]:
            whole = os.path.join(top, name) if name else top
            found[os.path.relpath(whole, path)] = look_at(whole, inos)
        for name in folders:
            if os.path.islink(os.path.join(top, name)):
                found[os.path.relpath(os.path.join(top, name), path)] = look_at(os.path.join(top, name), inos)
    return found


def look_at(path, inos):
    s = os.lstat(path)
    kind = stat.S_IFMT(s.st_mode)
    content = None
    if kind == stat.S_IFREG:
        with open(path, "rb") as f:
            content = hashlib.sha1(f.read()).hexdigest()
    elif kind == stat.S_IFLNK:
        content = os.readlink(path)
    elif kind == stat.S_IFDIR:
        content = sorted(os.listdir(path))
    xattrs = sorted((n, os.getxattr(path, n, follow_symlinks=False).hex()) for n in os.listxattr(path, follow_symlinks=False))
    return {
        "mode": oct(s.st_mode), "owner": [s.st_uid, s.st_gid], "links": s.st_nlink,
        "size": s.st_size if kind == stat.S_IFREG else 0, "content": content,
        "time": "now" if s.st_mtime_ns > START else s.st_mtime_ns,
        "xattrs": [list(x) for x in xattrs], "ino": inos.get(s.st_ino, "new"),
    }  # fmt: skip


def inos_of(path):
    found = {}
    for top, folders, files in os.walk(path):
        for whole in [top, *(os.path.join(top, name) for name in files + folders)]:
            found.setdefault(os.lstat(whole).st_ino, os.path.relpath(whole, path))
    return found


# What may differ from the tree before where the operation did not happen: a directory's times are put back right after
# the change that it does not show; a file that gets its data is written to in its place, and cut after setuid is off; the
# mode that goes with an ACL is set before the ACL that is kept beside the object; a symlink whose new owner is kept beside
# it is another object until the index has it; a directory that is emptied out to be
# replaced is opaque, and no longer known as the image's by the next mount.
TIMES = {"copy-up.parent-times", "rename.empty", "stand-in.link"}
WRITTEN = {"complete.size", "complete.restore"}


def differences(a, b, point=None, emptied=None):
    found = []
    for path in sorted(a.keys() | b.keys()):
        x, y = a.get(path), b.get(path)
        if x is None or y is None:
            found.append(f"{path}: {'appeared' if x is None else 'gone'}")
            continue
        for key in x:
            if x[key] == y[key]:
                continue
            if key == "time" and y[key] == "now" and (point in WRITTEN or (point in TIMES and x["mode"].startswith("0o4"))):
                continue
            if key == "xattrs" and point in WRITTEN and [n for n, _ in x[key] if n != "security.capability"] == [n for n, _ in y[key]]:
                continue
            if key == "mode" and point in WRITTEN and int(x[key], 8) & ~0o6000 == int(y[key], 8):
                continue
            if key == "mode" and point == "kept.write":
                continue
            if key == "ino" and (path == emptied or point == "stand-in.link"):
                continue
            found.append(f"{path}: {key} {x[key]} -> {y[key]}")
    return found


def must_be(shown, wanted, what):
    found = differences(wanted, shown)
    if found:
        raise Wrong(f"{what}: " + "; ".join(found[:8]))


# ------------------------------------------------------------------------------------------------ one mount


def refuse(form):
    """Has the kernel refuse something to this process and what it starts: capabilities(7), seccomp(2)."""
    if form == "no-owners":
        # CHOWN, SETGID, SETUID, MKNOD: what an ordinary user does not have either.
        for capability in (0, 6, 7, 27):
            call(libc.prctl(24, capability, 0, 0, 0))
        return
    mknodat, renameat2_number = (259, 316) if os.uname().machine == "x86_64" else (33, 276)
    if form == "no-mknod":
        # args[2], the mode: only devices are refused.
        number, offset, mask, value = mknodat, 16 + 2 * 8, stat.S_IFMT(0o170000), stat.S_IFCHR
    else:
        number, offset, mask, value = renameat2_number, 16 + 4 * 8, 4, 4
    code = errno.EPERM if form == "no-mknod" else errno.EINVAL
    lines = [
        (0x20, 0, 0, 0), (0x15, 0, 4, number), (0x20, 0, 0, offset), (0x54, 0, 0, mask), (0x15, 0, 1, value),
        (0x06, 0, 0, 0x00050000 | code), (0x06, 0, 0, 0x7FFF0000),
    ]  # fmt: skip
    program = b"".join(struct.pack("<HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("<HxxxxxxQ", len(lines), ctypes.addressof(buffer))
    whole = ctypes.create_string_buffer(header, len(header))
    call(libc.prctl(38, 1, 0, 0, 0))
    call(libc.prctl(22, 2, whole, 0, 0))


class Mount:
    def __init__(self, cli, image, folder, form):
        self.cli, self.image, self.folder, self.form = cli, image, folder, form
        self.path, self.upper, self.work = (os.path.join(folder, name) for name in ("mnt", "upper", "work"))
        os.makedirs(self.path, exist_ok=True)
        self.pid = 0

    def start(self, faults=""):
        done = self.attempt(faults)
        if done.returncode != 0:
            raise Wrong(f"mount: {done.stderr.decode()}")
        if os.listdir(os.path.join(self.work, "tmp")):
            raise Wrong(f"left in WORK/tmp: {os.listdir(os.path.join(self.work, 'tmp'))}")
        if os.path.lexists(os.path.join(self.work, "rename")):
            raise Wrong("WORK/rename is still there")

    def attempt(self, faults):
        file = os.path.join(self.folder, "pid")
        command = [self.cli, "mount", self.image, self.path, "--upper", self.upper, "--work", self.work, "--pid-file", file,
                   "--quota", "10G"]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, env={**os.environ, "IMGFS_FAULT": faults},
            preexec_fn=None if self.form == "whole" else lambda: refuse(self.form),
        )  # fmt: skip
        if done.returncode == 0:
            with open(file) as f:
                self.pid = int(f.read())
        return done

    def stop(self):
        close_held()
        done = subprocess.run([self.cli, "umount", self.path], capture_output=True)
        if b"still serves it" in done.stderr:
            # Somebody's new mount namespace has a copy of the mount.
            os.kill(self.pid, signal.SIGKILL)
            self.wait_for_death()
        elif done.returncode != 0:
            raise Wrong(f"umount: {done.stderr.decode()}")

    def kill(self):
        """Ends it as fast as can be, which must do."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait_for_death()
        self.dead()

    def wait_for_death(self):
        while True:
            try:
                with open(f"/proc/{self.pid}/status") as status:
                    if "State:\tZ" in status.read():
                        return
            except (FileNotFoundError, ProcessLookupError):
                return
            time.sleep(0.001)

    def dead(self):
        """After the daemon has died."""
        close_held()
        call(libc.umount2(os.fsencode(self.path), 2))

    def check(self):
        done = subprocess.run(
            [self.cli, "check", "--upper", self.upper, "--work", self.work, self.image], capture_output=True
        )
        if done.returncode != 0:
            raise Wrong(f"check --upper: {done.stdout.decode()}{done.stderr.decode()}")

    def counts(self):
        """What the quota says of the upper is what is there."""
        done = subprocess.run([self.cli, "du", self.upper, "--work", self.work, "--json"], capture_output=True)
        if done.returncode != 0:
            raise Wrong(f"du: {done.stderr.decode()}")
        there = json.loads(done.stdout)
        told = os.statvfs(self.path)
        used = ((told.f_blocks - told.f_bfree) * told.f_frsize, told.f_files - told.f_ffree)
        if used != (there["bytes"], there["inodes"]):
            raise Wrong(f"the quota says {used} bytes and inodes, du {there['bytes'], there['inodes']}")
        return used

    def clean(self):
        close_held()
        libc.umount2(os.fsencode(self.path), 2)
        if self.pid:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def close_held():
    for fd in held.values():
        try:
            os.close(fd)
        except OSError:
            pass
    held.clear()


def place(mount, case):
    top = os.path.join(mount.path, f"c{case:03}")
    return lambda name: os.path.join(top, name) if name else top


def prepare(mount, cases):
    """What was done before each case's operation, in a life of its own. `cases`: case number to scenario."""
    cut_off = [case for case, (_, setup, _) in cases.items() if setup == "unlinked"]
    if cut_off:
        mount.start(",".join(f"copy-up.link:EIO:{i}" for i in range(len(cut_off))))
        for case in cut_off:
            os.chmod(place(mount, case)("h1"), 0o604)
        mount.stop()
    mount.start()
    for case, (_, setup, _) in cases.items():
        if setup is not None:
            warm(place(mount, case))
            if callable(setup):
                setup(place(mount, case))
            for folder in ("", "d", "e", "shared"):
                if os.path.isdir(place(mount, case)(folder)):
                    os.utime(place(mount, case)(folder), (1e9, 1e9))
    mount.stop()


def trace(mount):
    cases = dict(enumerate(SCENARIOS))
    prepare(mount, cases)
    file = os.path.join(mount.folder, "trace")
    mount.start(f"*:trace={file}")
    out = []

    def passes():
        with open(file) as f:
            return f.read().split()

    start = passes()
    for case, (name, _, operation) in cases.items():
        p = place(mount, case)
        inos = inos_of(p(""))
        before = look(p(""), inos)
        seen = len(passes())
        operation(p)
        after = look(p(""), inos)
        out.append({"name": name, "passes": passes()[seen:], "before": before, "after": after})
    mount.stop()
    mount.check()
    return {"start": start, "scenarios": out}


def kills_of(traced, known):
    """Passes at which to kill: (scenario, step, point, how often it was passed before). What the known traces, of other
    forms, pass as well is left out; and unless it is a soak, what is copied up or marked in the same order."""
    seen, out = set(), []
    for number, scenario in enumerate(traced["scenarios"]):
        passes = scenario["passes"]
        for i, point in enumerate(passes):
            if any(other["scenarios"][number]["passes"][: i + 1] == passes[: i + 1] for other in known):
                continue
            if not SOAK and point.startswith(STAGING):
                key = (passes[i - 1] if i else None, point, "folder" in scenario["name"])
                if key in seen:
                    continue
                seen.add(key)
            out.append((number, i, point, passes[:i].count(point)))
    if SOAK:
        return out
    # Every point, and a third of the other passes.
    first = {}
    for number, i, point, _ in out:
        first.setdefault(point, (number, i))
    return [one for n, one in enumerate(out) if n % 3 == 0 or first[one[2]] == one[:2]]


def emptied_by(name):
    return "full" if name.endswith("one that was emptied") else None


def kill(mount, given, part, of):
    traced, *known = given
    kills = kills_of(traced, known)[part::of]
    cases = {case: SCENARIOS[number] for case, (number, *_) in enumerate(kills)}
    prepare(mount, cases)
    outcomes = {"before": 0, "after": 0}
    failures = []
    inos = None
    # A life of the daemon each: it shows what the one before it left, and dies in its turn.
    for case, (number, i, point, skip) in enumerate([*kills, (None, 0, "", 0)]):
        try:
            interrupted = os.path.lexists(os.path.join(mount.work, "rename"))
            if inos is not None and (interrupted or "leaves a device" in SCENARIOS[kills[case - 1][0]][0]):
                # Who finishes what was interrupted passes more than others.
                mount.start()
                outcomes[outcome(mount, traced, case - 1, *kills[case - 1], inos)] += 1
                inos = None
                mount.kill()
            # What the mount itself passes is counted, too.
            mount.start(number is not None and f"{point}:kill:{skip + traced['start'].count(point)}" or "")
            if inos is not None:
                outcomes[outcome(mount, traced, case - 1, *kills[case - 1], inos)] += 1
        except Wrong as cause:
            failures.append(str(cause))
        if number is None:
            break
        try:
            inos = None
            inos = kill_once(mount, traced, case, number, i, point)
        except Wrong as cause:
            failures.append(str(cause))
            mount.clean()
    if failures:
        raise Wrong(f"{len(failures)} of {len(kills)}:\n" + "\n".join(failures[:30]))
    names = sorted(os.listdir(mount.path))
    if names != sorted(os.listdir(os.path.join(mount.folder, "..", "tree"))):
        raise Wrong(f"the root shows {names[:5]}...")
    mount.counts()
    mount.stop()
    return {"kills": len(kills), **outcomes, "points": sorted({point for _, _, point, _ in kills})}


def described(traced, number, i, point):
    wanted = traced["scenarios"][number]
    return f"{wanted['name']}, killed at {point} (step {i + 1} of {len(wanted['passes'])})"


def kill_once(mount, traced, case, number, i, point):
    """The inode numbers that the case had."""
    what = described(traced, number, i, point)
    p = place(mount, case)
    inos = inos_of(p(""))
    must_be(look(p(""), inos), traced["scenarios"][number]["before"], f"{what}: before")
    try:
        SCENARIOS[number][2](p)
    except OSError as cause:
        if cause.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
            raise Wrong(f"{what}: {cause}") from cause
    else:
        raise Wrong(f"{what}: the daemon was not killed")
    mount.wait_for_death()
    mount.dead()
    # What is staged is in nobody's sight yet: one check of many is enough.
    if SOAK or not point.startswith("copy-up.") or point in ("copy-up.commit", "copy-up.link", "copy-up.parent-times"):
        mount.check()
    return inos


def outcome(mount, traced, case, number, i, point, skip, inos):
    """What the mount after shows: the tree before or after the operation."""
    wanted = traced["scenarios"][number]
    what = described(traced, number, i, point)
    shown = look(place(mount, case)(""), inos)
    not_done = differences(wanted["before"], shown, point, emptied_by(wanted["name"]))
    done = differences(wanted["after"], shown, point, emptied_by(wanted["name"]))
    if not_done and done:
        raise Wrong(f"{what}: neither before ({'; '.join(not_done[:6])}) nor after ({'; '.join(done[:6])})")
    return "after" if not_done else "before"


def errors(mount, given, part, of, code="EIO"):
    """Each operation again and again; each step it passes fails once. What failed changed nothing."""
    traced, *known = given
    numbers = [
        number
        for number, one in enumerate(traced["scenarios"])
        if all(other["scenarios"][number]["passes"] != one["passes"] for other in known)
        and one["name"] not in IN_TWO_STEPS
    ][part::of]
    cases = {case: SCENARIOS[number] for case, number in enumerate(numbers)}
    prepare(mount, cases)
    refused, failures = 0, []
    for case, number in enumerate(numbers):
        try:
            refused += fail_each(mount, traced, case, number, code)
        except Wrong as cause:
            failures.append(str(cause))
            mount.clean()
    mount.check()
    mount.start()
    for case, number in enumerate(numbers):
        wanted = traced["scenarios"][number]
        # Inode numbers were compared before the remount; what is compared now is what the disk says.
        found = differences(without_inos(wanted["after"]), without_inos(look(place(mount, case)(""), {})))
        if found:
            failures.append(f"{wanted['name']}: after failures and a remount {'; '.join(found[:6])}")
    mount.counts()
    mount.stop()
    if failures:
        raise Wrong(f"{len(failures)} of {len(numbers)}:\n" + "\n".join(failures[:30]))
    return {"scenarios": len(numbers), "refused": refused}


def without_inos(tree):
    return {path: {**seen, "ino": None} for path, seen in tree.items()}


def fail_each(mount, traced, case, number, code):
    """How often the operation was refused until it was done."""
    wanted = traced["scenarios"][number]
    points = sorted(set(wanted["passes"]) - set(traced["start"]))
    mount.start(",".join(f"{point}:{code}" for point in points))
    p = place(mount, case)
    inos = inos_of(p(""))
    refused = 0
    for _ in range(len(points) + 1):
        try:
            SCENARIOS[number][2](p)
            break
        except OSError as cause:
            refused += 1
            if errno.errorcode[cause.errno] != code:
                raise Wrong(f"{wanted['name']}: {cause} for a failed step") from cause
            if not wanted["name"].startswith("chmod of an open"):
                found = differences(wanted["before"], look(p(""), inos))
                if found:
                    raise Wrong(f"{wanted['name']}: failed and changed {'; '.join(found[:6])}") from cause
    else:
        raise Wrong(f"{wanted['name']}: still fails when each step has failed once")
    found = differences(wanted["after"], look(p(""), inos))
    if found:
        raise Wrong(f"{wanted['name']}: after failures {'; '.join(found[:6])}")
    mount.kill()
    return refused


# ------------------------------------------------------------------------------------------------ the set-up of an upper


def served_another(mount):
    """The workdir has served another upper."""
    for options in ((), ("-again",)):
        mount.upper = os.path.join(mount.folder, f"upper{''.join(options)}")
        if not options:
            mount.start()
            os.chmod(place(mount, 0)("h1"), 0o600)
            mount.stop()


def left_in_index(mount):
    mount.start("unlink.index:kill")
    p = place(mount, 0)
    os.chmod(p("h1"), 0o600)
    os.unlink(p("e/h2"))
    try:
        os.unlink(p("h1"))
    except OSError:
        pass
    mount.wait_for_death()
    mount.dead()


def left_rename(mount):
    mount.form = "no-rename"
    mount.start("whiteout.replace:kill")
    p = place(mount, 0)
    make(p("n"))
    try:
        os.rename(p("d/file"), p("n"))
    except OSError:
        pass
    mount.wait_for_death()
    mount.dead()


def left_usage(mount):
    """A mount with a quota has ended as it should."""
    mount.start()
    os.chmod(place(mount, 0)("h1"), 0o600)
    mount.stop()
    if not os.path.exists(os.path.join(mount.work, "usage")):
        raise Wrong("WORK/usage was not left")


def left_unmarked(mount):
    """Of a version that knew no quota."""
    left_usage(mount)
    os.removexattr(mount.upper, "user.imgfs.costs")
    os.removexattr(os.path.join(mount.upper, "c000"), "user.imgfs.copied")
    os.unlink(os.path.join(mount.work, "usage"))


def left_whiteout_file(mount):
    """Another overlay has left a whiteout as a file, of a name that the image does not have."""
    os.mkdir(mount.upper, 0o755)
    make(os.path.join(mount.upper, ".wh.nothing"), data=b"")


BEFORE_SETUP = {
    "setup.drop": served_another, "setup.sweep": left_in_index, "setup.finish-rename": left_rename,
    "setup.convert": left_whiteout_file, "setup.usage": left_usage, "setup.copied": left_unmarked,
}  # fmt: skip


def each_way(mount, points, once):
    """Has a mount of its own killed, and fail, at each point."""
    base = mount.folder
    failures = []
    for number, (point, action) in enumerate((p, a) for p in points for a in ("kill", "EIO")):
        one = Mount(mount.cli, mount.image, os.path.join(base, str(number)), mount.form)
        try:
            once(one, point, action)
        except Wrong as cause:
            failures.append(f"{point}:{action}: {cause}")
        finally:
            one.clean()
    if failures:
        raise Wrong("\n".join(failures))
    return {"points": points}


def setup(mount, points):
    """Mounts a new upper for each point, which kills the daemon or fails; the next mount is as ever."""
    return each_way(mount, points, setup_once)


def setup_once(mount, point, action):
    BEFORE_SETUP.get(point, lambda mount: None)(mount)
    done = mount.attempt(f"{point}:{action}")
    if point == "tree.mark":
        try:
            os.chmod(place(mount, 0)("d/file"), 0o600)
            raise Wrong("the first copy-up did not pass")
        except OSError as cause:
            if action == "EIO" and cause.errno != errno.EIO:
                raise Wrong(f"{cause}") from cause
        if action == "kill":
            mount.wait_for_death()
            mount.dead()
        else:
            mount.stop()
    elif action == "kill":
        if done.returncode == 0:
            raise Wrong("the mount did not pass")
    elif done.returncode == 0:
        # An entry that stays, or a lack that is taken for one of the filesystem's, keeps no mount from working.
        if point not in ("setup.sweep", "setup.probe-rename"):
            raise Wrong("the mount was not refused")
        mount.stop()
    elif done.stderr.count(b"\n") != 1 or b"\n    at " in done.stderr:
        raise Wrong(f"not one line: {done.stderr.decode()}")
    # The set-up is done, or whole again, by the next mount, which shows the image.
    for again in (False, True) if action == "kill" else (False,):
        mount.start()
        p = place(mount, 1)
        if sorted(os.listdir(p(""))) != sorted(os.listdir(os.path.join(mount.folder, "..", "..", "tree", "c001"))):
            raise Wrong("the mount does not show the image")
        s = os.lstat(p("d/file"))
        if (s.st_mode, s.st_uid, s.st_gid) != (0o100640 if not again else 0o100600, 7, 8):
            raise Wrong(f"the mount shows {oct(s.st_mode)} {s.st_uid}:{s.st_gid}")
        root = os.lstat(os.path.join(mount.folder, "..", "..", "tree"))
        shown = os.lstat(mount.path)
        if (root.st_mode, root.st_uid) != (shown.st_mode, shown.st_uid):
            raise Wrong("the root is not the image's")
        os.chmod(p("d/file"), 0o600)
        mount.counts()
        mount.kill()
    mount.check()


# ------------------------------------------------------------------------------------------------ the end of a mount


def end(mount, points):
    """A mount whose last steps kill the daemon or fail: the next one knows what the upper costs all the same."""
    return each_way(mount, points, end_once)


def end_once(mount, point, action):
    mount.start(f"{point}:{action}")
    p = place(mount, 0)
    make(p("new"), data=b"x" * 10000)
    write_at(p("d/file"), b"changed", 3)
    used = mount.counts()
    mount.stop()
    mount.wait_for_death()
    if os.path.exists(os.path.join(mount.work, "usage")):
        raise Wrong("WORK/usage was left all the same")
    mount.check()
    mount.start()
    if mount.counts() != used:
        raise Wrong(f"{mount.counts()} instead of {used}")
    mount.stop()


def main():
    what, *args = sys.argv[1:]
    if what == "tree":
        make_tree(args[0], int(args[1]))
        return 0
    cli, image, folder, form, *rest = args
    mount = Mount(cli, image, folder, form)
    os.umask(0o022)
    try:
        if what == "trace":
            result = trace(mount)
        elif what == "kill":
            result = kill(mount, json.load(sys.stdin), int(rest[0]), int(rest[1]))
        elif what == "errors":
            result = errors(mount, json.load(sys.stdin), int(rest[0]), int(rest[1]))
        elif what == "setup":
            result = setup(mount, rest)
        elif what == "end":
            result = end(mount, rest)
        print(json.dumps(result))
        return 0
    except Wrong as cause:
        print(cause)
        return 1
    finally:
        mount.clean()


if __name__ == "__main__":
    sys.exit(main())
