#!/usr/bin/env python3
"""The tree that the image of model.py is built from: source.py FOLDER [--xattrs], the latter with more than are free."""
import os
import sys

BLOCK = 4096


def file(path, size):
    with open(path, "wb") as f:
        f.write(bytes(1 + i % 250 for i in range(min(size, 1000))) * (size // 1000 + 1) if size > 1000 else b"s" * size)
        f.truncate(size)


def sparse(path, size, *places):
    with open(path, "wb") as f:
        f.truncate(size)
        for place in places:
            f.seek(place * BLOCK)
            f.write(b"d" * BLOCK)


def main():
    top = sys.argv[1]
    for folder in ("a", "b", "b/below", "c"):
        os.mkdir(os.path.join(top, folder))
    os.chdir(top)
    for size in (1, 100, 4096, 5000, 20000):
        file(f"a/f{size}", size)
    file("empty", 0)
    file("b/below/f", 9000)
    # Copied by another thread: a file of more than 4 MiB.
    file("large", (5 << 20) + 123)
    sparse("sparse", 50 * BLOCK + 7, 5, 20, 21)
    sparse("hole", 30 * BLOCK)
    file("linked1", 9000)
    os.link("linked1", "a/linked2")
    os.link("linked1", "c/linked3")
    os.symlink("target", "sym")
    os.link("sym", "c/sym2")
    os.mkfifo("fifo")
    if "--xattrs" in sys.argv:
        file("noted", 5000)
        os.setxattr("noted", "user.image", b"i" * 6000)
        os.mkdir("marked")
        os.setxattr("marked", "user.image", b"i" * 3000)


main()
