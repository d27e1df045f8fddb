#!/usr/bin/env python3
"""Random operations on the data of one file that starts in the image, beside a model of it in memory, in the manner of fsx.

  fsx.py CLI IMAGE FOLDER FILE SEED OPS [MOUNT OPTION...]

FOLDER is an empty folder to work in, FILE the name of a file in the root of IMAGE. The same arguments do the same
operations. Exit 0: all of them agreed; 1: what differed, with the operations that led there.
"""
import ctypes
import errno
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 0x10
LARGEST = 8 << 20
PAGE = 4096


class Differs(Exception):
    pass


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) < 0:
        raise OSError(ctypes.get_errno(), "fallocate")


class Mount:
    def __init__(self, cli, image, folder, options):
        self.cli, self.image, self.folder, self.options = cli, image, folder, options
        self.path = os.path.join(folder, "mnt")
        os.mkdir(self.path)
        self.mount()

    def mount(self):
        pid = os.path.join(self.folder, "pid")
        upper = os.path.join(self.folder, "upper")
        command = [self.cli, "mount", self.image, self.path, "--upper", upper, "--pid-file", pid, *self.options]
        subprocess.run(command, check=True)
        with open(pid) as file:
            self.pid = int(file.read())

    def end(self, killed):
        if killed:
            os.kill(self.pid, signal.SIGKILL)
            while self.running():
                time.sleep(0.005)
        subprocess.run([self.cli, "umount", self.path], check=True)

    def running(self):
        try:
            with open(f"/proc/{self.pid}/status") as status:
                return "State:\tZ" not in status.read()
        except FileNotFoundError:
            return False


class Run:
    def __init__(self, mount, name, seed):
        self.mount, self.random, self.log = mount, random.Random(seed), []
        self.path = os.path.join(mount.path, name)
        with open(self.path, "rb") as file:
            self.original = file.read()
        self.model = bytearray(self.original)
        self.fds, self.map = {}, None
        self.mode = 0o644
        self.open_all()

    # -------------------------------------------------------------------------------------------- descriptors

    def open_all(self):
        """One descriptor of each kind, opened in any order: which one a copy-up comes through is chance."""
        kinds = [("read", os.O_RDONLY), ("both", os.O_RDWR), ("append", os.O_WRONLY | os.O_APPEND), ("direct", os.O_RDWR | os.O_DIRECT)]
        self.random.shuffle(kinds)
        for kind, flags in kinds[: self.random.randint(1, 4)]:
            self.fds[kind] = os.open(self.path, flags)

    def fd(self, *kinds):
        """A descriptor of one of these kinds, opened now when there is none."""
        there = [kind for kind in kinds if kind in self.fds]
        if there:
            return self.fds[self.random.choice(there)]
        kind = kinds[0]
        flags = {"read": os.O_RDONLY, "both": os.O_RDWR, "append": os.O_WRONLY | os.O_APPEND, "direct": os.O_RDWR | os.O_DIRECT}
        self.fds[kind] = os.open(self.path, flags[kind])
        return self.fds[kind]

    def close_all(self):
        if self.map is not None:
            self.map.close()
            self.map = None
        for fd in self.fds.values():
            os.close(fd)
        self.fds = {}

    # -------------------------------------------------------------------------------------------- chance

    def place(self):
        """An offset and a length within what the file may come to be: often at an edge, mostly short."""
        r, size = self.random, len(self.model)
        top = r.choice([size, size, min(LARGEST, size + 70_000), min(LARGEST, size * 2 + 10)])
        at = r.randrange(top + 1)
        if r.random() < 0.3:
            at = min(top, at // PAGE * PAGE)
        length = r.choice([1, r.randrange(1, 100), r.randrange(1, 20_000), r.randrange(1, 300_000)])
        if r.random() < 0.3:
            length = max(PAGE, length // PAGE * PAGE)
        return at, min(length, LARGEST - at)

    def data(self, length):
        if self.random.random() < 0.1:
            return bytes(length)
        return self.random.randbytes(min(length, 5000)) * (length // 5000 + 1) if length > 5000 else self.random.randbytes(length)

    def grow(self, size):
        if size > len(self.model):
            self.model.extend(bytes(size - len(self.model)))

    def put(self, at, data):
        self.grow(at + len(data))
        self.model[at : at + len(data)] = data

    # -------------------------------------------------------------------------------------------- operations

    def read(self):
        at, length = self.place()
        found = os.pread(self.fd("read", "both"), length, at)
        self.agrees(found, at, length)
        return at, length

    def write(self):
        at, length = self.place()
        data = self.data(length)[:length]
        done, fd = 0, self.fd("both")
        while done < len(data):
            done += os.pwrite(fd, data[done:], at + done)
        self.put(at, data)
        return at, length

    def append(self):
        _, length = self.place()
        length = min(length, LARGEST - len(self.model))
        data = self.data(length)[:length]
        done, fd = 0, self.fd("append")
        while done < len(data):
            done += os.write(fd, data[done:])
        self.model.extend(data)
        return length

    def direct_read(self):
        at, length = self.aligned()
        page = mmap.mmap(-1, length)
        got = os.preadv(self.fd("direct"), [page], at)
        self.agrees(page[:got], at, length)
        page.close()
        return at, length

    def direct_write(self):
        at, length = self.aligned()
        page = mmap.mmap(-1, length)
        page.write(self.data(length)[:length])
        done = os.pwritev(self.fd("direct"), [page], at)
        self.put(at, page[:done])
        page.close()
        return at, done

    def aligned(self):
        at, length = self.place()
        at = at // PAGE * PAGE
        return at, max(PAGE, min(length, LARGEST - at) // PAGE * PAGE)

    def map_read(self):
        if not self.model:
            return None
        with mmap.mmap(self.fd("read", "both"), len(self.model), prot=mmap.PROT_READ) as m:
            at, length = self.place()
            at = at % len(self.model)
            self.agrees(m[at : at + length], at, length)
        return at, length

    def map_write(self):
        if not self.model:
            return None
        at, length = self.place()
        at = at % len(self.model)
        data = self.data(length)[: min(length, len(self.model) - at)]
        with mmap.mmap(self.fd("both"), len(self.model)) as m:
            m[at : at + len(data)] = data
            if self.random.random() < 0.5:
                m.flush()
        self.put(at, data)
        return at, len(data)

    def old_map(self):
        """A mapping that lives through everything else, and sees it."""
        if self.map is None:
            if self.model:
                self.map = mmap.mmap(self.fd("read", "both"), len(self.model), prot=mmap.PROT_READ)
            return "made"
        end = min(len(self.map), len(self.model))
        if end:
            at = self.random.randrange(end)
            self.agrees(self.map[at : min(end, at + 50_000)], at, min(end, at + 50_000) - at)
        return "read"

    def truncate(self):
        r = self.random
        size = r.choice([0, len(self.model), r.randrange(len(self.model) + 1), min(LARGEST, self.place()[0])])
        if r.random() < 0.15:
            size = r.choice([0, 1, PAGE])
        elif r.random() < 0.5:
            size = max(size, len(self.model) // 2)
        if r.random() < 0.5:
            os.truncate(self.path, size)
        else:
            os.ftruncate(self.fd("both"), size)
        del self.model[size:]
        self.grow(size)
        return size

    def open_truncating(self):
        if self.random.random() < 0.8:
            return None
        os.close(os.open(self.path, os.O_WRONLY | os.O_TRUNC))
        del self.model[:]
        return 0

    def punch(self):
        at, length = self.place()
        fallocate(self.fd("both"), PUNCH_HOLE | KEEP_SIZE, at, length)
        self.zero(at, length)
        return at, length

    def zero_range(self):
        at, length = self.place()
        keep = self.random.choice([0, KEEP_SIZE])
        fallocate(self.fd("both"), ZERO_RANGE | keep, at, length)
        if not keep:
            self.grow(at + length)
        self.zero(at, length)
        return at, length, keep

    def zero(self, at, length):
        end = min(at + length, len(self.model))
        if at < end:
            self.model[at:end] = bytes(end - at)

    def allocate(self):
        at, length = self.place()
        keep = self.random.choice([0, KEEP_SIZE])
        fallocate(self.fd("both"), keep, at, length)
        if not keep:
            self.grow(at + length)
        return at, length, keep

    def copy_within(self):
        at, length = self.place()
        at = min(at, len(self.model))
        to = self.random.randrange(LARGEST)
        to = min(to, len(self.model) + 50_000)
        length = min(length, len(self.model) - at, LARGEST - to)
        if length <= 0 or abs(at - to) < length:
            return None
        return self.copied(self.fd("both"), at, to, length, bytes(self.model))

    def copy_from(self):
        """From the same file as it is in another place of the image, whole and untouched."""
        at = self.random.randrange(len(self.original) + 1)
        to = min(self.place()[0], len(self.model))
        length = min(self.random.randrange(1, 200_000), len(self.original) - at, LARGEST - to)
        if length <= 0:
            return None
        fd = os.open(self.path + ".pristine", os.O_RDONLY)
        try:
            return self.copied(fd, at, to, length, self.original)
        finally:
            os.close(fd)

    def copied(self, source, at, to, length, content):
        done = 0
        while done < length:
            got = os.copy_file_range(source, self.fd("both"), length - done, at + done, to + done)
            if got == 0:
                raise Differs(f"copy_file_range ended after {done} of {length}")
            done += got
        self.put(to, content[at : at + length])
        return at, to, length

    def seek(self):
        """What is a hole holds no data."""
        size = len(self.model)
        at, fd = self.random.randrange(size + 1), self.fd("read", "both")
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as cause:
            if cause.errno != errno.ENXIO:
                raise
            data = size
        if any(self.model[at:data]):
            raise Differs(f"SEEK_DATA from {at} is {data}, past data")
        if at < size:
            hole = os.lseek(fd, at, os.SEEK_HOLE)
            if not at <= hole <= size:
                raise Differs(f"SEEK_HOLE from {at} is {hole} of {size}")
        return at, data

    def reopen(self):
        self.close_all()
        self.open_all()

    def sync(self):
        self.random.choice([os.fsync, os.fdatasync])(self.fd("both", "append", "read"))

    def metadata(self):
        """A change that is none of the data."""
        what = self.random.choice(["chmod", "utime", "xattr", "link", "rename"])
        if what == "chmod":
            self.mode ^= 0o022
            os.chmod(self.path, self.mode)
        elif what == "utime":
            os.utime(self.path, ns=(1, 2))
        elif what == "xattr":
            os.setxattr(self.path, "user.fsx", b"%d" % len(self.log))
        elif what == "link":
            os.link(self.path, self.path + ".link")
            os.unlink(self.path + ".link")
        else:
            os.rename(self.path, self.path + ".moved")
            os.rename(self.path + ".moved", self.path)
        return what

    def remount(self):
        if self.random.random() < 0.9:
            return None
        killed = self.random.random() < 0.5
        self.close_all()
        self.mount.end(killed)
        self.mount.mount()
        self.whole()
        self.open_all()
        return "killed" if killed else "unmounted"

    # -------------------------------------------------------------------------------------------- comparing

    def agrees(self, found, at, length):
        wanted = bytes(self.model[at : at + length])
        if found == wanted:
            return
        if len(found) != len(wanted):
            raise Differs(f"{len(found)} bytes in place of {len(wanted)} at {at}")
        first = next(i for i in range(len(found)) if found[i] != wanted[i])
        count = sum(1 for i in range(len(found)) if found[i] != wanted[i])
        raise Differs(f"{count} bytes differ from {at + first} on: {found[first]} in place of {wanted[first]}")

    def size(self):
        found = os.fstat(self.fd("read", "both")).st_size
        if found != len(self.model):
            raise Differs(f"the size is {found} in place of {len(self.model)}")

    def whole(self):
        with open(self.path, "rb") as file:
            self.agrees(file.read(), 0, len(self.model) + 1)

    OPERATIONS = (
        [read] * 6 + [write] * 6 + [append] * 2 + [direct_read, direct_write] + [map_read] * 3 + [map_write] * 3
        + [old_map] * 3 + [truncate] * 3 + [open_truncating, punch, punch, zero_range, zero_range, allocate]
        + [copy_within, copy_from, seek, seek, reopen, sync, metadata, metadata, remount]
    )  # fmt: skip

    def go(self, count):
        for i in range(count):
            operation = self.random.choice(self.OPERATIONS)
            self.log.append([i, operation.__name__, "?"])
            self.log[-1][2] = operation(self)
            self.size()
            if i % 50 == 49:
                self.whole()
        self.whole()
        fd = self.fd("both")
        os.unlink(self.path)
        self.agrees(os.pread(fd, len(self.model) + 1, 0), 0, len(self.model) + 1)
        self.close_all()


def main(arguments):
    cli, image, folder, name, seed, count = arguments[:6]
    if os.geteuid() == 0 and (libc.unshare(0x20000) < 0 or libc.mount(None, b"/", None, (1 << 19) | 16384, None) < 0):
        raise SystemExit("no mount namespace of our own")
    mount = Mount(cli, image, folder, arguments[6:])
    run = None
    try:
        run = Run(mount, name, int(seed))
        run.go(int(count))
    except (Differs, OSError) as cause:
        print(f"seed {seed}, {name}, {type(cause).__name__}: {cause}")
        for entry in run.log[-25:] if run else ():
            print(*entry)
        return 1
    finally:
        if run is not None:
            run.close_all()
        mount.end(False)
        shutil.rmtree(folder, ignore_errors=True)
    print(f"seed {seed}: {count} operations on {name} agree")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
