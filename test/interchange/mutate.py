#!/usr/bin/env python3
"""Changes a tree by chance, the same for the same seed and tree; and a second tree alike, which must go the same way.

  mutate.py SEED COUNT TREE [COPY] [--without WHAT]... [--refused ERRNO]... [--fixed-times]

An operation that fails on TREE by an ERRNO that is named may fail; any other failure is an error, and so is one that fails
on COPY. WHAT is not done: `exchange` renames, `names` that begin with `.wh.` or to which that cannot be put in front,
`linking`; `setid` modes, and changes of what has one at the start, or capabilities; changes of what has several `links` or
of `special` files that are there at the start. --fixed-times sets the times of all
that was changed at the end, so that TREE and COPY can be compared. One line on stdout says what was done.
"""
import argparse
import ctypes
import errno
import os
import random
import shutil
import stat
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE = 1, 2
FIXED = 1_234_567_890_123_456_789
ROOT = os.geteuid() == 0 and open("/proc/self/uid_map").read().split() == ["0", "0", "4294967295"]
OWNERS = [0, 1000, 70_000] if ROOT else [os.geteuid()]
XATTRS = ["user.a", "user.b", "user.note"] + (["trusted.t"] if ROOT else [])


def rename(old, new, flags):
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) < 0:
        raise OSError(ctypes.get_errno(), "")


def write(path, o):
    with open(path, "r+b") as file:
        if o["cut"]:
            file.truncate(o["at"])
        file.seek(o["at"])
        # The kernel's overlayfs changes the time of a metadata-only copy that is opened to write nothing.
        file.write(o["data"] or b"w")


def make(path, o):
    with open(path, "xb") as file:
        file.write(o["data"])
    os.chmod(path, o["mode"])


def remade(path, o):
    """A directory emptied and made anew: opaque where there is one below."""
    shutil.rmtree(path)
    os.mkdir(path, 0o755)
    with open(os.path.join(path, b"fresh"), "xb") as file:
        file.write(o["data"])


def unset(path, o):
    if o["xattr"] in os.listxattr(path, follow_symlinks=False):
        os.removexattr(path, o["xattr"], follow_symlinks=False)


OPS = {
    "make": (8, lambda a, o: make(a(o["new"]), o)),
    "mkdir": (6, lambda a, o: os.mkdir(a(o["new"]), 0o755)),
    "symlink": (3, lambda a, o: os.symlink(o["data"][:20].hex() or "x", a(o["new"]))),
    "fifo": (2, lambda a, o: os.mkfifo(a(o["new"]), 0o640)),
    "device": (2 if ROOT else 0, lambda a, o: os.mknod(a(o["new"]), stat.S_IFCHR | 0o600, os.makedev(1, 5))),
    "write": (9, lambda a, o: write(a(o["file"]), o)),
    "chmod": (6, lambda a, o: os.chmod(a(o["mutable"]), o["mode"])),
    "chown": (4 if ROOT else 0, lambda a, o: os.lchown(a(o["any"]), o["uid"], o["gid"])),
    "utime": (4, lambda a, o: os.utime(a(o["any"]), ns=(o["time"], o["time"]), follow_symlinks=False)),
    "set": (5, lambda a, o: os.setxattr(a(o["mutable"]), o["xattr"], o["data"][:300])),
    "unset": (2, lambda a, o: unset(a(o["mutable"]), o)),
    "unlink": (9, lambda a, o: os.unlink(a(o["object"]))),
    "rmtree": (3, lambda a, o: shutil.rmtree(a(o["folder"]))),
    "remade": (3, lambda a, o: remade(a(o["folder"]), o)),
    "rename": (10, lambda a, o: rename(a(o["any"]), a(o["new"]), NOREPLACE)),
    "over": (5, lambda a, o: rename(a(o["object"]), a(o["other"]), 0)),
    "exchange": (4, lambda a, o: rename(a(o["any"]), a(o["any2"]), EXCHANGE)),
    "link": (5, lambda a, o: os.link(a(o["object"]), a(o["new"]), follow_symlinks=False)),
}  # fmt: skip
NAMES = [b"a", b"b", b"new", b"caf\xe9", b"x" * 255, b"wide-0007", b"one", b".whatever", b".wh.a", b".wh..wh..opq"]


class Chooser:
    def __init__(self, args):
        self.args, self.r = args, random.Random(args.seed)
        self.root = os.fsencode(args.tree)
        self.without = set(args.without)
        self.kept = {p for p, s in self.walk() if self.is_kept(p, s)}
        self.names = [n[:251] for n in NAMES if not n.startswith(b".wh.")] if "names" in self.without else NAMES

    def is_kept(self, path, s):
        special = not (stat.S_ISDIR(s.st_mode) or stat.S_ISREG(s.st_mode) or stat.S_ISLNK(s.st_mode))
        linked = s.st_nlink > 1 and not stat.S_ISDIR(s.st_mode)
        if "names" in self.without and len(os.path.basename(path)) > 251:
            return True
        capable = stat.S_ISREG(s.st_mode) and "security.capability" in os.listxattr(os.path.join(self.root, path))
        setid = not stat.S_ISDIR(s.st_mode) and s.st_mode & (stat.S_ISUID | stat.S_ISGID) != 0
        if "setid" in self.without and (setid or capable):
            return True
        return (special and "special" in self.without) or (linked and "links" in self.without)

    def walk(self):
        found = []
        for top, folders, files in os.walk(self.root):
            folders.sort()
            at = os.path.relpath(top, self.root)
            for name in sorted(folders + files):
                path = name if at == b"." else os.path.join(at, name)
                found.append((path, os.lstat(os.path.join(self.root, path))))
        return found

    def next(self):
        r = self.r
        found = [(p, s) for p, s in self.walk() if p not in self.kept]
        holds_kept = {os.path.dirname(p) for p in self.kept}
        # What holds something to be left alone stays where it is; so does what is above it.
        above = {b"/".join(p.split(b"/")[:i]) for p in holds_kept for i in range(1, p.count(b"/") + 2)}
        free = [(p, s) for p, s in found if p not in above]
        o = {}

        def pick(name, among):
            o[name] = r.choice(among) if among else None

        # Small ones: the tree must not be gone after a few operations.
        folders = [p for p, s in free if stat.S_ISDIR(s.st_mode) and sum(q.startswith(p + b"/") for q, _ in found) < 8]
        pick("any", [p for p, s in free])
        pick("any2", [p for p, s in free])
        pick("mutable", [p for p, s in found if stat.S_ISDIR(s.st_mode) or stat.S_ISREG(s.st_mode)])
        pick("file", [p for p, s in found if stat.S_ISREG(s.st_mode)])
        pick("object", [p for p, s in found if not stat.S_ISDIR(s.st_mode)])
        pick("other", [p for p, s in found if not stat.S_ISDIR(s.st_mode)])
        pick("folder", folders)
        inside = [b""] + [p for p, s in found if stat.S_ISDIR(s.st_mode)]
        o["new"] = os.path.join(r.choice(inside), r.choice(self.names))
        size = r.choice([0, 1, 100, 4096, 5000, 70_000])
        o |= {"data": r.randbytes(size), "at": r.choice([0, 1, 4095, 10_000]), "cut": r.random() < 0.4}
        o |= {"mode": r.choice([0o644, 0o600, 0o755, 0o4755, 0o2770, 0o1777, 0o700])}
        if "setid" in self.without:
            o["mode"] &= 0o1777
        o |= {"uid": r.choice(OWNERS), "gid": r.choice(OWNERS), "xattr": r.choice(XATTRS)}
        o |= {"time": r.choice([0, 1_500_000_000_123_456_789, -1_000_000_001, 4_000_000_000_000_000_001])}
        weights = {name: weight for name, (weight, _) in OPS.items()}
        if "exchange" in self.without:
            weights["exchange"] = 0
        if "linking" in self.without:
            weights["link"] = 0
        if "special" in self.without:
            weights["fifo"] = weights["device"] = 0
        o["op"] = r.choices(list(weights), list(weights.values()))[0]
        return o


WHAT = ["exchange", "linking", "links", "names", "setid", "special"]
ORDINARY = {"ENOENT", "EEXIST", "EINVAL", "ENOTEMPTY", "ENAMETOOLONG", "ENOTDIR", "EISDIR"}


def outcome(root, o):
    def at(path):
        if path is None:
            raise OSError(errno.ENOENT, "")
        return os.path.join(os.fsencode(root), path)

    try:
        OPS[o["op"]][1](at, o)
        return "done"
    except OSError as cause:
        return errno.errorcode[cause.errno]


def text(o):
    return f"{o['op']} {({**o, 'data': len(o['data'])})}"


def settle(root, since):
    """Deepest first: setting the time of what is in a directory leaves the directory's alone."""
    for top, folders, files in os.walk(os.fsencode(root), topdown=False):
        for path in [os.path.join(top, name) for name in files + folders] + [top]:
            if os.lstat(path).st_mtime_ns >= since:
                os.utime(path, ns=(FIXED, FIXED), follow_symlinks=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("tree")
    parser.add_argument("copy", nargs="?")
    parser.add_argument("--without", action="append", default=[], choices=WHAT)
    parser.add_argument("--fixed-times", action="store_true")
    parser.add_argument("--refused", action="append", default=[])
    args = parser.parse_args()
    os.umask(0o022)
    since = time.time_ns() - 1_000_000_000
    chooser, done, refused = Chooser(args), 0, {}
    for i in range(args.count):
        o = chooser.next()
        result = outcome(args.tree, o)
        if result == "done":
            done += 1
        elif result in args.refused:
            refused[result] = refused.get(result, 0) + 1
            continue
        elif result not in ORDINARY:
            print(f"seed {args.seed}, operation {i}: {result} of {text(o)}", file=sys.stderr)
            return 1
        if args.copy is not None:
            on_copy = outcome(args.copy, o)
            if on_copy != result:
                print(f"seed {args.seed}, operation {i}: {result}, on the copy {on_copy}: {text(o)}", file=sys.stderr)
                return 1
    if args.fixed_times:
        for root in [args.tree] + ([args.copy] if args.copy else []):
            settle(root, since)
    print(f"{done} of {args.count} done, refused {refused}")
    return 0 if done > args.count // 3 else 1


if __name__ == "__main__":
    sys.exit(main())
