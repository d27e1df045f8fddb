#!/usr/bin/env python3
"""What a mounted image must look like, worked out without any code of imgfs.

  oracle.py layers SOURCE [--platform OS/ARCH] [--no-devices] [--holes]   apply the layers in memory
  oracle.py tree DIR [--no-devices] [--holes] [--loose]                   walk a mounted tree
  oracle.py diff A B [--ignore FIELD]... [--show N] [--without LACK]...   compare two dumps, exit 1 if they differ

--loose permits readdir and lstat to tell different inode numbers, which overlays of others do.

LACK is ns-times, times-before-1970, byte-names or lseek: B is a mount by a transport without it, and must be what is
left of A without it.

SOURCE is an OCI layout (DIR or DIR:TAG), a docker archive or a lone layer tar. Both dumps are JSON
lines, one per path, sorted by the bytes of the path; bytes that are not printable ASCII show as \\xNN.
"""
import argparse
import base64
import errno
import gzip
import hashlib
import io
import json
import os
import platform as host
import re
import stat
import sys
import tarfile

sys.dont_write_bytecode = True
from tarblocks import TarError, entries  # noqa: E402

LINKABLE = ("file", "symlink", "char", "block", "fifo")


def show(raw):
    return "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\x{b:02x}" for b in raw)


def line(path, fields):
    return json.dumps({"path": show(b"/" + path), **fields}, sort_keys=True, separators=(",", ":"))


# ---------------------------------------------------------------- sources

def read_json(data):
    return json.loads(data.decode("utf-8"))


def pick(manifests, tag, platform):
    """The manifest that the tag and the platform select; a lone one needs neither."""
    tagged = [m for m in manifests if tag is None or m.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag]
    fits = [m for m in tagged if "platform" not in m or f"{m['platform']['os']}/{m['platform']['architecture']}" == platform]
    if not fits:
        raise TarError(f"no manifest for {tag or 'any tag'} and {platform}")
    return fits[0]


def layout_layers(folder, tag, platform):
    def blob(digest):
        return os.path.join(folder, "blobs", *digest.split(":"))

    document = read_json(open(os.path.join(folder, "index.json"), "rb").read())
    while "layers" not in document:
        chosen = pick(document["manifests"], tag, platform)
        document, tag = read_json(open(blob(chosen["digest"]), "rb").read()), None
    return [open(blob(layer["digest"]), "rb") for layer in document["layers"]]


def archive_layers(path):
    archive = tarfile.open(path)
    manifest = read_json(archive.extractfile("manifest.json").read())[0]
    return [archive.extractfile(name) for name in manifest["Layers"]]


def source_layers(source, platform):
    if os.path.isdir(source):
        return layout_layers(source, None, platform)
    folder, _, tag = source.rpartition(":")
    if folder and os.path.isdir(folder):
        return layout_layers(folder, tag, platform)
    with tarfile.open(source) as archive:
        first = archive.next()
        is_archive = first is not None and "manifest.json" in archive.getnames()
    return archive_layers(source) if is_archive else [open(source, "rb")]


def plain(stream):
    magic = stream.read(4)
    stream.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(stream)
    if magic == b"\x28\xb5\x2f\xfd":
        raise TarError("zstd layers need the zstd program; give the plain form")
    return io.BufferedReader(stream) if not hasattr(stream, "peek") else stream


# ---------------------------------------------------------------- layers

class Node:
    """One inode. Names point at it; a directory also holds its children by name."""
    __slots__ = ("type", "mode", "uid", "gid", "size", "mtime", "target", "rdev", "xattrs", "sha256", "holes", "children", "names")

    def __init__(self, kind="dir"):
        self.type, self.mode, self.uid, self.gid, self.size, self.mtime = kind, 0o755, 0, 0, 0, (0, 0)
        self.target = self.rdev = self.sha256 = None
        self.xattrs, self.holes, self.children, self.names = {}, False, {}, []


def parts_of(name):
    out = []
    for part in name.split(b"/"):
        if part == b"..":
            out[-1:] = []
        elif part not in (b"", b"."):
            out.append(part)
    return out


def find(root, parts):
    node = root
    for part in parts:
        node = node.children.get(part) if node.type == "dir" else None
        if node is None:
            return None
    return node


def parent_of(root, parts):
    """The directory that holds the last part; parents no entry describes are 0755 0:0 of time zero."""
    node = root
    for part in parts[:-1]:
        if part not in node.children:
            node.children[part] = Node()
        node = node.children[part]
        if node.type != "dir":
            raise TarError(f"{show(b'/'.join(parts))} passes through something that is no directory")
    return node


def describe(node, entry):
    node.mode, node.uid, node.gid, node.mtime, node.xattrs = entry.mode, entry.uid, entry.gid, entry.mtime, entry.xattrs
    node.size, node.sha256, node.holes, node.rdev = entry.size, entry.sha256, entry.holes, entry.rdev
    if node.type == "symlink":
        node.target, node.size = entry.linkname, len(entry.linkname)
    if node.type == "dir":
        node.size = 0


def remove(root, parts):
    parent = find(root, parts[:-1])
    if parent is not None and parent.type == "dir":
        parent.children.pop(parts[-1], None)


def apply_layer(root, layer):
    """Whiteouts see only what lies below, so they come first, whatever their place in the tar."""
    rest = []
    for entry in layer:
        parts = parts_of(entry.name)
        base = parts[-1] if parts else b""
        if base == b".wh..wh..opq":
            below = find(root, parts[:-1])
            if below is not None and below.type == "dir":
                below.children = {}
        elif base.startswith(b".wh..wh."):
            continue
        elif base.startswith(b".wh."):
            remove(root, [*parts[:-1], base[4:]])
        else:
            rest.append((parts, entry))
    for parts, entry in rest:
        if not parts:
            describe(root, entry)
            continue
        parent = parent_of(root, parts)
        if entry.type == "link":
            target = find(root, parts_of(entry.linkname))
            if target is None or target.type not in LINKABLE:
                raise TarError(f"{show(entry.name)} links to {show(entry.linkname)}, which is not there")
            parent.children[parts[-1]] = target
            continue
        old = parent.children.get(parts[-1])
        node = old if old is not None and old.type == entry.type == "dir" else Node(entry.type)
        describe(node, entry)
        parent.children[parts[-1]] = node


def collect(node, path, out):
    node.names.append(path)
    out.append((path, node))
    for name, child in node.children.items():
        collect(child, path + b"/" + name if path else name, out)


def dump_layers(args):
    root = Node()
    for stream in source_layers(args.source, args.platform):
        apply_layer(root, entries(plain(stream)))
    paths = []
    collect(root, b"", paths)
    for path, node in sorted(paths, key=lambda pair: pair[0]):
        if args.no_devices and node.type in ("char", "block"):
            continue
        fields = {"type": node.type, "mode": f"{node.mode:04o}", "uid": node.uid, "gid": node.gid, "mtime": list(node.mtime)}
        fields["xattrs"] = {show(k): base64.b64encode(v).decode() for k, v in node.xattrs.items()}
        if node.type == "dir":
            fields["nlink"] = 2 + sum(child.type == "dir" for child in node.children.values())
        else:
            fields["nlink"], fields["size"] = len(node.names), node.size
            if len(node.names) > 1:
                fields["link"] = show(b"/" + min(node.names))
        if node.type == "symlink":
            fields["target"], fields["mode"] = show(node.target), "0777"
        if node.rdev:
            fields["rdev"] = list(node.rdev)
        if node.type == "file":
            fields["sha256"] = node.sha256
            if args.holes:
                fields["holes"] = node.holes
        print(line(path, fields))


# ---------------------------------------------------------------- a mounted tree

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFCHR: "char",
         stat.S_IFBLK: "block", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}


def hash_file(path):
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def has_hole(path, size):
    fd = os.open(path, os.O_RDONLY)
    try:
        return size > 0 and os.lseek(fd, 0, os.SEEK_HOLE) < size
    finally:
        os.close(fd)


def walk(folder, path, out, odd):
    """Every path below, with what readdir says held against what lstat says."""
    here = os.path.join(folder, path) if path else folder
    subdirectories = 0
    with os.scandir(here) as listing:
        found = sorted(listing, key=lambda entry: entry.name)
    for entry in found:
        name = path + b"/" + entry.name if path else entry.name
        status = os.lstat(os.path.join(folder, name))
        kind = KINDS[stat.S_IFMT(status.st_mode)]
        if entry.inode() != status.st_ino:
            odd.append(f"{show(name)}: readdir says inode {entry.inode()}, lstat {status.st_ino}")
        if (entry.is_dir(follow_symlinks=False), entry.is_symlink()) != (kind == "dir", kind == "symlink"):
            odd.append(f"{show(name)}: readdir and lstat disagree about the type")
        subdirectories += kind == "dir"
        out.append((name, status, kind))
        if kind == "dir":
            walk(folder, name, out, odd)
    return subdirectories


def read_link(path):
    """The target; None for one that the mount has no way to tell."""
    try:
        return show(os.readlink(path))
    except OSError as error:
        if error.errno != errno.EILSEQ:
            raise
        return None


def dump_tree(args):
    folder = os.fsencode(args.source)
    found, odd, first = [(b"", os.lstat(folder), "dir")], [], {}
    walk(folder, b"", found, odd)
    found.sort(key=lambda item: item[0])
    for name, status, kind in found:
        first.setdefault((status.st_dev, status.st_ino), []).append(name)
    for name, status, kind in found:
        if args.no_devices and kind in ("char", "block"):
            continue
        path = os.path.join(folder, name) if name else folder
        seconds, ns = divmod(status.st_mtime_ns, 1_000_000_000)
        fields = {"type": kind, "mode": f"{stat.S_IMODE(status.st_mode):04o}", "uid": status.st_uid, "gid": status.st_gid,
                  "mtime": [seconds, ns], "nlink": status.st_nlink}
        fields["xattrs"] = {show(os.fsencode(k)): base64.b64encode(os.getxattr(path, k, follow_symlinks=False)).decode()
                            for k in os.listxattr(path, follow_symlinks=False)}
        if kind != "dir":
            fields["size"] = status.st_size
            same = first[(status.st_dev, status.st_ino)]
            if len(same) > 1:
                fields["link"] = show(b"/" + same[0])
        if kind == "symlink":
            fields["target"] = read_link(path)
        if kind in ("char", "block"):
            fields["rdev"] = [os.major(status.st_rdev), os.minor(status.st_rdev)]
        if kind == "file":
            fields["sha256"] = hash_file(path)
            if args.holes:
                fields["holes"] = has_hole(path, status.st_size)
        print(line(name, fields))
    if args.loose:
        return 0
    for text in odd:
        print(text, file=sys.stderr)
    return 1 if odd else 0


# ---------------------------------------------------------------- differences

def load(path):
    with open(path) as file:
        rows = [json.loads(row) for row in file]
    return {row["path"]: row for row in rows}


def is_text(shown):
    raw = re.sub(rb"\\x(..)", lambda m: bytes.fromhex(m[1].decode()), shown.encode())
    try:
        return "\ufffd" not in raw.decode()
    except UnicodeDecodeError:
        return False


def left_of(rows, lacks):
    """What a transport without these things can show of the rows."""
    if "byte-names" in lacks:
        rows = {path: row for path, row in rows.items() if is_text(path)}
    for row in rows.values():
        seconds, ns = row["mtime"]
        if "times-before-1970" in lacks and seconds < 0:
            seconds = ns = 0
        row["mtime"] = [seconds, ns // 1_000_000 * 1_000_000 if "ns-times" in lacks else ns]
        if "byte-names" in lacks and not is_text(row.get("target", "")):
            row["target"] = None
        if "lseek" in lacks and "holes" in row:
            row["holes"] = False
    return rows


def dump_diff(args):
    a, b = left_of(load(args.a), args.without), load(args.b)
    groups = {}
    for path in sorted({*a, *b}):
        if path not in b:
            groups.setdefault("only in A", []).append(path)
        elif path not in a:
            groups.setdefault("only in B", []).append(path)
        else:
            for field in sorted({*a[path], *b[path]} - set(args.ignore)):
                left, right = a[path].get(field), b[path].get(field)
                if left != right:
                    groups.setdefault(f"{field} differs", []).append(f"{path}: {json.dumps(left)} / {json.dumps(right)}")
    for title, rows in groups.items():
        print(f"{title} ({len(rows)}):")
        for row in rows[:args.show]:
            print(f"  {row[:400]}")
        if len(rows) > args.show:
            print(f"  and {len(rows) - args.show} more")
    print(f"{len(a)} paths in A, {len(b)} in B, {sum(map(len, groups.values()))} differences")
    return 1 if groups else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(host.machine(), host.machine())
    for mode, run in (("layers", dump_layers), ("tree", dump_tree)):
        sub = modes.add_parser(mode)
        sub.add_argument("source")
        sub.add_argument("--platform", default=f"linux/{machine}")
        sub.add_argument("--no-devices", action="store_true")
        sub.add_argument("--holes", action="store_true")
        sub.add_argument("--loose", action="store_true")
        sub.set_defaults(run=run)
    sub = modes.add_parser("diff")
    sub.add_argument("a")
    sub.add_argument("b")
    sub.add_argument("--ignore", action="append", default=[])
    sub.add_argument("--without", action="append", default=[])
    sub.add_argument("--show", type=int, default=20)
    sub.set_defaults(run=dump_diff)
    args = parser.parse_args()
    sys.setrecursionlimit(20000)
    try:
        sys.exit(args.run(args) or 0)
    except (TarError, OSError) as error:
        print(f"oracle: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
