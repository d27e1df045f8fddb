"""link(2): one object under several names."""
from kit import *


@case
def link_shares_inode_and_content():
    put("a", b"one")
    yield
    with touched({"a": "c", ".": "mc"}):
        os.link("a", "b")
    same((links("a"), links("b")), (2, 2), "link counts")
    same(ino("a"), ino("b"), "inode")
    with opened("b", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b"two")
    same(get("a"), b"onetwo")
    os.chmod("a", 0o604)
    same(mode_of("b"), 0o604)


@case
def link_survives_remount():
    put("a", b"one")
    os.link("a", "b")
    folder("d")
    yield
    number = ino("a")
    os.link("b", "d/c")
    same(links("a"), 3, "links")
    yield REMOUNT
    same([ino(n) for n in ("a", "b", "d/c")], [number] * 3, "inode")
    same([links(n) for n in ("a", "b", "d/c")], [3] * 3, "links")
    put("b", b"other")
    same(get("a"), b"other")
    same(get("d/c"), b"other")
    os.unlink("a")
    same(links("d/c"), 2)
    yield REMOUNT
    absent("a")
    same(links("b"), 2)
    same(ino("d/c"), number)
