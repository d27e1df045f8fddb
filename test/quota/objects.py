"""The model of model.py: objects with what each costs, and what fits, by the rule in docs/quota.md."""
import os
import stat
from collections import namedtuple

BLOCK = 4096
Limits = namedtuple("Limits", "bytes inodes")


def blocks(start, end):
    """Blocks that bytes [start, end) lie in."""
    return set(range(start // BLOCK, -(-end // BLOCK)))


class Object:
    numbers = 0

    def __init__(self, kind, source=None):
        Object.numbers += 1
        self.number = Object.numbers
        # file, folder, or what never costs bytes
        self.kind = kind
        # Made in the mount; else a copy of one of the image's as soon as it costs something.
        self.born = source is None
        # Path of the image's file whose data it has, until the first change of them.
        self.source = source if kind == "file" else None
        # (folder, name) of each name.
        self.places = []
        self.handles = 0
        self.entries = {}
        # Charged ones, reserved ones among them.
        self.blocks = set()
        self.data = bytearray()
        # Lengths of values.
        self.xattrs, self.base = {}, 0
        if source is not None:
            self.xattrs = {name: len(os.getxattr(source, name)) for name in own_xattrs(source, kind)}
            self.base = self.xattr_size(self.xattrs)

    def __repr__(self):
        name = self.places[0][1] if self.places else "-"
        image = "" if self.born else " of the image" if self.source is not None else " copied"
        return f"{self.kind}{self.number}({name}{image}, {self.size})"

    def nameless_born(self):
        """It was made without a name, and has none yet."""
        return self.kind == "file" and self.born and not self.places and getattr(self, "never_named", True)

    @property
    def size(self):
        return os.stat(self.source).st_size if self.source is not None else len(self.data)

    def content(self):
        if self.source is None:
            return bytes(self.data)
        with open(self.source, "rb") as file:
            return file.read()

    # Changes of data, once they are allowed.

    def put(self, at, data):
        if at > len(self.data):
            self.data.extend(bytes(at - len(self.data)))
        self.data[at : at + len(data)] = data
        self.blocks |= blocks(at, at + len(data))

    def zero(self, at, length):
        end = min(at + length, len(self.data))
        if at < end:
            self.data[at:end] = bytes(end - at)

    def resize(self, size):
        if size <= len(self.data):
            del self.data[size:]
            self.blocks = {b for b in self.blocks if b * BLOCK < size}
        else:
            self.data.extend(bytes(size - len(self.data)))

    # What it costs.

    @staticmethod
    def xattr_size(xattrs):
        return sum(len(name) + length for name, length in xattrs.items())

    def xattr_cost(self, xattrs):
        beyond = self.xattr_size(xattrs) - max(4096, self.base)
        return BLOCK * max(0, -(-beyond // BLOCK))

    def xattr_growth(self, name, value):
        new = self.xattr_cost({**self.xattrs, name: len(value)})
        return max(0, new - self.xattr_cost(self.xattrs))

    def cost(self):
        own = BLOCK * (len(self.blocks) + (self.kind == "folder" and self.born)) + self.xattr_cost(self.xattrs)
        return own, int(self.born or bool(self.blocks))

    def growth(self, fresh):
        """What more blocks would cost."""
        return len(fresh) * BLOCK, int(bool(fresh) and not self.born and not self.blocks)


def own_xattrs(path, kind):
    return os.listxattr(path, follow_symlinks=False) if kind in ("file", "folder") else ()


class World:
    """All objects that anybody can reach or has open."""

    def __init__(self, source, limits):
        self.limits = limits
        self.all = []
        self.root = Object("folder", source)
        met = {}
        self.read(self.root, source, met)

    def read(self, folder, path, met):
        for name in sorted(os.listdir(path)):
            at = os.path.join(path, name)
            s = os.lstat(at)
            mode = s.st_mode
            kind = "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "symlink" if stat.S_ISLNK(mode) else "fifo"
            what = met.get(s.st_ino) or Object(kind, at)
            met[s.st_ino] = what
            self.place(what, folder, name)
            if kind == "folder":
                self.read(what, at, met)

    def objects(self):
        return list(self.all)

    def add(self, what):
        if what not in self.all:
            self.all.append(what)

    def place(self, what, folder, name):
        self.add(what)
        what.never_named = False
        what.places.append((folder, name))
        folder.entries[name] = what

    def take(self, what, folder, name):
        what.places.remove((folder, name))
        if folder.entries.get(name) is what:
            del folder.entries[name]

    def forget(self):
        self.all = [each for each in self.all if each.places or each.handles > 0]

    def holds(self, above, what):
        """Whether a folder is another, or lies above it."""
        while what is not above and what is not self.root:
            what = what.places[0][0]
        return what is above

    def use(self, named=None):
        """Bytes and inodes: of all, or of what has no name."""
        total = [0, 0]
        for each in self.all if named is False else [self.root, *self.all]:
            if named is False and each.places:
                continue
            if not each.places and each.handles == 0 and each is not self.root:
                continue
            for i, cost in enumerate(each.cost()):
                total[i] += cost
        return tuple(total)

    # What the rule lets happen.

    def fits(self, more_bytes, more_inodes):
        used, inodes = self.use()
        if more_bytes > 0 and used + more_bytes > self.limits.bytes:
            return False
        return more_inodes == 0 or inodes + more_inodes <= self.limits.inodes

    def copy_data(self, what, limit=None):
        """All the data of the image up to a limit, or nothing and False."""
        data = what.content()
        size = len(data) if limit is None else min(limit, len(data))
        wanted = set()
        with open(what.source, "rb") as file:
            at = 0
            while at < size:
                try:
                    start = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:
                    break
                at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                if start < size:
                    wanted |= blocks(start, min(at, size))
        if not self.fits(*what.growth(wanted)):
            return False
        what.source = None
        what.blocks = wanted
        what.data = bytearray(data[:size])
        return True

    def writable(self, what, at, length):
        """Bytes of a write that fit."""
        fresh = sorted(blocks(at, at + length) - what.blocks)
        if not fresh:
            return length
        used, inodes = self.use()
        room = max(0, self.limits.bytes - used) // BLOCK
        if what.growth(fresh)[1] and inodes >= self.limits.inodes:
            room = 0
        if len(fresh) <= room:
            return length
        return max(0, fresh[room] * BLOCK - at)
