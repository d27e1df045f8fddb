"""Random changes of one directory by one process, each checked against a model of it in memory.
  churn.py run DIR SEED SECONDS MODEL     changes DIR, which may hold files already, and writes MODEL at the end
  churn.py verify DIR MODEL               compares DIR with what a run has left
Exits with 1 and says what differs at the first difference."""
import hashlib
import json
import mmap
import os
import random
import sys
import time

FILES_MAX = 250
SIZE_MAX = 200_000


class Content:
    """What a file holds, shared by all its names."""

    def __init__(self, data, mode):
        self.data = data
        self.mode = mode
        self.names = 0


def fail(text):
    print(f"churn: {text}", file=sys.stderr)
    sys.exit(1)


def read(path):
    with open(path, "rb") as f:
        return f.read()


class Churn:
    def __init__(self, root, seed):
        self.root = root
        self.random = random.Random(seed)
        self.files = {}
        self.folders = [""]
        self.count = 0
        known = {}
        for folder, folders, files in os.walk(root):
            for name in folders:
                self.folders.append(os.path.relpath(os.path.join(folder, name), root))
            for name in files:
                path = os.path.join(folder, name)
                status = os.stat(path)
                content = known.setdefault(status.st_ino, Content(bytearray(read(path)), status.st_mode & 0o7777))
                self.put(os.path.relpath(path, root), content)

    def put(self, path, content):
        self.take(path)
        self.files[path] = content
        content.names += 1

    def take(self, path):
        content = self.files.pop(path, None)
        if content is not None:
            content.names -= 1
        return content

    def at(self, path):
        return os.path.join(self.root, path)

    def some(self):
        return self.random.choice(list(self.files))

    def bytes(self):
        return self.random.randbytes(self.random.choice((1, 100, 4096, 5000, 65536)))

    def new_path(self):
        self.count += 1
        return os.path.join(self.random.choice(self.folders), f"n{self.count}-{'x' * self.random.choice((0, 5, 200))}")

    # One method a kind of change; each changes disk and model alike.

    def create(self):
        if len(self.files) > FILES_MAX:
            return self.unlink()
        path, data = self.new_path(), self.bytes()
        with open(self.at(path), "xb") as f:
            f.write(data)
        os.chmod(self.at(path), 0o640)
        self.put(path, Content(bytearray(data), 0o640))

    def write(self):
        path, data = self.some(), self.bytes()
        content = self.files[path]
        at = self.random.randrange(min(len(content.data), SIZE_MAX) + 1000)
        fd = os.open(self.at(path), os.O_WRONLY)
        os.pwrite(fd, data, at)
        if self.random.random() < 0.1:
            os.fsync(fd)
        os.close(fd)
        self.change(content, at, data)

    def append(self):
        path, data = self.some(), self.bytes()
        content = self.files[path]
        if len(content.data) > SIZE_MAX:
            return self.truncate()
        with open(self.at(path), "ab") as f:
            f.write(data)
        content.data += data

    def change(self, content, at, data):
        if len(content.data) < at + len(data):
            content.data.extend(bytes(at + len(data) - len(content.data)))
        content.data[at:at + len(data)] = data

    def map(self):
        path = self.some()
        content = self.files[path]
        if len(content.data) == 0:
            return
        data = self.bytes()[:len(content.data)]
        at = self.random.randrange(len(content.data) - len(data) + 1)
        with open(self.at(path), "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
            m[at:at + len(data)] = data
        content.data[at:at + len(data)] = data

    def truncate(self):
        path = self.some()
        content = self.files[path]
        size = self.random.randrange(min(2 * len(content.data), SIZE_MAX) + 1)
        os.truncate(self.at(path), size)
        content.data = content.data[:size] + bytes(max(0, size - len(content.data)))

    def copy(self):
        source, target = self.files[self.some()], self.some()
        path = next(p for p, c in self.files.items() if c is source)
        if self.files[target] is source:
            return
        with open(self.at(path), "rb") as a, open(self.at(target), "wb") as b:
            left = len(source.data)
            while left > 0:
                done = os.copy_file_range(a.fileno(), b.fileno(), left)
                if done == 0:
                    fail(f"copy_file_range of {path}: ended {left} bytes early")
                left -= done
        self.files[target].data = bytearray(source.data)

    def rename(self):
        path, new = self.some(), self.new_path() if self.random.random() < 0.7 else self.some()
        if self.files.get(new) is self.files[path]:
            return
        os.rename(self.at(path), self.at(new))
        self.put(new, self.take(path))

    def link(self):
        path, new = self.some(), self.new_path()
        os.link(self.at(path), self.at(new))
        self.put(new, self.files[path])

    def unlink(self):
        if len(self.files) < 20:
            return
        path = self.some()
        content = self.files[path]
        with open(self.at(path), "rb") as f:
            os.unlink(self.at(path))
            self.take(path)
            if f.read() != bytes(content.data):
                fail(f"{path}: not the same after its name went")

    def chmod(self):
        path = self.some()
        mode = self.random.choice((0o600, 0o644, 0o755))
        os.chmod(self.at(path), mode)
        self.files[path].mode = mode

    def mkdir(self):
        if len(self.folders) > 20:
            return
        self.count += 1
        path = os.path.join(self.random.choice(self.folders), f"d{self.count}")
        os.mkdir(self.at(path))
        self.folders.append(path)

    def move_folder(self):
        if len(self.folders) < 3:
            return
        path = self.random.choice(self.folders[1:])
        self.count += 1
        new = f"m{self.count}"
        os.rename(self.at(path), self.at(new))
        inside = lambda p: p == path or p.startswith(path + "/")
        self.folders = [new + p[len(path):] if inside(p) else p for p in self.folders]
        self.files = {new + p[len(path):] if inside(p) else p: c for p, c in self.files.items()}

    def check_file(self):
        path = self.some()
        content = self.files[path]
        if read(self.at(path)) != bytes(content.data):
            fail(f"{path}: wrong content")
        status = os.stat(self.at(path))
        got = (status.st_size, status.st_mode & 0o7777, status.st_nlink)
        want = (len(content.data), content.mode, content.names)
        if got != want:
            fail(f"{path}: size, mode and links are {got}, not {want}")

    def check_names(self):
        folder = self.random.choice(self.folders)
        want = sorted(os.path.basename(p) for p in [*self.files, *self.folders[1:]] if os.path.dirname(p) == folder)
        got = sorted(os.listdir(self.at(folder)))
        if got != want:
            fail(f"{folder}: holds {sorted(set(got) ^ set(want))} too much or too little")

    def run(self, until):
        kinds = [
            self.create, self.create, self.write, self.write, self.append, self.map, self.truncate, self.copy,
            self.rename, self.link, self.unlink, self.chmod, self.mkdir, self.move_folder,
            self.check_file, self.check_file, self.check_names,
        ]
        done = 0
        while time.monotonic() < until:
            self.random.choice(kinds)()
            done += 1
        return done

    def model(self):
        return {
            path: [hashlib.sha256(c.data).hexdigest(), c.mode, c.names]
            for path, c in sorted(self.files.items())
        }


def found(root):
    out = {}
    for folder, _, files in os.walk(root):
        for name in files:
            path = os.path.join(folder, name)
            status = os.stat(path)
            out[os.path.relpath(path, root)] = [
                hashlib.sha256(read(path)).hexdigest(), status.st_mode & 0o7777, status.st_nlink,
            ]
    return out


def main():
    command, root = sys.argv[1:3]
    if command == "run":
        seed, seconds, model = int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
        churn = Churn(root, seed)
        done = churn.run(time.monotonic() + seconds)
        with open(model, "w") as f:
            json.dump(churn.model(), f)
        print(f"seed {seed}: {done} operations, {len(churn.files)} files")
        return
    with open(sys.argv[3]) as f:
        want = json.load(f)
    got = found(root)
    if got != want:
        odd = sorted(p for p in {*got, *want} if got.get(p) != want.get(p))
        fail(f"{len(odd)} files are not as they were left, such as {odd[0]}: {got.get(odd[0])}, not {want.get(odd[0])}")
    print(f"{len(want)} files are as they were left")


main()
