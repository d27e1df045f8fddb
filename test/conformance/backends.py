"""Where the cases run: a plain directory, mounts of imgfs in its ways of use, and its peers for comparison.

Each says where the objects of a case's setup start, who runs the cases, and what it lacks and why (lacks.py).
"""
import os
import stat
import subprocess
import time

from lacks import LACKS

CLI = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "bin", "imgfs")


class Plain:
    """A directory of the machine's own filesystem: the yardstick, where every case must pass."""

    # Objects of a setup start in the mount itself ("upper"), in the image ("lower"), or there and are copied up
    # before the body runs: whole ("copied") or only their metadata ("metacopied").
    start = "upper"
    root = True
    read_only = False
    user = None  # uid of who runs the cases when not the caller

    def __init__(self, name):
        self.name = name
        self.lacks = LACKS.get(name, {})

    def open(self, scratch):
        """Makes what is needed; returns the folders in which setups and bodies run."""
        self.top = os.path.join(scratch, "plain")
        os.mkdir(self.top)
        return self.top, self.top

    def settle(self):
        """Called after all setups."""

    def again(self, killed):
        """Ends the mount and mounts anew."""

    def close(self):
        pass


class PlainReadOnly(Plain):
    read_only = True

    def open(self, scratch):
        self.source, self.top = (os.path.join(scratch, name) for name in ("source", "mnt"))
        os.mkdir(self.source)
        os.mkdir(self.top)
        return self.source, self.top

    def settle(self):
        subprocess.run(["mount", "--bind", self.source, self.top], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", self.top], check=True)

    def close(self):
        subprocess.run(["umount", "-l", self.top], check=True)


class Imgfs(Plain):
    """A mount of an image; `options` are the mount's, `build` those of imgfs build."""

    def __init__(self, name, start="upper", options=("--devices",), build=(), upper=True):
        super().__init__(name)
        self.start, self.options, self.build, self.upper = start, options, build, upper
        self.mounted = False

    def open(self, scratch):
        self.scratch = scratch
        self.mnt = os.path.join(scratch, "mnt")
        self.source = os.path.join(scratch, "source")
        for each in (self.mnt, self.source):
            os.mkdir(each)
            os.chmod(each, 0o755)
        if self.start == "upper":
            self.make_lower()
            self.mount()
            return self.mnt, self.mnt
        return self.source, self.mnt

    def make_lower(self):
        image = os.path.join(self.scratch, "image")
        command(CLI, "build", f"dir:{self.source}", image, "--progress=none", *self.build)

    def settle(self):
        if self.start == "upper":
            return
        self.make_lower()
        self.mount()
        if self.start != "lower":
            copy_up_all(self.mnt, self.start == "copied")
            self.again(False)

    def mount(self):
        pid = os.path.join(self.scratch, "pid")
        upper = ["--upper", os.path.join(self.scratch, "upper")] if self.upper else []
        image = os.path.join(self.scratch, "image")
        command(CLI, "mount", image, self.mnt, *upper, "--pid-file", pid, *self.options)
        self.mounted = True
        with open(pid) as file:
            self.pid = int(file.read())

    def again(self, killed):
        if killed:
            os.kill(self.pid, 9)
            while running(self.pid):
                time.sleep(0.005)
        command(CLI, "umount", self.mnt)
        self.mounted = False
        self.mount()

    def close(self):
        if self.mounted:
            command(CLI, "umount", self.mnt)


class ImgfsReadOnly(Imgfs):
    read_only = True


class ImgfsAsUser(Imgfs):
    """Mounted by root, used by an ordinary user."""

    root = False
    user = 12001


class ImgfsRootless(Imgfs):
    """Run, mount and all, by an ordinary user."""

    root = False


class PlainAsUser(Plain):
    root = False
    user = 12001


class Peer(Imgfs):
    """Another overlay, for comparison by hand; nothing of it is in CI."""

    def make_lower(self):
        for name in ("up", "work"):
            os.mkdir(os.path.join(self.scratch, name))

    def mount(self):
        at = {name: os.path.join(self.scratch, name) for name in ("source", "up", "work")}
        options = f"lowerdir={at['source']},upperdir={at['up']},workdir={at['work']}"
        if self.name.startswith("fuse-overlayfs"):
            command("fuse-overlayfs", "-o", f"{options},allow_other", self.mnt)
        else:
            command("mount", "-t", "overlay", "overlay", "-o", f"{options},redirect_dir=on,metacopy=on,index=on", self.mnt)
        self.mounted = True

    def again(self, killed):
        command("umount", self.mnt)
        self.mount()

    def close(self):
        if self.mounted:
            command("umount", self.mnt)


# About every second backend is under a quota that no case reaches: a quota shows in statfs(2) alone.
QUOTA = ("--quota", "1T")

BACKENDS = {
    backend.name: backend
    for backend in (
        Plain("plain"),
        PlainAsUser("plain-user"),
        PlainReadOnly("plain-read-only"),
        Imgfs("upper"),
        Imgfs("lower", "lower", options=("--devices", *QUOTA)),
        Imgfs("copied", "copied", options=("--devices", *QUOTA), build=("--codec", "zstd")),
        Imgfs("metacopied", "metacopied"),
        ImgfsAsUser("user-upper", options=("--devices", *QUOTA)),
        ImgfsAsUser("user-lower", "lower"),
        ImgfsRootless("rootless-upper", options=()),
        ImgfsRootless("rootless-lower", "lower", options=QUOTA),
        ImgfsReadOnly("read-only", "lower", upper=False),
        ImgfsReadOnly("read-only-upper", "lower", options=("--devices", "-o", "ro")),
        Imgfs("fuse-native", options=("--devices", "--transport", "fuse-native", *QUOTA)),
        Peer("overlayfs-upper"),
        Peer("overlayfs-lower", "lower"),
        Peer("fuse-overlayfs-upper"),
        Peer("fuse-overlayfs-lower", "lower"),
    )
}


def command(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")


def running(pid):
    try:
        with open(f"/proc/{pid}/status") as status:
            return "State:\tZ" not in status.read()
    except FileNotFoundError:
        return False


def copy_up_all(top, data):
    """Changes every object to what it is already: its times, with `data` also the size of every file."""
    for at, folders, files in os.walk(os.fsencode(top)):
        for each in (os.path.join(at, name) for name in folders + files):
            s = os.lstat(each)
            if data and stat.S_ISREG(s.st_mode) and s.st_size > 0 and not capable(each):
                os.truncate(each, s.st_size)
            os.utime(each, ns=(s.st_atime_ns, s.st_mtime_ns), follow_symlinks=False)


def capable(each):
    return "security.capability" in os.listxattr(each, follow_symlinks=False)
