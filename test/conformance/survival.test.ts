// What a program was promised outlives the daemon: synced files and names survive its SIGKILL, and where it runs out of
// descriptors it says so and changes nothing.
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import {
  build,
  cannotMount,
  command,
  hasCommand,
  isRunning,
  mount,
  mountAt,
  python,
  run,
  scratch,
  succeed,
  titleOf,
  until,
} from "../e2e/mounted.js";
import { writeLayout } from "../e2e/oci-writer.js";
import { conformanceLayers } from "./image.js";

const reason = cannotMount ?? (hasCommand("python3") ? undefined : "python3 is missing");

const syncedWork = `
import ctypes, os, sys
os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)

def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)

def write(path, data, flags=os.O_CREAT | os.O_WRONLY, offset=0):
    fd = os.open(path, flags, 0o640)
    os.pwrite(fd, data, offset)
    os.fsync(fd)
    os.close(fd)

os.mkdir("new")
write("new/file", b"written" * 1000)
sync("new"); sync(".")
write("etc/motd", b"HELLO", os.O_WRONLY)
write("data/large", b"tail", os.O_WRONLY, 4_999_990)
write("new/temporary", b"renamed")
os.rename("new/temporary", "new/renamed")
sync("new")
os.rename("marked", "new/moved")
sync("new"); sync(".")
os.unlink("etc/deep/er/file"); sync("etc/deep/er")
os.link("links/one", "new/link"); sync("new")
fd = os.open("new", os.O_TMPFILE | os.O_RDWR, 0o600)
os.write(fd, b"nameless")
os.fdatasync(fd)
assert libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, b"new/named", 0x400) == 0
os.fsync(fd); sync("new")
os.setxattr("noted", "user.more", b"x"); sync("noted")
`;

const syncedSeen = `
import os, sys
os.chdir(sys.argv[1])
def read(path, size=-1, offset=0):
    with open(path, "rb") as f:
        f.seek(offset)
        return f.read(size)
assert read("new/file") == b"written" * 1000
assert read("etc/motd") == b"HELLO\\n"
assert read("data/large", -1, 4_999_990)[:4] == b"tail" and os.stat("data/large").st_size == 5_000_000
assert sorted(os.listdir("new")) == ["file", "link", "moved", "named", "renamed"], os.listdir("new")
assert read("new/renamed") == b"renamed" and read("new/named") == b"nameless" and read("new/moved/f") == b"f\\n"
assert not os.path.exists("marked") and os.listdir("etc/deep/er") == []
assert os.stat("links/one").st_nlink == 3 and os.path.samefile("links/one", "new/link")
assert os.getxattr("noted", "user.more") == b"x" and os.getxattr("noted", "user.note") == b"kept"
print("all there")
`;

const withoutDescriptors = `
import errno, hashlib, json, os, stat, subprocess, sys
mnt, pid = sys.argv[1:3]

def look(path):
    s = os.lstat(path)
    content = sorted(os.listdir(path)) if stat.S_ISDIR(s.st_mode) else None
    if stat.S_ISREG(s.st_mode):
        with open(path, "rb") as f:
            content = hashlib.sha1(f.read()).hexdigest()
    return [path, s.st_mode, s.st_uid, s.st_nlink, s.st_mtime_ns, s.st_ino, content]

def tree():
    return [look(os.path.join(top, n)) for top, folders, files in os.walk(mnt) for n in sorted(folders + files)]

def limit(soft):
    subprocess.run(["prlimit", "--pid", pid, f"--nofile={soft}:"], check=True)

before_limit = subprocess.run(["prlimit", "--pid", pid, "--nofile", "-o", "SOFT", "--noheadings"], check=True, capture_output=True, text=True).stdout.strip()
wide = [f"{mnt}/wide/{n}" for n in sorted(os.listdir(f"{mnt}/wide"))]
def create(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
operations = [
    ("chmod", lambda i: os.chmod(wide[i], 0o600)),
    ("create", lambda i: create(f"{mnt}/user/n{i}")),
    ("rename", lambda i: os.rename(wide[i], wide[i] + "x")),
    ("truncate", lambda i: os.truncate(wide[i], 1)),
    ("write", lambda i: open(wide[i], "r+b").close()),
    ("link", lambda i: os.link(wide[i], f"{mnt}/user/l{i}")),
    ("mkdir", lambda i: os.mkdir(f"{mnt}/etc/deep/d{i}")),
    ("symlink", lambda i: os.symlink("t", f"{mnt}/etc/deep/s{i}")),
    ("moved", lambda i: os.rename(f"{mnt}/opaque", f"{mnt}/opaque{i}")),
    ("hard link", lambda i: os.chmod(f"{mnt}/links/one", 0o604)),
    ("fifo", lambda i: os.chmod(f"{mnt}/fifo", 0o604)),
]
refused = 0
for i, (name, operation) in enumerate(operations):
    before = tree()
    limit(len(os.listdir(f"/proc/{pid}/fd")))
    try:
        operation(i)
        done = True
    except OSError as cause:
        done = False
        assert cause.errno == errno.EMFILE, (name, cause)
        refused += 1
    limit(before_limit)
    if not done:
        after = tree()
        assert after == before, (name, [x for x in after if x not in before][:3], [x for x in before if x not in after][:3])
        operation(i)
print(json.dumps({"refused": refused, "tree": hashlib.sha1(json.dumps(tree()).encode()).hexdigest()}))
`;

it.runIf(process.env["CI"] !== undefined)("can kill a daemon here", () => {
  expect(reason).toBeUndefined();
});

describe.skipIf(reason !== undefined)(titleOf("what outlives the daemon", reason), () => {
  let image: string;

  beforeAll(async () => {
    const layout = scratch("layout");
    mkdirSync(layout);
    writeLayout(layout, conformanceLayers());
    image = await build(`oci:${layout}`);
  });

  it("is what was synced: files, their names, moves, links and xattrs", async () => {
    const upper = scratch("upper");
    const first = await mount(image, "--upper", upper);
    await python(syncedWork, first.path);
    process.kill(first.pid, "SIGKILL");
    await until("the daemon is dead", () => !isRunning(first.pid));
    await run("umount", ["-l", first.path]);
    const second = await mountAt(first.path, image, "--upper", upper);
    expect(await python(syncedSeen, second.path)).toBe("all there");
    expect(readdirSync(join(`${upper}.work`, "tmp"))).toEqual([]);
    await second.unmount();
    expect(await succeed(command, ["check", "--upper", upper, image])).toMatch(/^no damage found/);
  });

  it("is the tree as it was where the daemon had no descriptor left", async () => {
    const upper = scratch("upper");
    const first = await mount(image, "--upper", upper);
    const { refused, tree } = JSON.parse(await python(withoutDescriptors, first.path, String(first.pid))) as {
      refused: number;
      tree: string;
    };
    expect(refused).toBeGreaterThan(5);
    await first.unmount();
    const second = await mountAt(first.path, image, "--upper", upper);
    const again = withoutDescriptors.replace(/operations = \[\n[\s\S]*?\n\]\n/, "operations = []\n");
    expect(JSON.parse(await python(again, second.path, String(second.pid)))).toEqual({ refused: 0, tree });
    await second.unmount();
    expect(await succeed(command, ["check", "--upper", upper, image])).toMatch(/^no damage found/);
  });
});
