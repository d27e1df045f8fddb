// A small writer of layer tars, byte for byte what is asked for: PAX or old GNU form, raw names,
// binary and empty xattrs, times as decimal text, sparse files in each of the four known forms.
// Only for the images of these tests; it knows nothing of imgfs.

export interface TarEntry {
  /** A string stands for its UTF-8 bytes; names that are not text are given as bytes. */
  readonly name: string | Buffer;
  readonly type?: "file" | "dir" | "symlink" | "link" | "char" | "block" | "fifo";
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Seconds as decimal text, with any fraction: "-315446215", "1577836800.123456789". */
  readonly time?: string;
  readonly link?: string | Buffer;
  readonly data?: Buffer;
  readonly sparse?: Sparse;
  readonly rdev?: readonly [major: number, minor: number];
  readonly xattrs?: Readonly<Record<string, Buffer>>;
  /** "gnu" writes long names as L and K records and large numbers in base 256; no xattrs. */
  readonly form?: "pax" | "gnu";
}

export interface Sparse {
  readonly size: number;
  readonly extents: ReadonlyArray<readonly [offset: number, data: Buffer]>;
  readonly form: "gnu" | "0.0" | "0.1" | "1.0";
}

const blockSize = 512;
const typeFlags = {
  file: "0",
  link: "1",
  symlink: "2",
  char: "3",
  block: "4",
  dir: "5",
  fifo: "6",
} as const;

const defaultModes: Readonly<Record<string, number>> = { dir: 0o755, symlink: 0o777 };

const toBytes = (text: string | Buffer): Buffer =>
  typeof text === "string" ? Buffer.from(text, "utf8") : text;

function padded(data: Buffer): Buffer {
  const rest = data.length % blockSize;
  return rest === 0 ? data : Buffer.concat([data, Buffer.alloc(blockSize - rest)]);
}

function octal(width: number, value: number): Buffer {
  return Buffer.from(`${value.toString(8).padStart(width - 1, "0")}\0`, "latin1");
}

/** Octal where it fits, otherwise the GNU binary form, which also holds negative numbers. */
function gnuNumber(width: number, value: number): Buffer {
  if (value >= 0 && value < 8 ** (width - 1)) return octal(width, value);
  const out = Buffer.alloc(width, value < 0 ? 0xff : 0);
  out.writeBigInt64BE(BigInt(value), width - 8);
  out[0] = value < 0 ? 0xff : 0x80;
  return out;
}

interface Header {
  readonly name: Buffer;
  readonly link: Buffer;
  readonly flag: string;
  readonly size: number;
  readonly entry: TarEntry;
  readonly gnu: boolean;
  /** What is written at byte 386 and on: the first extents of the old GNU sparse form. */
  readonly tail?: Buffer;
}

function headerBlock({ name, link, flag, size, entry, gnu, tail }: Header): Buffer {
  const seconds = Math.floor(Number(entry.time ?? "1700000000"));
  const fits = (value: number, width: number): number => (value >= 0 && value < 8 ** (width - 1) ? value : 0);
  const put = (width: number, value: number): Buffer =>
    gnu ? gnuNumber(width, value) : octal(width, fits(value, width));
  const block = Buffer.alloc(blockSize);
  name.copy(block, 0, 0, 100);
  put(8, entry.mode ?? defaultModes[entry.type ?? "file"] ?? 0o644).copy(block, 100);
  put(8, entry.uid ?? 0).copy(block, 108);
  put(8, entry.gid ?? 0).copy(block, 116);
  put(12, size).copy(block, 124);
  put(12, seconds).copy(block, 136);
  block.fill(" ", 148, 156);
  block.write(flag, 156, "latin1");
  link.copy(block, 157, 0, 100);
  block.write(gnu ? "ustar  \0" : "ustar\x0000", 257, "latin1");
  if (entry.rdev !== undefined) {
    put(8, entry.rdev[0]).copy(block, 329);
    put(8, entry.rdev[1]).copy(block, 337);
  }
  tail?.copy(block, 386);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/** One PAX record; its length counts its own digits. */
function paxRecord(key: string, value: string | Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(` ${key}=`, "utf8"), toBytes(value), Buffer.from("\n")]);
  let length = body.length + 1;
  while (String(length).length + body.length !== length) length = String(length).length + body.length;
  return Buffer.concat([Buffer.from(String(length)), body]);
}

function paxRecords(entry: TarEntry, name: Buffer, link: Buffer): Buffer[] {
  const records: Buffer[] = [];
  if (name.length > 100) records.push(paxRecord("path", name));
  if (link.length > 100) records.push(paxRecord("linkpath", link));
  for (const key of ["uid", "gid"] as const) {
    const id = entry[key] ?? 0;
    if (id >= 8 ** 7) records.push(paxRecord(key, String(id)));
  }
  const time = entry.time ?? "1700000000";
  if (/[.-]/.test(time) || Number(time) >= 8 ** 11) records.push(paxRecord("mtime", time));
  for (const [key, value] of Object.entries(entry.xattrs ?? {})) {
    records.push(paxRecord(`SCHILY.xattr.${key}`, value));
  }
  return records;
}

/** A record that describes the entry after it: x (PAX), L and K (GNU). */
function metaEntry(flag: string, name: string, data: Buffer, gnu: boolean): Buffer {
  const entry: TarEntry = { name, mode: gnu ? 0 : 0o644, time: "0" };
  const block = headerBlock({
    name: Buffer.from(name),
    link: Buffer.alloc(0),
    flag,
    size: data.length,
    entry,
    gnu,
  });
  return Buffer.concat([block, padded(data)]);
}

function gnuExtents(pairs: ReadonlyArray<readonly [number, number]>, count: number): Buffer {
  const out = Buffer.alloc(count * 24);
  pairs.forEach(([offset, length], i) => {
    gnuNumber(12, offset).copy(out, i * 24);
    gnuNumber(12, length).copy(out, i * 24 + 12);
  });
  return out;
}

/** The extents as GNU tar lists them: a file that ends in a hole has an empty extent at its end. */
function extentPairs({ size, extents }: Sparse): Array<readonly [offset: number, length: number]> {
  const pairs = extents.map(([offset, data]) => [offset, data.length] as const);
  const last = pairs.at(-1) ?? [0, 0];
  return last[0] + last[1] < size ? [...pairs, [size, 0]] : pairs;
}

/** The old form: four extents in the header, 21 in each block after it. */
function oldGnuSparse(entry: TarEntry, sparse: Sparse, name: Buffer, stored: Buffer): Buffer {
  const pairs = extentPairs(sparse);
  const more = pairs.length > 4;
  const tail = Buffer.concat([
    gnuExtents(pairs.slice(0, 4), 4),
    Buffer.from([more ? 1 : 0]),
    gnuNumber(12, sparse.size),
  ]);
  const parts = [
    headerBlock({ name, link: Buffer.alloc(0), flag: "S", size: stored.length, entry, gnu: true, tail }),
  ];
  for (let at = 4; at < pairs.length; at += 21) {
    const flag = Buffer.alloc(8);
    flag[0] = at + 21 < pairs.length ? 1 : 0;
    parts.push(gnuExtents(pairs.slice(at, at + 21), 21), flag);
  }
  return Buffer.concat([...parts, padded(stored)]);
}

function paxSparse(entry: TarEntry, sparse: Sparse, name: Buffer, stored: Buffer): Buffer {
  const pairs = extentPairs(sparse);
  const records = paxRecords(entry, name, Buffer.alloc(0));
  let body = stored;
  if (sparse.form === "1.0") {
    const map = [pairs.length, ...pairs.flat()].map((n) => `${n}\n`).join("");
    body = Buffer.concat([padded(Buffer.from(map)), stored]);
    records.push(paxRecord("GNU.sparse.major", "1"), paxRecord("GNU.sparse.minor", "0"));
    records.push(paxRecord("GNU.sparse.name", name), paxRecord("GNU.sparse.realsize", String(sparse.size)));
  } else {
    records.push(paxRecord("GNU.sparse.size", String(sparse.size)));
    records.push(paxRecord("GNU.sparse.numblocks", String(pairs.length)));
    if (sparse.form === "0.1") {
      records.push(paxRecord("GNU.sparse.map", pairs.flat().join(",")), paxRecord("GNU.sparse.name", name));
    } else {
      for (const [offset, length] of pairs) {
        records.push(paxRecord("GNU.sparse.offset", String(offset)));
        records.push(paxRecord("GNU.sparse.numbytes", String(length)));
      }
    }
  }
  // Readers that do not know the form would unpack the stored bytes under this name.
  const shown = sparse.form === "0.0" ? name : Buffer.from("GNUSparseFile.0/stored");
  const block = headerBlock({
    name: shown,
    link: Buffer.alloc(0),
    flag: "0",
    size: body.length,
    entry,
    gnu: false,
  });
  return Buffer.concat([
    metaEntry("x", "PaxHeaders/sparse", Buffer.concat(records), false),
    block,
    padded(body),
  ]);
}

function encode(entry: TarEntry): Buffer {
  const gnu = entry.form === "gnu";
  const name = toBytes(entry.name);
  const link = toBytes(entry.link ?? "");
  if (entry.sparse !== undefined) {
    const stored = Buffer.concat(entry.sparse.extents.map(([, data]) => data));
    const write = entry.sparse.form === "gnu" ? oldGnuSparse : paxSparse;
    return write(entry, entry.sparse, name, stored);
  }
  const parts: Buffer[] = [];
  if (gnu) {
    const terminated = (text: Buffer): Buffer => Buffer.concat([text, Buffer.alloc(1)]);
    if (link.length > 100) parts.push(metaEntry("K", "././@LongLink", terminated(link), true));
    if (name.length > 100) parts.push(metaEntry("L", "././@LongLink", terminated(name), true));
  } else {
    const records = paxRecords(entry, name, link);
    if (records.length > 0) parts.push(metaEntry("x", "PaxHeaders/entry", Buffer.concat(records), false));
  }
  const data = entry.data ?? Buffer.alloc(0);
  const flag = typeFlags[entry.type ?? "file"];
  parts.push(headerBlock({ name, link, flag, size: data.length, entry, gnu }), padded(data));
  return Buffer.concat(parts);
}

/** A whole layer tar, with its two closing zero blocks. */
export function layerTar(entries: readonly TarEntry[]): Buffer {
  return Buffer.concat([...entries.map(encode), Buffer.alloc(2 * blockSize)]);
}
