"""inotify(7)."""
import os
import select
import struct

from kit import *

ACCESS, MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF, MOVE_SELF = (
    1, 2, 4, 8, 0x40, 0x80, 0x100, 0x200, 0x400, 0x800,
)  # fmt: skip
ISDIR = 0x40000000
CHANGES = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF


@contextlib.contextmanager
def watching(*paths):
    """Gives a function that returns the events since it was last asked, as (mask, name)."""
    fd = call(libc.inotify_init1(os.O_NONBLOCK))
    for each in paths:
        call(libc.inotify_add_watch(fd, path(each), CHANGES))

    def events():
        found = []
        while select.select([fd], [], [], 0.05)[0]:
            data, at = os.read(fd, 65536), 0
            while at < len(data):
                _, mask, _, length = struct.unpack_from("<iIII", data, at)
                found.append((mask, data[at + 16 : at + 16 + length].split(b"\0")[0].decode()))
                at += 16 + length
        return found

    yield events
    os.close(fd)


@case
def inotify_of_a_directory():
    folder("d")
    put("d/f", b"x")
    yield
    with watching("d") as events:
        put("d/new")
        same(events()[:1], [(CREATE, "new")])
        os.mkdir("d/sub")
        same(events(), [(CREATE | ISDIR, "sub")])
        os.chmod("d/f", 0o600)
        same(events(), [(ATTRIB, "f")])
        with opened("d/f", os.O_WRONLY) as fd:
            os.write(fd, b"y")
        same(events(), [(MODIFY, "f"), (CLOSE_WRITE, "f")])
        os.rename("d/f", "d/g")
        same(events(), [(MOVED_FROM, "f"), (MOVED_TO, "g")])
        os.unlink("d/g")
        same([e for e in events() if e[0] != ATTRIB], [(DELETE, "g")])
        os.rmdir("d/sub")
        same(events(), [(DELETE | ISDIR, "sub")])
        os.symlink("t", "d/l")
        os.mkfifo("d/p")
        os.link("d/new", "d/hard")
        same([e for e in events() if e[0] != ATTRIB], [(CREATE, "l"), (CREATE, "p"), (CREATE, "hard")])


@case
def inotify_of_a_file_from_before():
    """A watch set on a file goes on when the file is changed for the first time."""
    put("f", b"text")
    yield
    with watching("f") as events:
        os.chmod("f", 0o600)
        same(events(), [(ATTRIB, "")])
        with opened("f", os.O_WRONLY) as fd:
            os.write(fd, b"y")
        same(events(), [(MODIFY, ""), (CLOSE_WRITE, "")])
        os.truncate("f", 1)
        same(events(), [(MODIFY, "")])
        os.setxattr("f", "user.a", b"1")
        same(events(), [(ATTRIB, "")])
        os.rename("f", "g")
        same(events(), [(MOVE_SELF, "")])
        os.unlink("g")
        found = [mask for mask, _ in events()]
        true(DELETE_SELF in found, f"the end is told: {found}")


@case
def inotify_of_another_name():
    put("a", b"x")
    os.link("a", "b")
    yield
    with watching("a") as events:
        with opened("b", os.O_WRONLY) as fd:
            os.write(fd, b"y")
        same(events(), [(MODIFY, ""), (CLOSE_WRITE, "")])


@case
def inotify_of_moves_between_directories():
    folder("a")
    folder("b")
    put("a/f")
    folder("a/d")
    yield
    with watching("a", "b") as events:
        os.rename("a/f", "b/f")
        os.rename("a/d", "b/d")
        same(events(), [(MOVED_FROM, "f"), (MOVED_TO, "f"), (MOVED_FROM | ISDIR, "d"), (MOVED_TO | ISDIR, "d")])


@case
def inotify_of_a_renamed_directory():
    folder("d")
    put("d/f", b"x")
    yield
    with watching("d") as events:
        os.rename("d", "e")
        same(events(), [(MOVE_SELF, "")])
        put("e/new")
        same(events()[:1], [(CREATE, "new")])
