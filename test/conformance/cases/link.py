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


@case
def link_refuses_what_it_must():
    put("f", b"x")
    put("g", b"y")
    folder("d")
    os.symlink("self", "self")
    yield
    with unchanged("f", "g", "d", "."):
        refused(EEXIST, os.link, "f", "g")
        refused(EEXIST, os.link, "f", "f")
        refused(EEXIST, os.link, "f", "d")
        refused(EEXIST, os.link, "f", "self")
        refused(ENOENT, os.link, "none", "x")
        refused(ENOENT, os.link, "f", "none/x")
        refused(ENOTDIR, os.link, "f/x", "y")
        refused(ENOTDIR, os.link, "f", "g/y")
        refused(EPERM, os.link, "d", "x")
        refused(ENAMETOOLONG, os.link, "f", "n" * 256)
        refused(ENAMETOOLONG, os.link, "n" * 256, "x")
        refused((ENOENT, ENOTDIR), os.link, "f", "x/")
        refused(EXDEV, os.link, "f", "/dev/shm/imgfs-conformance-link")


@case
def link_of_each_type():
    os.symlink("t", "l")
    fifo("p")
    put("f", b"x")
    yield
    for name in "lpf":
        was = ino(name)
        with touched({".": "mc", name: "c"}):
            os.link(name, f"{name}2", follow_symlinks=False)
        same((ino(f"{name}2"), links(name), links(f"{name}2")), (was, 2, 2), name)
    yield KILL
    for name in "lpf":
        same((ino(name), links(name)), (ino(f"{name}2"), 2), name)
    same((os.readlink("l2"), get("f2")), ("t", b"x"))


@case
def link_into_the_place_of_a_removed_name():
    put("a", b"a")
    put("b", b"b")
    folder("d")
    put("d/c", b"c")
    yield
    os.unlink("b")
    os.unlink("d/c")
    os.link("a", "b")
    os.link("a", "d/c")
    same((get("b"), get("d/c"), links("a"), ino("b")), (b"a", b"a", 3, ino("a")))
    yield REMOUNT
    same((get("b"), get("d/c"), links("a"), ino("d/c")), (b"a", b"a", 3, ino("a")))


@case
def link_from_a_removed_name_keeps_content():
    put("a", b"text")
    yield
    os.link("a", "b")
    os.unlink("a")
    same((get("b"), links("b")), (b"text", 1))
    os.link("b", "a")
    same((get("a"), links("a")), (b"text", 2))
    yield KILL
    same((get("a"), links("a"), ino("a")), (b"text", 2, ino("b")))


@case
def link_many():
    put("f", b"x")
    for i in range(20):
        os.link("f", f"below{i}")
    yield
    for i in range(60):
        os.link("f", f"n{i}")
    same(links("below7"), 81)
    for i in range(0, 60, 2):
        os.unlink(f"n{i}")
    for i in range(0, 20, 2):
        os.unlink(f"below{i}")
    same((links("f"), len(names())), (41, 41))
    yield REMOUNT
    same((links("f"), len(names()), len({ino(name) for name in names()})), (41, 41, 1))
    os.chmod("f", 0o600)
    same({mode_of(name) for name in names()}, {0o600})


@case
def link_all_names_go():
    put("a", b"x")
    folder("d")
    os.link("a", "d/b")
    os.link("a", "c")
    yield
    with opened("c", os.O_RDONLY) as fd:
        for name, left in (("a", 2), ("d/b", 1), ("c", 0)):
            os.unlink(name)
            same(os.fstat(fd).st_nlink, left)
        same(everything(fd), b"x")
    yield REMOUNT
    same((names(), names("d")), (["d"], []))


@case
def link_changed_through_each_name():
    for i in range(3):
        put(f"a{i}", b"0123456789")
        os.link(f"a{i}", f"b{i}")
    yield
    os.chmod("a0", 0o600)
    with opened("b1", os.O_WRONLY) as fd:
        os.write(fd, b"X")
    os.truncate("a2", 3)
    with opened("b2", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b"!")
    same([(mode_of(f"a{i}"), get(f"a{i}")) for i in range(3)], [(mode_of(f"b{i}"), get(f"b{i}")) for i in range(3)])
    same((get("a0"), get("a1"), get("a2"), mode_of("b0")), (b"0123456789", b"X123456789", b"012!", 0o600))
    yield KILL
    same((get("b0"), get("a1"), get("a2"), mode_of("b0")), (b"0123456789", b"X123456789", b"012!", 0o600))
    same([links(f"b{i}") for i in range(3)], [2, 2, 2])


@case
def link_in_a_renamed_directory():
    folder("d")
    put("d/a", b"x")
    os.link("d/a", "out")
    yield
    os.rename("d", "e")
    same((links("out"), ino("e/a")), (2, ino("out")))
    put("out", b"new")
    same(get("e/a"), b"new")
    yield REMOUNT
    same((get("e/a"), links("e/a"), ino("e/a")), (b"new", 2, ino("out")))


@case(root=True)
def link_asks_for_permission():
    put("f", b"x", 0o644, ALICE)
    folder("d", 0o755)
    folder("open", 0o777)
    yield
    with user(ALICE):
        refused(EACCES, os.link, "f", "d/x")
        os.link("f", "open/x")
    same((links("f"), names("open"), names("d")), (2, ["x"], []))
