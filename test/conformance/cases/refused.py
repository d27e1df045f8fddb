"""A read-only mount refuses every change with EROFS, of whatever type the object is, and then nothing has changed.

One case for each operation and type, made from two lists.
"""
import os

from kit import *

UP = os.O_WRONLY | os.O_CREAT


def objects():
    put("file", b"text", 0o644)
    folder("dir")
    put("dir/inner", b"inner")
    folder("empty")
    os.symlink("file", "link")
    fifo("fifo")
    setxattr("file", "user.a", b"1")
    setxattr("dir", "user.a", b"1")


def through(name, flags, action):
    with opened(name, flags) as fd:
        action(fd)


# Operations on an object that is there, and the types for which the read-only mount is what they are refused for.
ON_OBJECTS = {
    "chmod": ("file dir empty fifo", lambda name: os.chmod(name, 0o700)),
    "fchmod": ("file dir", lambda name: through(name, os.O_RDONLY, lambda fd: os.fchmod(fd, 0o700))),
    "chown": ("file dir link fifo", lambda name: os.lchown(name, os.geteuid(), os.getegid())),
    "utimes": ("file dir link fifo", lambda name: os.utime(name, ns=(1, 1), follow_symlinks=False)),
    "touch": ("file dir", lambda name: utimensat(name, None, None)),
    "open_for_writing": ("file link", lambda name: os.close(os.open(name, os.O_WRONLY))),
    "open_for_both": ("file link", lambda name: os.close(os.open(name, os.O_RDWR))),
    "open_and_truncate": ("file link", lambda name: os.close(os.open(name, os.O_RDONLY | os.O_TRUNC))),
    "open_to_append": ("file", lambda name: os.close(os.open(name, os.O_WRONLY | os.O_APPEND))),
    "truncate": ("file link", lambda name: os.truncate(name, 1)),
    "unlink": ("file link fifo", os.unlink),
    "rmdir": ("empty dir", os.rmdir),
    "rename": ("file dir empty link fifo", lambda name: os.rename(name, "new")),
    "rename_over": ("file link fifo", lambda name: os.rename(name, "dir/inner")),
    "rename_exchange": ("file dir link", lambda name: renameat2(name, "dir/inner" if name != "dir" else "file", EXCHANGE)),
    "link": ("file link fifo", lambda name: os.link(name, "new", follow_symlinks=False)),
    "setxattr": ("file dir", lambda name: setxattr(name, "user.new", b"2")),
    "replace_xattr": ("file dir", lambda name: setxattr(name, "user.a", b"2", 2)),
    "removexattr": ("file dir", lambda name: removexattr(name, "user.a")),
    "set_acl": ("file dir", lambda name: os.removexattr(name, "system.posix_acl_access")),
    "access_for_writing": ("file dir", lambda name: access(name, os.W_OK)),
}  # fmt: skip

# Operations that make something in a directory.
MAKES = {
    "create": lambda at: os.close(os.open(f"{at}/new", UP, 0o600)),
    "create_exclusively": lambda at: os.close(os.open(f"{at}/new", UP | os.O_EXCL, 0o600)),
    "create_for_reading": lambda at: os.close(os.open(f"{at}/new", os.O_RDONLY | os.O_CREAT, 0o600)),
    "mkdir": lambda at: os.mkdir(f"{at}/new"),
    "symlink": lambda at: os.symlink("t", f"{at}/new"),
    "mkfifo": lambda at: os.mkfifo(f"{at}/new"),
    "mknod": lambda at: os.mknod(f"{at}/new", 0o600 | stat.S_IFREG),
    "socket": lambda at: os.mknod(f"{at}/new", 0o600 | stat.S_IFSOCK),
    "tmpfile": lambda at: os.close(os.open(at, os.O_TMPFILE | os.O_RDWR, 0o600)),
    "link_into": lambda at: os.link("file", f"{at}/new"),
    "rename_into": lambda at: os.rename("file", f"{at}/new"),
}

ALL = ("file", "dir", "dir/inner", "empty", "link", "fifo", ".")


def refuses(name, action, argument):
    def run():
        objects()
        yield
        with unchanged(*ALL):
            refused(EROFS, action, argument)
        refused(ENOENT, os.lstat, "new")

    run.__name__, run.__module__ = name, __name__
    case(read_only=True)(run)


for operation, (types, act) in ON_OBJECTS.items():
    for kind in types.split():
        refuses(f"refused_{operation}_of_{kind}", act, kind)
for operation, act in MAKES.items():
    for at in ("dir", "empty"):
        refuses(f"refused_{operation}_in_{at}", act, at)


@case(read_only=True)
def refused_comes_after_what_is_wrong_anyway():
    objects()
    yield
    with unchanged(*ALL):
        refused(EEXIST, os.mkdir, "dir")
        refused(EEXIST, os.symlink, "t", "file")
        refused(EEXIST, os.open, "file", UP | os.O_EXCL)
        refused(ENOENT, os.truncate, "none", 0)
        refused(ENOTDIR, os.rmdir, "file/x")
        refused(EISDIR, os.open, "dir", os.O_WRONLY)


@case(read_only=True)
def refused_is_no_reading():
    objects()
    yield
    same((get("file"), get("dir/inner"), os.readlink("link"), names()), (b"text", b"inner", "file", ["dir", "empty", "fifo", "file", "link"]))
    access("file", os.R_OK)
    with opened("fifo", os.O_RDWR | os.O_NONBLOCK) as fd:
        os.write(fd, b"pipes go on")
        same(os.read(fd, 20), b"pipes go on")
