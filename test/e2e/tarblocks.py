"""A second reader of layer tars, written from the tar formats and not from imgfs.

Parses 512-byte blocks itself: python's tarfile rounds PAX times to floats, decodes
names and xattr values as text and loses empty ones. Simple and slow on purpose.
Yields one Entry per tar entry, with the content already hashed, never held.
"""
import base64
import hashlib

BLOCK = 512
ZEROS = bytes(1 << 20)
TYPES = {b"0": "file", b"\0": "file", b"7": "file", b"S": "file", b"1": "link", b"2": "symlink",
         b"3": "char", b"4": "block", b"5": "dir", b"6": "fifo"}


class TarError(Exception):
    pass


class Entry:
    """One entry as the archive says it. `name` and `linkname` are raw bytes."""
    __slots__ = ("name", "type", "mode", "uid", "gid", "size", "mtime", "linkname", "rdev", "xattrs", "sha256", "holes")


def text(field):
    return field.split(b"\0", 1)[0]


def number(field):
    """Octal text, or GNU base-256: a set top bit, then a big-endian two's complement number."""
    if field[0] & 0x80:
        bits = len(field) * 8 - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if field[0] & 0x40 else value
    digits = text(field).strip()
    return int(digits, 8) if digits else 0


def decimal_time(value):
    """PAX time text to (seconds, nanoseconds), rounding down; never through a float."""
    value = value.strip()
    negative = value.startswith(b"-")
    whole, _, fraction = value.lstrip(b"+-").partition(b".")
    seconds = int(whole or b"0")
    ns = int((fraction[:9] or b"0").ljust(9, b"0"))
    if not negative:
        return seconds, ns
    return (-seconds - 1, 1_000_000_000 - ns) if ns else (-seconds, 0)


def pax_records(data):
    """The (key, value) pairs in order: GNU sparse 0.0 repeats its keys."""
    records = []
    while data.strip(b"\0"):
        length, _, _ = data.partition(b" ")
        end = int(length)
        record = data[len(length) + 1:end]
        if not record.endswith(b"\n"):
            raise TarError("PAX record without its newline")
        key, equals, value = record[:-1].partition(b"=")
        if not equals:
            raise TarError("PAX record without '='")
        records.append((key, value))
        data = data[end:]
    return records


class Blocks:
    """The tar stream: exact reads, and the padding to the next block."""

    def __init__(self, stream):
        self.stream = stream

    def read(self, size):
        parts, left = [], size
        while left:
            part = self.stream.read(left)
            if not part:
                raise TarError("truncated tar")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def padded(self, size):
        return self.read(-(-size // BLOCK) * BLOCK)[:size]

    def header(self):
        """The next header block, or None at the end (a zero block, or nothing more)."""
        first = self.stream.read(BLOCK)
        if not first:
            return None
        block = first + (self.read(BLOCK - len(first)) if len(first) < BLOCK else b"")
        if block == ZEROS[:BLOCK]:
            return None
        unsigned = sum(block[:148]) + 8 * 32 + sum(block[156:])
        if number(block[148:156]) != unsigned:
            raise TarError("header checksum")
        return block


def hash_extents(blocks, extents, real_size, stored):
    """sha256 of the file a map of (offset, length) describes; tells whether a whole 4 KiB block is a hole."""
    digest, position, holes = hashlib.sha256(), 0, False
    for offset, length in [*extents, (real_size, 0)]:
        gap = offset - position
        if gap < 0:
            raise TarError("sparse map is out of order")
        if -(-position // 4096) * 4096 + 4096 <= offset or (offset == real_size and gap and position % 4096 == 0):
            holes = True
        while gap:
            step = min(gap, len(ZEROS))
            digest.update(ZEROS[:step])
            gap -= step
        left = length
        while left:
            part = blocks.read(min(left, len(ZEROS)))
            digest.update(part)
            left -= len(part)
        position = offset + length
        stored -= length
    if stored:
        raise TarError("sparse map and stored size disagree")
    return digest.hexdigest(), holes


def old_gnu_map(blocks, header):
    extents, chunk, count, extended = [], header[386:482], 4, header[482]
    while True:
        for i in range(count):
            pair = chunk[i * 24:i * 24 + 24]
            if text(pair) or pair[0] & 0x80:
                extents.append((number(pair[:12]), number(pair[12:])))
        if not extended:
            return extents, number(header[483:495])
        block = blocks.read(BLOCK)
        chunk, count, extended = block[:504], 21, block[504]


def pax_sparse_map(blocks, pax, records, stored):
    """The map of PAX sparse 0.0, 0.1 or 1.0 as (extents, real size, bytes still stored), or None."""
    real = pax.get(b"GNU.sparse.realsize", pax.get(b"GNU.sparse.size"))
    if pax.get(b"GNU.sparse.major") == b"1":
        lines, used, buffer = [], 0, b""
        while not lines or len(lines) < 1 + 2 * lines[0]:
            while b"\n" not in buffer:
                buffer += blocks.read(BLOCK)
                used += BLOCK
            line, _, buffer = buffer.partition(b"\n")
            lines.append(int(line))
        return list(zip(lines[1::2], lines[2::2])), int(real), stored - used
    if b"GNU.sparse.map" in pax:
        numbers = [int(n) for n in pax[b"GNU.sparse.map"].split(b",")]
        return list(zip(numbers[0::2], numbers[1::2])), int(real), stored
    offsets = [int(v) for k, v in records if k == b"GNU.sparse.offset"]
    lengths = [int(v) for k, v in records if k == b"GNU.sparse.numbytes"]
    return (list(zip(offsets, lengths)), int(real), stored) if offsets else None


def xattrs_of(pax):
    found = {}
    for key, value in pax.items():
        if key.startswith(b"LIBARCHIVE.xattr."):
            name = key[len(b"LIBARCHIVE.xattr."):]
            found.setdefault(name, base64.b64decode(value + b"=" * (-len(value) % 4)))
    for key, value in pax.items():
        if key.startswith(b"SCHILY.xattr."):
            found[key[len(b"SCHILY.xattr."):]] = value
    return found


def header_name(header):
    name = text(header[0:100])
    if header[257:263] == b"ustar\0" and text(header[345:500]):
        return text(header[345:500]) + b"/" + name
    return name


def entries(stream):
    """Every entry of one uncompressed tar stream, in its order."""
    blocks, world, records, long_name, long_link = Blocks(stream), {}, [], None, None
    while True:
        header = blocks.header()
        if header is None:
            return
        kind, size = header[156:157], number(header[124:136])
        if kind == b"g":
            world.update(pax_records(blocks.padded(size)))
            continue
        if kind == b"x":
            records = pax_records(blocks.padded(size))
            continue
        if kind == b"L":
            long_name = text(blocks.padded(size))
            continue
        if kind == b"K":
            long_link = text(blocks.padded(size))
            continue
        if kind not in TYPES:
            raise TarError(f"unknown entry type {kind!r}")
        # An empty value takes a PAX keyword back; an xattr may well be empty.
        pax = {k: v for k, v in {**world, **dict(records)}.items() if v or b".xattr." in k}
        entry = Entry()
        entry.name = pax.get(b"GNU.sparse.name") or pax.get(b"path") or long_name or header_name(header)
        entry.linkname = pax.get(b"linkpath") or long_link or text(header[157:257])
        entry.type = TYPES[kind]
        if kind == b"\0" and entry.name.endswith(b"/"):
            entry.type = "dir"
        entry.mode = number(header[100:108]) & 0o7777
        entry.uid = int(pax.get(b"uid", number(header[108:116])))
        entry.gid = int(pax.get(b"gid", number(header[116:124])))
        entry.mtime = decimal_time(pax[b"mtime"]) if b"mtime" in pax else (number(header[136:148]), 0)
        entry.rdev = (number(header[329:337]), number(header[337:345])) if entry.type in ("char", "block") else None
        entry.xattrs = xattrs_of(pax)
        entry.sha256, entry.size, entry.holes = None, 0, False
        if entry.type == "file":
            stored = int(pax.get(b"size", size))
            sparse = pax_sparse_map(blocks, pax, records, stored)
            if kind == b"S":
                extents, real = old_gnu_map(blocks, header)
                sparse = extents, real, stored
            extents, real, left = sparse or ([(0, stored)], stored, stored)
            entry.size = real
            entry.sha256, entry.holes = hash_extents(blocks, extents, real, left)
            blocks.read(-left % BLOCK)
        records, long_name, long_link = [], None, None
        yield entry
