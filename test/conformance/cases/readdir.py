"""getdents(2): complete, without duplicates, stable while names come and go."""
import os

from kit import *

TYPES = {stat.S_IFREG: 8, stat.S_IFDIR: 4, stat.S_IFLNK: 10, stat.S_IFIFO: 1, stat.S_IFCHR: 2, stat.S_IFSOCK: 12}


def listed(fd, size=32768):
    """All that is left to list, as the kernel gives it."""
    found = []
    while part := getdents(fd, size):
        found += part
    return found


def fill(count, at="d", prefix="n"):
    folder(at)
    for i in range(count):
        os.mknod(f"{at}/{prefix}{i:05}", 0o600)


@case(reads=True)
def readdir_tells_inodes_and_types():
    folder("d")
    put("d/f")
    folder("d/sub")
    os.symlink("t", "d/l")
    fifo("d/p")
    os.link("d/f", "d/hard")
    yield
    with opened("d", os.O_RDONLY) as fd:
        found = {os.fsdecode(name): (number, kind) for name, number, kind, _ in listed(fd)}
    same(sorted(found), [".", "..", "f", "hard", "l", "p", "sub"])
    for name, (number, kind) in found.items():
        s = os.lstat(f"d/{name}")
        same((number, kind), (s.st_ino, TYPES[stat.S_IFMT(s.st_mode)]), name)


@case
def readdir_tells_inodes_of_what_has_changed():
    folder("d")
    for name in "abcd":
        put(f"d/{name}")
    folder("d/sub")
    yield
    os.chmod("d/a", 0o600)
    os.rename("d/b", "d/b2")
    os.unlink("d/c")
    put("d/new")
    os.chmod("d/sub", 0o700)
    os.link("d/d", "d/d2")
    with opened("d", os.O_RDONLY) as fd:
        found = {os.fsdecode(name): number for name, number, _, _ in listed(fd)}
    same(sorted(found), [".", "..", "a", "b2", "d", "d2", "new", "sub"])
    for name, number in found.items():
        same(number, ino(f"d/{name}"), name)
    same(len(set(found.values())), 7, "numbers")
    yield REMOUNT
    with opened("d", os.O_RDONLY) as fd:
        again = {os.fsdecode(name): number for name, number, _, _ in listed(fd)}
    for name in again:
        if name not in ("..", "."):
            same(again[name], ino(f"d/{name}"), name)


@case(reads=True)
def readdir_in_small_pieces():
    fill(500)
    yield
    with opened("d", os.O_RDONLY) as fd:
        found = [name for name, _, _, _ in listed(fd, 100)]
    same(len(found), 502)
    same(len(set(found)), 502)


@case(reads=True)
def readdir_buffer_too_small():
    folder("d")
    put("d/" + "n" * 200)
    yield
    with opened("d", os.O_RDONLY) as fd:
        found = []
        try:
            while part := getdents(fd, 64):
                found += part
        except OSError as cause:
            same(cause.errno, EINVAL)
        found += listed(fd)
        same(sorted(name for name, _, _, _ in found)[2:], [b"n" * 200])


@case(reads=True)
def readdir_seeks_to_every_place():
    fill(200)
    yield
    with opened("d", os.O_RDONLY) as fd:
        entries = listed(fd)
        for i in range(0, len(entries) - 1, 13):
            os.lseek(fd, entries[i][3], os.SEEK_SET)
            same(getdents(fd, 400)[0][0], entries[i + 1][0], f"after entry {i}")
        os.lseek(fd, 0, os.SEEK_SET)
        same([e[0] for e in listed(fd)], [e[0] for e in entries])


@case
def readdir_rewound_shows_what_is_new():
    fill(20)
    yield
    with opened("d", os.O_RDONLY) as fd:
        same(len(listed(fd)), 22)
        put("d/new")
        os.unlink("d/n00003")
        os.lseek(fd, 0, os.SEEK_SET)
        found = {name for name, _, _, _ in listed(fd)}
    true(b"new" in found and b"n00003" not in found and len(found) == 22, "what is there now")


@case
def readdir_while_names_go():
    """Each name that stays throughout is listed once, each that went before the start never."""
    fill(400)
    yield
    os.unlink("d/n00000")
    with opened("d", os.O_RDONLY) as fd:
        found = [e[0] for e in getdents(fd, 600)]
        for i in range(1, 400, 3):
            os.unlink(f"d/n{i:05}")
        found += [e[0] for e in listed(fd, 600)]
    same(len(found), len(set(found)), "names, each once")
    for i in range(400):
        if i % 3 != 1 and i != 0:
            true(f"n{i:05}".encode() in found, f"n{i:05} stays and is listed")
    true(b"n00000" not in found, "a name that was gone is not")


@case
def readdir_while_names_come():
    fill(400)
    yield
    with opened("d", os.O_RDONLY) as fd:
        found = [e[0] for e in getdents(fd, 600)]
        for i in range(150):
            os.mknod(f"d/new{i}", 0o600)
        found += [e[0] for e in listed(fd, 600)]
    same(len(found), len(set(found)), "names, each once")
    true({f"n{i:05}".encode() for i in range(400)} <= set(found), "all of before are there")
    same(len(names("d")), 550)


@case
def readdir_while_names_are_renamed():
    fill(300)
    yield
    with opened("d", os.O_RDONLY) as fd:
        found = [e[0] for e in getdents(fd, 600)]
        for i in range(0, 300, 2):
            os.rename(f"d/n{i:05}", f"d/m{i:05}")
        found += [e[0] for e in listed(fd, 600)]
    same(len(found), len(set(found)), "names, each once")
    true({f"n{i:05}".encode() for i in range(1, 300, 2)} <= set(found), "those that stay are there")
    same(names("d"), sorted([f"n{i:05}" for i in range(1, 300, 2)] + [f"m{i:05}" for i in range(0, 300, 2)]))


@case
def readdir_and_remove_as_rm_does():
    fill(700)
    yield
    with opened("d", os.O_RDONLY) as fd:
        count = 0
        while part := getdents(fd, 4096):
            for name, _, _, _ in part:
                if name not in (b".", b".."):
                    os.unlink(name, dir_fd=fd)
                    count += 1
    same(count, 700)
    os.rmdir("d")
    absent("d")


@case
def readdir_of_two_descriptors_apart():
    fill(300)
    yield
    with opened("d", os.O_RDONLY) as one, opened("d", os.O_RDONLY) as two:
        first = getdents(one, 600)
        put("d/new")
        rest = listed(one, 600)
        same({e[0] for e in first + rest} - {b"new"}, {e[0] for e in listed(two)} - {b"new"})


@case
def readdir_after_everything_was_replaced():
    fill(50)
    yield
    for i in range(50):
        os.unlink(f"d/n{i:05}")
    same(names("d"), [])
    for i in range(25, 75):
        os.mkdir(f"d/n{i:05}")
    same(names("d"), [f"n{i:05}" for i in range(25, 75)])
    same(links("d"), 52)
    yield KILL
    same((names("d"), links("d")), ([f"n{i:05}" for i in range(25, 75)], 52))


@case
def readdir_no_name_comes_back():
    folder("d")
    for i in range(10):
        put(f"d/f{i}")
        folder(f"d/d{i}")
    yield
    for i in range(10):
        os.unlink(f"d/f{i}")
        os.rmdir(f"d/d{i}")
    for _ in range(3):
        os.mkdir("d/d1")
        put("d/f1")
        same(names("d"), ["d1", "f1"])
        os.rename("d/d1", "d/other")
        os.rmdir("d/other")
        os.unlink("d/f1")
        same(names("d"), [])
    yield REMOUNT
    same(names("d"), [])
    os.rmdir("d")


@case(reads=True)
def readdir_of_a_wide_directory():
    folder("d")
    put("d/0")
    for i in range(1, 2000):
        os.link("d/0", f"d/{i}")
    yield
    same(names("d"), sorted(map(str, range(2000))))
    with opened("d", os.O_RDONLY) as fd:
        same(len({number for name, number, _, _ in listed(fd) if not name.startswith(b".")}), 1)
    same(links("d/7"), 2000)


@case(root=True)
def readdir_needs_read_alone():
    folder("d", 0o744, ALICE)
    put("d/f")
    yield
    with user(BOB):
        same(os.listdir("d"), ["f"])
        refused(EACCES, os.lstat, "d/f")
    os.chmod("d", 0o711)
    with user(BOB):
        refused(EACCES, os.listdir, "d")
        same(os.lstat("d/f").st_size, 0)
