"""Names: any bytes, any length to 255, and those that overlays give a meaning."""
import os

from kit import *

ODD = [
    b"caf\xe9", b"\xff\xfe", b"\x80", b"new\nline", b" lead", b"trail ", b"tab\t", b"back\\slash", b"q'uote\"", b"*?[", b"-rf",
    b"\x01\x02", b"...", b"..x", b".x", b"~", b"#x#", b"%41", b"e\xcc\x81", b"\xc3\xa9", b"A", b"a", b"CON",
]  # fmt: skip
MARKS = [b".wh.x", b".wh.", b".wh..wh..opq", b".wh..wh.plnk", b".wh..wh.aufs", b".wh", b"wh.x", b".wh.x.wh.", b".fuse_hidden0000"]


@case
def names_of_any_bytes():
    for name in ODD:
        put(b"f-" + name, name)
        put(name, name)
    yield
    same(sorted(os.listdir(b".")), sorted([*ODD, *(b"f-" + name for name in ODD)]))
    for name in ODD:
        same(get(name), name)
        os.rename(name, b"r-" + name)
        os.unlink(b"f-" + name)
        os.mkdir(name)
        os.symlink(name, name + b"/" + name)
    same(sorted(os.listdir(b".")), sorted([*ODD, *(b"r-" + name for name in ODD)]))
    yield REMOUNT
    for name in ODD:
        same((get(b"r-" + name), os.listdir(name), os.readlink(name + b"/" + name)), (name, [name], name))


@case
def names_of_255_bytes():
    for letter in "ab":
        put(letter * 255, letter.encode())
    folder("d" * 255)
    put("d" * 255 + "/" + "e" * 255, b"inner")
    os.symlink("t", "l" * 255)
    yield
    same(names(), sorted(["a" * 255, "b" * 255, "d" * 255, "l" * 255]))
    os.rename("a" * 255, "c" * 255)
    os.chmod("c" * 255, 0o600)
    os.unlink("b" * 255)
    os.unlink("d" * 255 + "/" + "e" * 255)
    os.mkdir("b" * 255)
    put("a" * 255, b"new")
    os.link("a" * 255, "h" * 255)
    os.mkfifo("p" * 255)
    same(names(), sorted([x * 255 for x in "abcdhlp"]))
    yield KILL
    same(names(), sorted([x * 255 for x in "abcdhlp"]))
    same((get("c" * 255), mode_of("c" * 255), get("h" * 255), names("d" * 255)), (b"a", 0o600, b"new", []))
    os.rmdir("d" * 255)
    os.rename("b" * 255, "d" * 255)
    for letter in "achlp":
        os.unlink(letter * 255)
    same(names(), ["d" * 255])


@case
def names_that_are_too_long():
    folder("d")
    put("f")
    yield
    long = "d/" + "n" * 256
    with unchanged("d", "f", "."):
        refused(ENAMETOOLONG, os.mkdir, long)
        refused(ENAMETOOLONG, os.open, long, os.O_WRONLY | os.O_CREAT)
        refused(ENAMETOOLONG, os.symlink, "t", long)
        refused(ENAMETOOLONG, os.mkfifo, long)
        refused(ENAMETOOLONG, os.link, "f", long)
        refused(ENAMETOOLONG, os.rename, "f", long)
        refused(ENAMETOOLONG, os.lstat, long)
        refused(ENAMETOOLONG, os.lstat, long + "/x")


@case
def names_that_begin_with_wh():
    """They hide nothing."""
    put("x", b"seen")
    folder("d")
    put("d/inner", b"seen, too")
    for name in MARKS:
        put(name, name)
        put(b"d/" + name, name)
    yield
    same(sorted(os.listdir(b".")), sorted([b"x", b"d", *MARKS]))
    same(sorted(os.listdir(b"d")), sorted([b"inner", *MARKS]))
    same((get("x"), get("d/inner")), (b"seen", b"seen, too"))
    for name in MARKS:
        same(get(name), name)
        os.chmod(name, 0o600)
        os.unlink(b"d/" + name)
    yield REMOUNT
    same((sorted(os.listdir(b".")), os.listdir("d")), (sorted([b"x", b"d", *MARKS]), ["inner"]))
    same((get("x"), get("d/inner")), (b"seen", b"seen, too"))


@case
def names_that_begin_with_wh_are_made():
    put("x", b"seen")
    folder("d")
    put("d/inner", b"seen, too")
    yield
    for name in MARKS:
        put(name, name)
        os.mkdir(b"d/" + name)
    os.rename("x", ".wh.y")
    os.rename(".wh.y", "x")
    same(sorted(os.listdir(b"d")), sorted([b"inner", *MARKS]))
    yield KILL
    same((sorted(os.listdir(b".")), sorted(os.listdir(b"d"))), (sorted([b"x", b"d", *MARKS]), sorted([b"inner", *MARKS])))
    same((get("x"), get("d/inner"), get(b".wh.x")), (b"seen", b"seen, too", b".wh.x"))


@case
def names_differ_by_case_and_form():
    for name in (b"a", b"A", b"\xc3\xa9", b"e\xcc\x81"):
        put(name, name)
    yield
    same(len(os.listdir(b".")), 4)
    for name in (b"a", b"A", b"\xc3\xa9", b"e\xcc\x81"):
        same(get(name), name)
    os.unlink(b"A")
    same(get(b"a"), b"a")
    refused(ENOENT, os.lstat, b"A")


@case
def names_with_the_same_hash_or_beginning():
    folder("d")
    for i in range(150):
        put(f"d/{'p' * 200}{i}", str(i).encode())
    yield
    for i in range(0, 150, 3):
        os.unlink(f"d/{'p' * 200}{i}")
    same(len(names("d")), 100)
    for i in range(150):
        if i % 3:
            same(get(f"d/{'p' * 200}{i}"), str(i).encode())
        else:
            refused(ENOENT, os.lstat, f"d/{'p' * 200}{i}")


@case
def names_looked_up_in_vain_can_be_made():
    folder("d")
    put("d/was")
    yield
    for name in ("d/x", "d/y", "d/z", "d/l"):
        refused(ENOENT, os.lstat, name)
    os.mkdir("d/x")
    put("d/y", b"y")
    os.rename("d/was", "d/z")
    os.symlink("y", "d/l")
    same((names("d"), get("d/l")), (["l", "x", "y", "z"], b"y"))
    refused(ENOENT, os.lstat, "d/was")


@case
def names_dot_and_dotdot():
    folder("d")
    folder("d/e")
    yield
    same((ino("d/."), ino("d/.."), ino("d/e/../.")), (ino("d"), ino("."), ino("d")))
    with opened("d/e", os.O_RDONLY) as fd:
        found = {name: number for name, number, _, _ in getdents(fd)}
    same(found, {b".": ino("d/e"), b"..": ino("d")})
