#!/usr/bin/env python3
"""Random operations on a mount with a small quota, beside a model of the rule (objects.py).

  model.py CLI SOURCE IMAGE SCRATCH SEED OPERATIONS [--sockets FOLDER] [--native] [mount options...]

SOURCE is the directory that IMAGE was built from, which the model reads. After every operation: what it gave, errno and
short counts included, is what the rule says; what the mount tells of use is what the model has, and what a count of the
upper directory finds with what has no name any more; and that is within the limit, or has not grown. A failure is the
seed and the last operations on stderr, exit 1.
"""
import errno
import math
import mmap
import os
import random
import stat
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../conformance"))
from kit import EXCHANGE, KEEP_SIZE, NOREPLACE, PUNCH_HOLE, WHITEOUT, ZERO_RANGE  # noqa: E402
from kit import fallocate, link_descriptor, renameat2  # noqa: E402
from objects import BLOCK, Limits, Object, World, blocks  # noqa: E402
from tally import Control, Tally, charged_blocks, origin, told  # noqa: E402

# Bytes that a filesystem of blocks may take for the map of a file and for xattrs, beyond what is charged.
MAPS = 5 * BLOCK
# What msync(2) may tell of pages that were refused.
LATE = (errno.EDQUOT, errno.EIO, errno.ENOSPC)


class Failure(Exception):
    pass


class Handle:
    def __init__(self, fd, what, flags):
        self.fd, self.what, self.flags = fd, what, flags
        # An error of pages that another descriptor was told of is still to be told to this one.
        self.late = False
        what.handles += 1

    def may(self, *access):
        return not self.flags & os.O_PATH and self.flags & os.O_ACCMODE in access and self.what.kind == "file"


class Run:
    def __init__(self, cli, source, image, scratch, seed, options, sockets, native):
        self.cli, self.image, self.options = cli, image, options
        self.mount_point, self.upper = os.path.join(scratch, "mnt"), os.path.join(scratch, "upper")
        os.makedirs(self.mount_point, exist_ok=True)
        self.random = random.Random(seed)
        self.sockets, self.native = sockets, native
        self.limits = self.first = Limits(
            self.random.choice((0, 13, 777)) + BLOCK * self.random.choice((12, 40, 40, 120, 1500)),
            self.random.choice((8, 20, 60)),
        )
        self.world = World(source, self.limits)
        self.handles, self.log, self.control = [], [], None
        self.names = 0
        self.refused = (errno.ENOSPC if "ENOSPC" in options else errno.EDQUOT,)
        self.is_root = os.getuid() == 0
        self.mounted = False

    # ------------------------------------------------------------------------------------------ the mount

    def start(self):
        command = [self.cli, "mount", self.image, self.mount_point, "--upper", self.upper, *self.options]
        pid = f"{self.upper}.pid"
        command += ["--pid-file", pid, "--quota", str(self.first.bytes), "--quota-inodes", str(self.first.inodes)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"{command}: {done.stderr}")
        self.mounted = True
        self.limits = self.world.limits = self.first
        if self.sockets is not None:
            with open(pid) as file:
                self.control = Control(self.sockets, self.mount_point, int(file.read()))
        device = os.statvfs(self.upper)
        kind = self.file_system()
        self.large_xattrs = kind in ("tmpfs", "xfs", "btrfs")
        # What xfs reserves of its own accord, and what btrfs keeps of extents that are written over, is not the file's.
        self.most_beyond = {"tmpfs": 0, "ext2/ext3": MAPS}.get(kind, math.inf)
        self.zeroes = kind != "tmpfs"
        # Copying shares extents, and so holes stay holes.
        self.shares = kind in ("xfs", "btrfs")
        assert device.f_bavail * device.f_frsize > 64 << 20, "the upper's filesystem is nearly full"

    def file_system(self):
        done = subprocess.run(["stat", "-f", "-c", "%T", self.upper], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def stop(self):
        if self.control is not None:
            self.control.close()
            self.control = None
        for _ in range(100):
            done = subprocess.run([self.cli, "umount", self.mount_point], capture_output=True, text=True)
            if "target is busy" not in done.stderr:
                break
            time.sleep(0.05)
        if done.returncode != 0:
            raise Failure(f"umount: {done.stderr}")
        self.mounted = False

    def again(self):
        """Another mount of the same upper, which now and then has to count."""
        for handle in list(self.handles):
            self.close(handle)
        self.check()
        self.stop()
        if self.random.random() < 0.5:
            os.unlink(f"{self.upper}.work/usage")
            self.log.append("without usage")
        self.start()
        for what in self.world.objects():
            self.compare(what)

    def path(self, what, name=None):
        """In the mount, of an object or of a name in a directory."""
        parts = [] if name is None else [name]
        while what is not self.world.root:
            parent, own = what.places[0]
            parts.append(own)
            what = parent
        return os.path.join(self.mount_point, *reversed(parts))

    def backing(self, what):
        return os.path.join(self.upper, os.path.relpath(self.path(what), self.mount_point))

    # ------------------------------------------------------------------------------------------ checks

    def check(self):
        """What is told, what the model has and what is there are the same, and allowed."""
        wanted = self.world.use()
        # The kernel tells of what it has forgotten a moment after.
        for _ in range(2000):
            found = told(self.mount_point)
            if found == wanted:
                break
            time.sleep(0.001)
        tally = Tally(self.upper)
        nameless = self.world.use(named=False)
        there = tally.bytes + nameless[0], tally.inodes + nameless[1]
        if found != wanted or there != wanted:
            raise Failure(f"use: told {found}, counted {there} with {nameless} unlinked, should be {wanted}")
        for path, more in tally.slack:
            if more > self.most_beyond:
                raise Failure(f"{path} takes {more} bytes that are not charged")

    def within(self, before):
        after = self.world.use()
        for now, was, limit in zip(after, before, (self.limits.bytes, self.limits.inodes)):
            if now > limit and now > was:
                raise Failure(f"use grew to {now} past the limit {limit}")

    def compare(self, what):
        if what.kind != "file" or not what.places:
            return
        with open(self.path(what), "rb") as file:
            found = file.read()
        wanted = what.content()
        if found != wanted:
            at = next((i for i, (a, b) in enumerate(zip(found, wanted)) if a != b), min(len(found), len(wanted)))
            raise Failure(f"{self.path(what)}: differs at {at}, has {len(found)} bytes in place of {len(wanted)}")

    def expect(self, fits, action, codes=None):
        """The call succeeds when it fits, and else fails with one of the codes, or as the mount was told to refuse."""
        codes = codes or self.refused
        try:
            result = action()
        except OSError as cause:
            if fits or cause.errno not in codes:
                raise Failure(f"failed with {errno.errorcode.get(cause.errno)}, should {'work' if fits else f'give {codes}'}")
            return None
        if not fits:
            raise Failure(f"gave {result!r:.50} in place of an error")
        return result

    # ------------------------------------------------------------------------------------------ choosing

    def new_name(self):
        self.names += 1
        return f"n{self.names}"

    def any(self, *kinds, root=False):
        found = [each for each in self.world.objects() if each.places and each.kind in kinds]
        if root:
            found.append(self.world.root)
        return self.random.choice(found) if found else None

    def folder(self):
        return self.any("folder", root=True)

    def handle(self, *access):
        found = [each for each in self.handles if each.may(*access)]
        return self.random.choice(found) if found else None

    def offset(self):
        most = self.random.choice((1, 3, 12, 40)) * BLOCK
        at = self.random.randrange(most)
        return at - at % BLOCK if self.random.random() < 0.4 else at

    def length(self):
        return self.random.choice((1, 100, BLOCK, BLOCK, 5000, 3 * BLOCK, self.random.randrange(1, 20 * BLOCK)))

    def data(self, length):
        return bytes([self.random.randrange(1, 256)]) * length

    # ------------------------------------------------------------------------------------------ file data

    def copied(self, what, limit=None):
        """Whether the data of the image that are needed can be copied, which is then done in the model."""
        if what.source is None:
            return True
        if not self.world.copy_data(what, limit):
            return False
        return True

    def settle_origin(self, what):
        """A copy that lost its origin with its data (it stands alone, without other names) counts as born here."""
        if what.kind == "file" and not what.born and what.source is None and what.places:
            backing = self.backing(what)
            if os.path.exists(backing) and origin(backing) is None:
                what.born = True

    def write(self):
        handle = self.handle(os.O_WRONLY, os.O_RDWR)
        if handle is None:
            return
        what, data = handle.what, self.data(self.length())
        appends = handle.flags & os.O_APPEND
        copied = self.copied(what)
        at = what.size if appends else self.offset()
        most = self.world.writable(what, at, len(data)) if copied else 0
        self.log.append(f"write {what} at {at} {len(data)}: {most} fit")
        call = (lambda: os.write(handle.fd, data)) if appends else (lambda: os.pwrite(handle.fd, data, at))
        done = self.expect(most > 0, call)
        if most > 0 and done != most:
            raise Failure(f"wrote {done} in place of {most}")
        if most > 0:
            what.put(at, data[:most])

    def cut(self):
        handle = self.handle(os.O_WRONLY, os.O_RDWR)
        what = self.any("file") if handle is None or self.random.random() < 0.4 else handle.what
        if what is None:
            return
        size = self.random.choice((0, self.offset(), self.offset(), what.size, what.size // 2, what.size * 2))
        by_path = bool(what.places) and (handle is None or handle.what is not what or self.random.random() < 0.5)
        fits = self.copied(what, size)
        self.log.append(f"truncate {what} to {size}: {fits}")
        self.expect(fits, lambda: os.truncate(self.path(what) if by_path else handle.fd, size))
        if fits:
            what.resize(size)

    def allocate(self):
        handle = self.handle(os.O_WRONLY, os.O_RDWR)
        if handle is None:
            return
        what, at, length = handle.what, self.offset(), self.length()
        mode = self.random.choice((0, KEEP_SIZE, KEEP_SIZE | PUNCH_HOLE, KEEP_SIZE | PUNCH_HOLE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE))
        fits = self.copied(what)
        if mode & PUNCH_HOLE:
            self.log.append(f"punch {what} at {at} {length}: {fits}")
            self.expect(fits, lambda: fallocate(handle.fd, mode, at, length))
            if fits:
                self.punched(what, at, length)
            return
        fresh = blocks(at, at + length) - what.blocks
        fits = fits and self.world.fits(*what.growth(fresh))
        self.log.append(f"fallocate {what} mode {mode} at {at} {length}: {fits}")
        if mode & ZERO_RANGE and not self.zeroes:
            self.expect(False, lambda: fallocate(handle.fd, mode, at, length), (errno.EOPNOTSUPP,) if fits else None)
            return
        self.expect(fits, lambda: fallocate(handle.fd, mode, at, length))
        if fits:
            what.blocks |= fresh
            if mode & ZERO_RANGE:
                what.zero(at, length)
            if not mode & KEEP_SIZE and at + length > what.size:
                what.resize(at + length)

    def punched(self, what, at, length):
        """Whole blocks before the end are given back; the last one of the file where the filesystem does."""
        within = set(range(-(-at // BLOCK), (at + length) // BLOCK))
        what.zero(at, length)
        gone = {b for b in within if b * BLOCK < what.size}
        end = what.size // BLOCK
        kept = what.blocks - gone
        last = {end} if what.size % BLOCK and at <= end * BLOCK and at + length >= what.size else set()
        if what.places:
            found = charged_blocks(self.backing(what))
            if kept - found - last or found - kept:
                raise Failure(f"punching left {sorted(found)}, should {sorted(kept)}")
            what.blocks = found
        elif last:
            # Nobody can look; what is told tells which of the two it is.
            what.blocks = kept
            for _ in range(300):
                if told(self.mount_point) == self.world.use():
                    return
                time.sleep(0.001)
            what.blocks = kept - last
        else:
            what.blocks = kept

    def copy_range(self):
        source, target = self.handle(os.O_RDONLY, os.O_RDWR), self.handle(os.O_WRONLY, os.O_RDWR)
        if source is None or target is None or source.what is target.what or target.flags & os.O_APPEND:
            return
        from_at, at, length = self.offset(), self.offset(), self.length()
        length = min(length, max(0, source.what.size - from_at))
        if length == 0 or self.shares and not target.what.places:
            return
        what = target.what
        data = source.what.content()[from_at : from_at + length]
        most = self.world.writable(what, at, length) if self.copied(what) else 0
        self.log.append(f"copy_file_range {source.what} at {from_at} to {what} at {at} {length}: {most} fit")
        done = self.expect(most > 0, lambda: os.copy_file_range(source.fd, target.fd, length, from_at, at))
        if most > 0 and done != most:
            raise Failure(f"copied {done} in place of {most}")
        if most > 0:
            before = set(what.blocks)
            what.put(at, data[:most])
            if self.shares:
                found = charged_blocks(self.backing(what))
                if found - what.blocks:
                    raise Failure(f"copying left {sorted(found)}, should {sorted(what.blocks)} at most, from {sorted(before)}")
                what.blocks = found

    def store(self):
        """Through a mapping: all of a run of pages or nothing."""
        handle = self.handle(os.O_RDWR)
        if handle is None or handle.what.size == 0:
            return
        what = handle.what
        first = self.random.randrange(-(-what.size // BLOCK))
        last = min(first + self.random.choice((1, 1, 2, 5)), -(-what.size // BLOCK))
        pages = set(range(first, last))
        fits = self.copied(what) and self.world.fits(*what.growth(pages - what.blocks))
        self.log.append(f"map {what} pages {first}..{last}: {fits}")
        byte = self.data(1)
        memory = mmap.mmap(handle.fd, what.size)
        try:
            for page in pages:
                memory[page * BLOCK : page * BLOCK + 1] = byte
            self.expect(fits and not handle.late, memory.flush, LATE)
        finally:
            memory.close()
        if not fits:
            for each in self.handles:
                each.late = each.late or each.what is what
        handle.late = False
        if fits:
            for page in pages:
                what.put(page * BLOCK, byte)
        else:
            # What did not fit is in the page cache alone.
            os.posix_fadvise(handle.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    # ------------------------------------------------------------------------------------------ objects

    def create(self):
        kind = self.random.choice(("file", "file", "file", "folder", "symlink", "fifo", "node", "device"))
        folder, name = self.folder(), self.new_name()
        path = self.path(folder, name)
        if kind == "device" and not self.is_root:
            kind = "fifo"
        fits = self.world.fits(BLOCK if kind == "folder" else 0, 1)
        self.log.append(f"create {kind} {path}: {fits}")
        fd = None
        if kind == "file":
            fd = self.expect(fits, lambda: os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644))
        elif kind == "folder":
            self.expect(fits, lambda: os.mkdir(path))
        elif kind == "symlink":
            self.expect(fits, lambda: os.symlink("x" * 200, path))
        elif kind == "fifo":
            self.expect(fits, lambda: os.mkfifo(path))
        elif kind == "node":
            self.expect(fits, lambda: os.mknod(path, 0o644 | stat.S_IFREG))
        else:
            self.expect(fits, lambda: os.mknod(path, 0o644 | stat.S_IFCHR, self.random.choice((0, os.makedev(1, 3)))))
        if not fits:
            if os.path.lexists(path):
                raise Failure(f"{path} was made all the same")
            return
        what = Object("file" if kind == "node" else kind)
        self.world.place(what, folder, name)
        if fd is not None:
            self.keep(Handle(fd, what, os.O_RDWR))

    def keep(self, handle):
        self.handles.append(handle)
        if len(self.handles) > 6:
            self.close(self.random.choice(self.handles))

    def close(self, handle):
        self.handles.remove(handle)
        handle.what.handles -= 1
        try:
            os.close(handle.fd)
        except OSError as cause:
            if not handle.late or cause.errno not in LATE:
                raise Failure(f"close: {cause}") from None

    def close_one(self):
        if self.handles:
            handle = self.random.choice(self.handles)
            self.log.append(f"close {handle.what}")
            self.close(handle)

    def open(self):
        what = self.any("file") if self.native else self.any("file", "file", "fifo", "symlink")
        if what is None:
            return
        flags = self.random.choice((os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_RDONLY if self.native else os.O_PATH))
        if what.kind != "file":
            flags = os.O_PATH
        elif flags in (os.O_WRONLY, os.O_RDWR) and self.random.random() < 0.15:
            flags |= os.O_TRUNC
        self.log.append(f"open {what} {flags:o}")
        fits = not flags & os.O_TRUNC or self.copied(what, 0)
        fd = self.expect(fits, lambda: os.open(self.path(what), flags | os.O_NOFOLLOW))
        if flags & os.O_TRUNC:
            what.resize(0)
            flags &= ~os.O_TRUNC
        self.keep(Handle(fd, what, flags))

    def nameless(self):
        folder = self.folder()
        fits = self.world.fits(0, 1)
        self.log.append(f"O_TMPFILE in {folder}: {fits}")
        fd = self.expect(fits, lambda: os.open(self.path(folder), os.O_TMPFILE | os.O_RDWR, 0o600))
        if fits:
            what = Object("file")
            self.world.add(what)
            self.keep(Handle(fd, what, os.O_RDWR))

    def name_it(self):
        """A name for an open file that never had one."""
        found = [each for each in self.handles if each.what.nameless_born() and not each.flags & os.O_PATH]
        if not found:
            return
        handle, folder, name = self.random.choice(found), self.folder(), self.new_name()
        self.log.append(f"linkat {handle.what} as {name}")
        self.expect(True, lambda: link_descriptor(handle.fd, self.path(folder, name)))
        self.world.place(handle.what, folder, name)

    def link(self):
        what = self.any("file", "symlink", "fifo", "device")
        if what is None:
            return
        folder, name = self.folder(), self.new_name()
        self.log.append(f"link {what} as {name}")
        self.expect(True, lambda: os.link(self.path(what), self.path(folder, name), follow_symlinks=False))
        self.world.place(what, folder, name)

    def any_place(self, *kinds):
        what = self.any(*kinds)
        return (what, *self.random.choice(what.places)) if what is not None else (None, None, None)

    def unlink(self):
        what, folder, name = self.any_place("file", "symlink", "fifo", "device")
        if what is None:
            return
        self.log.append(f"unlink {what} {name}")
        self.expect(True, lambda: os.unlink(self.path(folder, name)))
        self.world.take(what, folder, name)

    def rmdir(self):
        found = [each for each in self.world.objects() if each.kind == "folder" and each.places and not each.entries]
        if not found:
            return
        what = self.random.choice(found)
        self.log.append(f"rmdir {what}")
        self.expect(True, lambda: os.rmdir(self.path(what)))
        self.world.take(what, *what.places[0])

    def rename(self):
        what, folder, name = self.any_place("file", "symlink", "fifo", "device", "folder", "folder")
        if what is None:
            return
        to, flags = self.folder(), self.random.choice((0, 0, 0, NOREPLACE, EXCHANGE, WHITEOUT))
        if what.kind == "folder" and self.world.holds(what, to):
            return
        if flags == WHITEOUT and not self.is_root or self.native:
            flags = 0
        new_name, over = self.new_name(), None
        if flags != NOREPLACE and (flags == EXCHANGE or self.random.random() < 0.5):
            kinds = ("folder", "file") if flags == EXCHANGE else ("folder",) if what.kind == "folder" else ("file", "symlink")
            over, to, new_name = self.any_place(*kinds)
            if over is None or over is what or self.world.holds(over, folder) or what.kind == "folder" and self.world.holds(what, to):
                return
            if flags != EXCHANGE and over.entries:
                return
        fits = flags != WHITEOUT or self.world.fits(0, 1)
        self.log.append(f"rename {what} {name} over {over} {new_name}, flags {flags}: {fits}")
        old, new = self.path(folder, name), self.path(to, new_name)
        self.expect(fits, lambda: renameat2(old, new, flags) if flags else os.rename(old, new))
        if not fits:
            return
        if over is not None:
            self.world.take(over, to, new_name)
        self.world.take(what, folder, name)
        self.world.place(what, to, new_name)
        if flags == EXCHANGE:
            self.world.place(over, folder, name)
        elif flags == WHITEOUT:
            self.world.place(Object("device"), folder, name)

    def chmod(self):
        what = self.any("file", "folder", "fifo", "device")
        if what is not None:
            self.log.append(f"chmod {what}")
            self.expect(True, lambda: os.chmod(self.path(what), self.random.choice((0o600, 0o644) if what.kind != "folder" else (0o700, 0o755))))

    def xattr(self):
        what = self.any("file", "folder", root=True)
        name = f"user.{self.random.randrange(3)}"
        sizes = (10, 900, 3000, 5000, 9000) if self.large_xattrs else (10, 300)
        if self.random.random() < 0.3:
            self.log.append(f"remove xattr of {what}")
            if name in what.xattrs:
                self.expect(True, lambda: os.removexattr(self.path(what), name))
                del what.xattrs[name]
            return
        value = b"v" * self.random.choice(sizes)
        more = what.xattr_growth(name, value)
        fits = self.world.fits(more, 0)
        self.log.append(f"xattr {name} of {what} {len(value)}: {fits}")
        self.expect(fits, lambda: os.setxattr(self.path(what), name, value))
        if fits:
            what.xattrs[name] = len(value)

    def limit(self):
        if self.control is None:
            return
        used, inodes = self.world.use()
        new = Limits(
            self.random.choice((self.first.bytes, used // 2 + 1, used + 1, used + BLOCK, used + 3 * BLOCK)),
            self.random.choice((self.first.inodes, inodes // 2 + 1, inodes + 1, inodes + 3)),
        )
        self.log.append(f"limits {new}")
        self.control.ask(command="set-quota", bytes=new.bytes, inodes=new.inodes)
        self.limits = self.world.limits = new

    # ------------------------------------------------------------------------------------------ the run

    def run(self, operations):
        self.start()
        kinds = [self.write] * 14 + [self.cut] * 6 + [self.create] * 8 + [self.open] * 7 + [self.unlink] * 6
        kinds += [self.rename] * 8 + [self.link] * 3 + [self.chmod] * 3 + [self.xattr] * 3 + [self.limit] * 2
        kinds += [self.close_one] * 4
        if not self.native:
            kinds += [self.rmdir] * 2 + [self.allocate] * 10 + [self.copy_range] * 4 + [self.store] * 5 + [self.nameless] * 2 + [self.name_it] * 2
        self.check()
        for number in range(operations):
            before = self.world.use()
            if number % 200 == 199:
                self.log.append("mount again")
                self.again()
            else:
                self.random.choice(kinds)()
            for what in self.world.objects():
                self.settle_origin(what)
            self.world.forget()
            self.check()
            self.within(before)
        for what in self.world.objects():
            self.compare(what)
        for handle in list(self.handles):
            self.close(handle)
        self.world.forget()
        self.check()
        self.stop()


def main():
    arguments = sys.argv[1:]
    sockets = None
    native = "--native" in arguments
    if native:
        arguments.remove("--native")
    if "--sockets" in arguments:
        at = arguments.index("--sockets")
        sockets = arguments[at + 1]
        del arguments[at : at + 2]
    cli, source, image, scratch, seed, operations, *options = arguments
    run = Run(cli, source, image, scratch, int(seed), options, sockets, native)
    try:
        run.run(int(operations))
    except Failure as cause:
        last = "\n  ".join(f"{i}: {line}" for i, line in list(enumerate(run.log))[-int(os.environ.get("IMGFS_LOG", "25")) :])
        last += "".join(f"\n  open: {h.what}" for h in run.handles)
        print(f"seed {seed}, limits {run.limits}, after operation {len(run.log)}: {cause}\n  {last}", file=sys.stderr)
        return 1
    finally:
        for handle in run.handles:
            os.close(handle.fd)
        if run.mounted:
            subprocess.run([cli, "umount", run.mount_point], capture_output=True)
    print(f"{len(run.log)} operations")
    return 0


if __name__ == "__main__":
    sys.exit(main())
