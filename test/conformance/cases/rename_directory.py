"""rename(2) of directories, from whatever layer, with all that is in them."""
import os

from kit import *


def tree(name, files=3):
    folder(name)
    for i in range(files):
        put(f"{name}/f{i}", f"{name} {i}".encode())
    folder(f"{name}/sub", 0o750)
    put(f"{name}/sub/deep", f"{name} deep".encode())
    os.symlink("../f0", f"{name}/sub/link")


def holds(name, made_as, files=3):
    same(names(name), [*(f"f{i}" for i in range(files)), "sub"], name)
    same(get(f"{name}/f0"), f"{made_as} 0".encode())
    same(get(f"{name}/sub/deep"), f"{made_as} deep".encode())
    same(get(f"{name}/sub/link"), f"{made_as} 0".encode())
    same(mode_of(f"{name}/sub"), 0o750)


@case
def rename_directory():
    tree("a")
    yield
    number, inner = ino("a"), ino("a/sub/deep")
    with touched({".": "mc"}):
        os.rename("a", "b")
    absent("a")
    refused(ENOENT, os.lstat, "a/f0")
    holds("b", "a")
    same((ino("b"), ino("b/sub/deep"), links("b")), (number, inner, 3))
    yield REMOUNT
    absent("a")
    holds("b", "a")
    same((ino("b"), ino("b/sub/deep"), links("b")), (number, inner, 3))


@case
def rename_directory_into_another():
    tree("a")
    folder("d")
    yield
    with touched({".": "mc", "d": "mc"}):
        os.rename("a", "d/a")
    same((links("d"), links(".")), (3, 3))
    holds("d/a", "a")
    same(ino("d/a/.."), ino("d"))
    os.rename("d", "e")
    holds("e/a", "a")
    yield KILL
    holds("e/a", "a")
    same((names(), links("e"), links(".")), (["e"], 3, 3))
    same(ino("e/a/.."), ino("e"))


@case
def rename_directory_over_an_empty_one():
    tree("a")
    folder("b", 0o700)
    yield
    number = ino("a")
    with opened("b", os.O_RDONLY) as fd:
        os.rename("a", "b")
        same((os.fstat(fd).st_nlink, os.listdir(fd)), (0, []))
    same((ino("b"), mode_of("b"), links(".")), (number, 0o755, 3))
    holds("b", "a")
    yield REMOUNT
    holds("b", "a")
    absent("a")


@case
def rename_directory_over_a_full_one():
    tree("a")
    tree("b")
    folder("only")
    folder("only/empty")
    yield
    with unchanged("a", "b", "only", "."):
        refused((ENOTEMPTY, EEXIST), os.rename, "a", "b")
        refused((ENOTEMPTY, EEXIST), os.rename, "a", "only")


@case
def rename_directory_over_one_that_was_emptied():
    tree("a")
    folder("b")
    put("b/x", b"x")
    folder("b/y")
    yield
    os.unlink("b/x")
    os.rmdir("b/y")
    os.rename("a", "b")
    holds("b", "a")
    absent("b/x", "b/y")
    yield REMOUNT
    holds("b", "a")
    absent("b/x", "b/y", "a")


@case
def rename_empty_directory_over_another():
    folder("a", 0o711)
    folder("b")
    yield
    number = ino("a")
    os.rename("a", "b")
    same((names(), mode_of("b"), ino("b")), (["b"], 0o711, number))


@case
def rename_directory_into_itself():
    tree("a")
    yield
    with unchanged("a", "a/sub", "."):
        refused(EINVAL, os.rename, "a", "a/b")
        refused(EINVAL, os.rename, "a", "a/sub/b")
        refused(EINVAL, os.rename, "a", "a/sub")
        refused((ENOTEMPTY, EEXIST, EINVAL), os.rename, "a/sub", "a")


@case
def rename_directory_that_is_open():
    tree("a")
    folder("d")
    yield
    with opened("a", os.O_RDONLY) as fd, opened("a/sub/deep", os.O_RDWR) as inner:
        os.rename("a", "d/b")
        same(sorted(os.listdir(fd)), ["f0", "f1", "f2", "sub"])
        os.pwrite(inner, b"A", 0)
        same(get("d/b/sub/deep"), b"A deep")
        with opened("new", os.O_WRONLY | os.O_CREAT, dir_fd=fd) as made:
            os.write(made, b"by the descriptor")
        same(get("d/b/new"), b"by the descriptor")
        os.unlink("f0", dir_fd=fd)
        absent("d/b/f0")
        os.chdir(fd)
        same(os.getcwd(), final("d/b"))
        os.chdir(final())


@case
def rename_directory_then_change_inside():
    tree("a")
    yield
    os.rename("a", "b")
    put("b/f0", b"changed")
    os.unlink("b/f1")
    os.chmod("b/sub", 0o700)
    os.rename("b/sub/deep", "b/deep")
    put("b/sub/new", b"new")
    yield KILL
    same((names("b"), names("b/sub")), (["deep", "f0", "f2", "sub"], ["link", "new"]))
    same((get("b/f0"), get("b/deep"), get("b/sub/new"), mode_of("b/sub")), (b"changed", b"a deep", b"new", 0o700))
    absent("a", "b/f1")


@case
def rename_directory_and_make_another_in_its_place():
    tree("a")
    yield
    os.rename("a", "b")
    os.mkdir("a")
    same(names("a"), [])
    put("a/f0", b"new")
    os.mkdir("a/sub")
    yield REMOUNT
    same((names("a"), get("a/f0"), names("a/sub")), (["f0", "sub"], b"new", []))
    holds("b", "a")
    true(ino("a") != ino("b"), "they are two")


@case
def rename_directory_chain():
    for name in "abc":
        tree(name)
    yield
    os.rename("c", "d")
    os.rename("b", "c")
    os.rename("a", "b")
    for new, old in (("b", "a"), ("c", "b"), ("d", "c")):
        holds(new, old)
    yield REMOUNT
    for new, old in (("b", "a"), ("c", "b"), ("d", "c")):
        holds(new, old)
    os.rename("b", "a")
    os.rename("c", "b")
    os.rename("d", "c")
    yield REMOUNT
    for name in "abc":
        holds(name, name)
    absent("d")


@case
def rename_directory_swaps_parent_and_child():
    tree("a")
    yield
    os.rename("a/sub", "s")
    os.rename("a", "s/a")
    same((names("s"), names("s/a")), (["a", "deep", "link"], ["f0", "f1", "f2"]))
    same((links("s"), links("s/a")), (3, 2))
    yield KILL
    same((names(), names("s"), names("s/a")), (["s"], ["a", "deep", "link"], ["f0", "f1", "f2"]))
    same(get("s/a/f0"), b"a 0")


@case
def rename_directory_then_remove_it():
    tree("a")
    yield
    os.rename("a", "b")
    for name in ("f0", "f1", "f2", "sub/deep", "sub/link"):
        os.unlink(f"b/{name}")
    os.rmdir("b/sub")
    os.rmdir("b")
    absent("a", "b")
    yield REMOUNT
    absent("a", "b")
    same(names(), [])


@case
def rename_directory_over_a_removed_name():
    tree("a")
    put("f", b"x")
    folder("d")
    put("d/inner", b"y")
    yield
    os.unlink("f")
    os.unlink("d/inner")
    os.rmdir("d")
    os.rename("a", "f")
    os.rename("f", "d")
    holds("d", "a")
    yield REMOUNT
    holds("d", "a")
    same(names(), ["d"])


@case
def rename_long_names_of_directories():
    tree("a")
    yield
    long = "n" * 255
    os.rename("a", long)
    os.rename(f"{long}/sub", f"{long}/{long}")
    same(get(f"{long}/{long}/deep"), b"a deep")
    yield REMOUNT
    same(get(f"{long}/{long}/deep"), b"a deep")
    os.rename(f"{long}/{long}", f"{long}/sub")
    os.rename(long, "a")
    holds("a", "a")


@case
def rename_of_the_working_directory():
    tree("a")
    yield
    os.chdir("a/sub")
    os.rename("../../a", "../../b")
    same(os.getcwd(), final("b/sub"))
    same(get("deep"), b"a deep")
    put("../made", b"x")
    same(get(final("b/made")), b"x")


@case
def rename_directory_changes_dotdot():
    folder("a")
    folder("b")
    folder("a/d")
    yield
    with touched({"a": "mc", "b": "mc"}):
        os.rename("a/d", "b/d")
    same((links("a"), links("b"), ino("b/d/..")), (2, 3, ino("b")))
    yield REMOUNT
    same((links("a"), links("b"), ino("b/d/..")), (2, 3, ino("b")))


@case(root=True)
def rename_directory_of_another_owner():
    """Its `..` changes, so it takes the right to write to it, where it goes to another directory."""
    folder("d", 0o777)
    folder("e", 0o777)
    folder("d/his", 0o755, BOB)
    yield
    with user(ALICE):
        refused(EACCES, os.rename, "d/his", "e/his")
        os.rename("d/his", "d/still")
    same((names("d"), names("e")), (["still"], []))
    with user(BOB):
        os.rename("d/still", "e/moved")
    same((owner("e/moved"), names("e")), ((BOB, BOB), ["moved"]))
