"""Much work on names by one process, in batches, for the memory tests. Prints what it did.
  names.py churn DIR COUNT     COUNT files made and removed, 1,000 at a time
  names.py fill DIR COUNT      COUNT empty files made in DIR
  names.py list DIR COUNT      lists DIR, which must hold COUNT names, each once
  names.py rename DIR COUNT    one file is renamed COUNT times, over other names and to new ones
  names.py held DIR COUNT      COUNT files made, unlinked while they are open, and then closed, 500 at a time
  names.py touch DIR COUNT     chmods and writes to COUNT files below DIR, which are the image's
  names.py stat DIR COUNT      lstats COUNT names below DIR, and drops the kernel's caches after each 5,000"""
import os
import sys


def batches(count, size):
    for at in range(0, count, size):
        yield range(at, min(count, at + size))


def churn(count):
    for batch in batches(count, 1000):
        for i in batch:
            os.close(os.open(f"f{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        for i in batch:
            os.unlink(f"f{i}")


def fill(count):
    for i in range(count):
        os.close(os.open(f"f{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))


def names_of(count):
    names = os.listdir(".")
    if len(names) != count or len(set(names)) != count:
        sys.exit(f"{len(names)} names, {len(set(names))} different ones, not {count}")


def rename(count):
    open("a", "w").close()
    last = "a"
    for i in range(count):
        if i % 2 == 0:
            open("b", "w").close()
            name = "b"
        else:
            name = f"r{i}"
        os.rename(last, name)
        last = name
    os.unlink(last)


def held(count):
    for batch in batches(count, 500):
        fds = []
        for i in batch:
            fds.append(os.open(f"h{i}", os.O_CREAT | os.O_RDWR))
            os.unlink(f"h{i}")
        for fd in fds:
            os.write(fd, b"x" * 100)
            if os.fstat(fd).st_nlink != 0:
                sys.exit("an unlinked file has links")
            os.close(fd)


def files_below(count):
    for folder, _, files in os.walk("."):
        for name in sorted(files):
            if count == 0:
                return
            count -= 1
            yield os.path.join(folder, name)


def touch(count):
    done = 0
    for path in files_below(count):
        os.chmod(path, 0o600)
        with open(path, "a") as f:
            f.write("more")
        done += 1
    if done != count:
        sys.exit(f"only {done} files")


def drop_caches():
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("2")


def stat(count):
    done = 0
    for path in files_below(count):
        os.lstat(path)
        done += 1
        if done % 5000 == 0:
            drop_caches()
    drop_caches()
    if done != count:
        sys.exit(f"only {done} files")


what, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.chdir(folder)
{
    "churn": churn, "fill": fill, "list": names_of, "rename": rename, "held": held, "touch": touch, "stat": stat,
}[what](count)
print(f"{what} {count}: done")
