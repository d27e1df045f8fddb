#!/usr/bin/env python3
"""A directory with 200,000 names in the image: wide.py make TAR writes the layer, wide.py check FOLDER STAGE looks.

STAGE "first" lists it in every way, removes and makes some; "again", after a remount, finds what was left.
"""
import os
import random
import sys

sys.dont_write_bytecode = True

from kit import getdents

COUNT = 200_000


def name_of(i):
    return f"name-{i * 7919 % COUNT:06}"


def listed(folder, size=65536):
    fd = os.open(folder, os.O_RDONLY)
    try:
        entries = []
        while part := getdents(fd, size):
            entries += part
        return entries
    finally:
        os.close(fd)


def names_once(folder):
    entries = listed(folder)
    names = [os.fsdecode(e[0]) for e in entries if e[0] not in (b".", b"..")]
    assert len(names) == len(set(names)), f"{len(names) - len(set(names))} names twice"
    return set(names)


def header(name, mode, kind):
    """A ustar header of an empty member of root's."""
    fields = f"{name:\0<100}{mode:07o}\0{0:07o}\0{0:07o}\0{0:011o}\0{1_500_000_000:011o}\0        {kind}{'':\0<100}ustar\x0000"
    block = fields.encode().ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def make(tar):
    with open(tar, "wb") as file:
        file.write(header("wide/", 0o755, 5))
        for i in range(COUNT):
            file.write(header(f"wide/{name_of(i)}", 0o644, 0))
        file.write(bytes(1024))


def first(folder):
    everything = {f"name-{i:06}" for i in range(COUNT)}
    assert names_once(folder) == everything
    assert names_once(folder) == everything, "the second time"
    with os.scandir(folder) as entries:
        numbers = {entry.inode() for entry in entries}
    assert len(numbers) == COUNT, f"{len(numbers)} inode numbers"
    seeks(folder)
    gone = {f"name-{i:06}" for i in range(0, COUNT, 500)}
    fd = os.open(folder, os.O_RDONLY)
    found = {os.fsdecode(e[0]) for e in getdents(fd, 65536)}
    for i, name in enumerate(sorted(gone)):
        os.unlink(os.path.join(folder, name))
        os.mknod(os.path.join(folder, f"new-{i}"))
    while part := getdents(fd, 65536):
        names = {os.fsdecode(e[0]) for e in part}
        assert not names & found, "a name twice while others come and go"
        found |= names
    os.close(fd)
    assert everything - gone <= found, "a name missed while others come and go"


def seeks(folder):
    fd = os.open(folder, os.O_RDONLY)
    entries = []
    while part := getdents(fd, 65536):
        entries += part
    for i in random.Random(1).sample(range(len(entries) - 1), 300):
        os.lseek(fd, entries[i][3], os.SEEK_SET)
        assert getdents(fd, 512)[0][0] == entries[i + 1][0], f"after entry {i}"
    os.close(fd)


def again(folder):
    gone = range(0, COUNT, 500)
    wanted = {f"name-{i:06}" for i in range(COUNT)} - {f"name-{i:06}" for i in gone} | {f"new-{i}" for i in range(len(gone))}
    assert names_once(folder) == wanted
    assert os.lstat(os.path.join(folder, "new-7")).st_nlink == 1
    assert not os.path.lexists(os.path.join(folder, "name-000500"))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2])
    else:
        {"first": first, "again": again}[sys.argv[3]](sys.argv[2])
