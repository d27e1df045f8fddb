"""Extended attributes: namespaces, errors, limits."""
import os

from kit import *

CREATE, REPLACE = 1, 2


@case
def xattr_set_get_list_remove():
    put("f", b"text")
    folder("d")
    yield
    for name in "fd":
        with touched({name: "c"}):
            setxattr(name, "user.a", b"value")
        setxattr(name, "user.b", b"")
        same((getxattr(name, "user.a"), getxattr(name, "user.b")), (b"value", b""))
        same(listxattr(name), ["user.a", "user.b"])
        with touched({name: "c"}):
            removexattr(name, "user.a")
        same(listxattr(name), ["user.b"])
        refused(ENODATA, getxattr, name, "user.a")
        refused(ENODATA, removexattr, name, "user.a")
    yield REMOUNT
    for name in "fd":
        same((listxattr(name), getxattr(name, "user.b")), (["user.b"], b""))


@case
def xattr_of_what_was_made_before():
    put("f", noise(10_000), 0o640)
    setxattr("f", "user.one", b"1")
    setxattr("f", "user.two", bytes(range(256)))
    setxattr("f", "user.empty", b"")
    folder("d")
    setxattr("d", "user.dir", b"yes")
    yield
    same(listxattr("f"), ["user.empty", "user.one", "user.two"])
    same((getxattr("f", "user.two"), getxattr("f", "user.empty"), getxattr("d", "user.dir")), (bytes(range(256)), b"", b"yes"))
    os.chmod("f", 0o600)
    same(getxattr("f", "user.two"), bytes(range(256)))
    removexattr("f", "user.one")
    removexattr("d", "user.dir")
    setxattr("f", "user.two", b"changed")
    yield KILL
    same((listxattr("f"), getxattr("f", "user.two"), listxattr("d")), (["user.empty", "user.two"], b"changed", []))
    true(get("f") == noise(10_000), "content")


@case
def xattr_create_and_replace():
    put("f")
    setxattr("f", "user.a", b"1")
    yield
    with unchanged("f"):
        refused(EEXIST, setxattr, "f", "user.a", b"2", CREATE)
        refused(ENODATA, setxattr, "f", "user.b", b"2", REPLACE)
        refused(EINVAL, setxattr, "f", "user.b", b"2", 4)
    setxattr("f", "user.a", b"3", REPLACE)
    setxattr("f", "user.b", b"4", CREATE)
    same((getxattr("f", "user.a"), getxattr("f", "user.b")), (b"3", b"4"))
    refused(EEXIST, setxattr, "f", "user.b", b"5", CREATE)


@case
def xattr_sizes():
    put("f")
    setxattr("f", "user.a", b"12345")
    yield

    def get_into(size):
        buffer = ctypes.create_string_buffer(max(size, 1))
        return call(libc.lgetxattr(b"f", b"user.a", buffer, size)), buffer.raw[:size]

    def list_into(size):
        return call(libc.llistxattr(b"f", ctypes.create_string_buffer(max(size, 1)), size))

    same(get_into(0)[0], 5)
    same(get_into(5), (5, b"12345"))
    same(get_into(100)[0], 5)
    refused(ERANGE, get_into, 4)
    same((list_into(0), list_into(7), list_into(100)), (7, 7, 7))
    refused(ERANGE, list_into, 6)


@case
def xattr_limits_of_names_and_values():
    put("f")
    yield
    longest = "user." + "n" * 250
    setxattr("f", longest, b"x")
    same((listxattr("f"), getxattr("f", longest)), ([longest], b"x"))
    with unchanged("f"):
        refused(ERANGE, setxattr, "f", "user." + "n" * 251, b"x")
        refused((E2BIG, ERANGE), setxattr, "f", "user.big", bytes(65537))
        refused(EOPNOTSUPP, setxattr, "f", "nonsense", b"x")
        refused(EOPNOTSUPP, setxattr, "f", "other.namespace", b"x")
        refused((EINVAL, EOPNOTSUPP), setxattr, "f", "user.", b"x")
        refused((ERANGE, EINVAL), setxattr, "f", "", b"x")
    setxattr("f", "user.3000", noise(3000))
    same(getxattr("f", "user.3000"), noise(3000))
    yield REMOUNT
    same(getxattr("f", "user.3000"), noise(3000))


@case
def xattr_too_much_for_the_disk():
    """Whatever the filesystem takes: a refusal changes nothing."""
    put("f")
    yield
    made = []
    for i in range(200):
        try:
            setxattr("f", f"user.{i}", noise(1000, i))
        except OSError as cause:
            true(cause.errno in (ENOSPC, E2BIG, EDQUOT), f"errno {cause.errno}")
            break
        made.append(i)
    same(listxattr("f"), sorted(f"user.{i}" for i in made))
    for i in made:
        same(getxattr("f", f"user.{i}"), noise(1000, i))


@case
def xattr_many():
    put("f")
    for i in range(40):
        setxattr("f", f"user.name-{i}", str(i).encode())
    yield
    same(len(listxattr("f")), 40)
    for i in range(0, 40, 2):
        removexattr("f", f"user.name-{i}")
    same(len(listxattr("f")), 20)
    for i in range(1, 40, 2):
        same(getxattr("f", f"user.name-{i}"), str(i).encode())


@case
def xattr_names_and_values_are_bytes():
    put("f")
    setxattr("f", b"user.\xff\xfe n\n", b"\0\xff\0")
    yield
    same(os.getxattr("f", b"user.\xff\xfe n\n"), b"\0\xff\0")
    same([os.fsencode(name) for name in os.listxattr("f")], [b"user.\xff\xfe n\n"])
    setxattr("f", b"user.caf\xe9", b"2")
    same(sorted(os.fsencode(name) for name in os.listxattr("f")), [b"user.caf\xe9", b"user.\xff\xfe n\n"])


@case
def xattr_user_names_are_for_files_and_directories():
    os.symlink("t", "l")
    fifo("p")
    yield
    for name in "lp":
        with unchanged(name):
            refused(EPERM, setxattr, name, "user.a", b"1")
            refused((ENODATA, EPERM), getxattr, name, "user.a")
        same(listxattr(name), [])


@case
def xattr_follows_symlinks_or_not():
    put("f")
    os.symlink("f", "l")
    setxattr("f", "user.a", b"1")
    yield
    same(os.getxattr("l", "user.a"), b"1")
    os.setxattr("l", "user.b", b"2")
    same((listxattr("f"), listxattr("l")), (["user.a", "user.b"], []))
    os.removexattr("l", "user.a")
    same(listxattr("f"), ["user.b"])


@case
def xattr_through_a_symlink_with_an_absolute_target():
    """The target lies in the mount: nobody else but the kernel may resolve it."""
    folder("d")
    put("d/f", b"x")
    setxattr("d/f", "user.a", b"1")
    os.symlink(final("d/f"), "l")
    os.symlink(final("d"), "ld")
    yield
    same((os.getxattr("l", "user.a"), os.getxattr("ld/f", "user.a")), (b"1", b"1"))
    os.setxattr("l", "user.b", b"2")
    os.setxattr("ld", "user.c", b"3")
    same((listxattr("d/f"), listxattr("d"), listxattr("l"), listxattr("ld")), (["user.a", "user.b"], ["user.c"], [], []))
    os.removexattr("ld/f", "user.a")
    same(listxattr("d/f"), ["user.b"])
    refused(ENODATA, getxattr, "l", "user.a")


@case
def xattr_refuses_what_it_must():
    put("f")
    os.symlink("self", "self")
    yield
    refused(ENOENT, os.setxattr, "none", "user.a", b"1")
    refused(ENOENT, os.getxattr, "none", "user.a")
    refused(ENOENT, os.listxattr, "none")
    refused(ENOENT, os.removexattr, "none", "user.a")
    refused(ENOTDIR, os.getxattr, "f/x", "user.a")
    refused(ELOOP, os.getxattr, "self", "user.a")
    refused(ENODATA, os.getxattr, "f", "user.a")
    refused(ENODATA, os.removexattr, "f", "user.a")


@case
def xattr_by_descriptor():
    put("f")
    folder("d")
    yield
    for name in "fd":
        with opened(name, os.O_RDONLY) as fd:
            os.setxattr(fd, "user.a", b"1")
            same((os.getxattr(fd, "user.a"), os.listxattr(fd)), (b"1", ["user.a"]))
            os.removexattr(fd, "user.a")
            refused(ENODATA, os.getxattr, fd, "user.a")


@case
def xattr_by_one_name_shows_by_the_other():
    put("a", b"x")
    os.link("a", "b")
    yield
    setxattr("a", "user.a", b"1")
    same((getxattr("b", "user.a"), links("b")), (b"1", 2))
    yield REMOUNT
    same(getxattr("b", "user.a"), b"1")
    removexattr("b", "user.a")
    same(listxattr("a"), [])


@case
def xattr_goes_along_with_rename_and_link():
    put("f")
    folder("d")
    setxattr("f", "user.a", b"1")
    setxattr("d", "user.a", b"2")
    yield
    os.rename("f", "d/g")
    os.link("d/g", "h")
    os.rename("d", "e")
    same((getxattr("e/g", "user.a"), getxattr("h", "user.a"), getxattr("e", "user.a")), (b"1", b"1", b"2"))


@case
def xattr_of_a_new_file_are_none():
    put("f")
    setxattr("f", "user.a", b"1")
    yield
    os.unlink("f")
    put("f")
    same(listxattr("f"), [])
    os.mkdir("d")
    same(listxattr("d"), [])


@case
def xattr_names_of_overlays():
    """Programs in a container make overlays, too: these names are theirs to use."""
    put("f")
    folder("d")
    yield
    for key in ("user.overlay.opaque", "user.overlay.origin", "user.overlay.redirect", "user.imgfs.origin",
                "user.containers.override_stat", "user.overlay.whiteout", "user.imgfs.anything"):  # fmt: skip
        for name in "fd":
            setxattr(name, key, b"y")
            same((getxattr(name, key), listxattr(name)), (b"y", [key]))
            removexattr(name, key)
            refused(ENODATA, getxattr, name, key)
            same(listxattr(name), [])
    setxattr("f", "user.overlay.whiteout", b"y")
    setxattr("d", "user.overlay.opaque", b"y")
    put("d/inner")
    yield REMOUNT
    same((getxattr("f", "user.overlay.whiteout"), getxattr("d", "user.overlay.opaque")), (b"y", b"y"))
    same((names(), names("d"), listxattr("d")), (["d", "f"], ["inner"], ["user.overlay.opaque"]))


@case(root=True)
def xattr_trusted_names_of_overlays():
    put("f")
    folder("d")
    put("d/inner")
    yield
    for key in ("trusted.overlay.opaque", "trusted.overlay.metacopy", "trusted.overlay.redirect"):
        for name in "fd":
            setxattr(name, key, b"y")
            same((getxattr(name, key), key in listxattr(name)), (b"y", True))
    yield REMOUNT
    same((getxattr("f", "trusted.overlay.metacopy"), getxattr("d", "trusted.overlay.opaque")), (b"y", b"y"))
    same(names("d"), ["inner"])


@case(root=True)
def xattr_trusted_are_roots():
    put("f", b"", 0o666, ALICE)
    setxattr("f", "trusted.a", b"1")
    os.symlink("t", "l")
    yield
    same((getxattr("f", "trusted.a"), listxattr("f")), (b"1", ["trusted.a"]))
    setxattr("l", "trusted.b", b"2")
    same(getxattr("l", "trusted.b"), b"2")
    with user(ALICE):
        same(listxattr("f"), [])
        refused((ENODATA, EPERM), getxattr, "f", "trusted.a")
        refused(EPERM, setxattr, "f", "trusted.a", b"2")
        refused(EPERM, removexattr, "f", "trusted.a")
    yield REMOUNT
    same((getxattr("f", "trusted.a"), getxattr("l", "trusted.b")), (b"1", b"2"))


@case(root=True)
def xattr_security_names():
    put("f", b"", 0o666, ALICE)
    setxattr("f", "security.other", b"1")
    yield
    same(getxattr("f", "security.other"), b"1")
    with user(ALICE):
        same(getxattr("f", "security.other"), b"1")
        refused(EPERM, setxattr, "f", "security.other", b"2")
        refused(EPERM, removexattr, "f", "security.other")
    setxattr("f", "security.more", b"2")
    same(listxattr("f"), ["security.more", "security.other"])
    yield REMOUNT
    same(listxattr("f"), ["security.more", "security.other"])


@case(root=True)
def xattr_asks_for_permission():
    put("f", b"", 0o640, ALICE, TEAM)
    setxattr("f", "user.a", b"1")
    folder("d", 0o1777)
    yield
    with user(BOB), unchanged("f", "d"):
        refused(EACCES, getxattr, "f", "user.a")
        refused(EACCES, setxattr, "f", "user.a", b"2")
        refused(EACCES, removexattr, "f", "user.a")
        # Of a sticky directory they are the owner's, whoever may write to it.
        refused(EPERM, setxattr, "d", "user.a", b"2")
    with user(BOB, TEAM):
        same(getxattr("f", "user.a"), b"1")
        refused(EACCES, setxattr, "f", "user.a", b"2")
    with user(ALICE):
        setxattr("f", "user.a", b"3")
    same(getxattr("f", "user.a"), b"3")


@case(root=True)
def xattr_of_devices_and_fifos():
    os.mknod("c", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    fifo("p")
    yield
    for name in "cp":
        refused(EPERM, setxattr, name, "user.a", b"1")
        setxattr(name, "trusted.a", b"1")
        setxattr(name, "security.a", b"2")
        same((getxattr(name, "trusted.a"), listxattr(name)), (b"1", ["security.a", "trusted.a"]))
    yield REMOUNT
    for name in "cp":
        same((getxattr(name, "trusted.a"), getxattr(name, "security.a")), (b"1", b"2"))
