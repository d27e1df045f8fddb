// Changes to layer tars: to bytes, or to headers, records and members with checksums and lengths that fit again.
import { base256, checksummed, octal, padded, paxRecords } from "../fixtures/tar.js";
import { mutateBytes } from "./mutate.js";
import type { Random } from "./random.js";

/** A header and what the archive has of it until the next one. */
interface Member {
  header: Buffer;
  body: Buffer;
}

function membersOf(tar: Buffer): Member[] {
  const members: Member[] = [];
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0; ) {
    const header = Buffer.from(tar.subarray(at, at + 512));
    const text = header.toString("latin1", 124, 136);
    const size =
      (header[124] as number) >= 0x80 ? Number(header.readBigUInt64BE(128)) : Number.parseInt(text, 8) || 0;
    let length = Math.ceil(size / 512) * 512;
    // Blocks of the old sparse form stand between header and body.
    if (header[156] === 0x53 && header[482] === 1) length += 512;
    members.push({ header, body: Buffer.from(tar.subarray(at + 512, at + 512 + length)) });
    at += 512 + length;
  }
  return members;
}

const numbers: readonly (number | bigint)[] = [
  0,
  1,
  2,
  511,
  512,
  513,
  1023,
  4096,
  8 ** 7 - 1,
  8 ** 7,
  8 ** 11 - 1,
  -1,
  -512,
  65_535,
  65_536,
  2 ** 31,
  2 ** 32 - 2,
  2 ** 32 - 1,
  2 ** 32,
  2 ** 33,
  2 ** 47,
  2 ** 48,
  2 ** 53 - 1,
  2n ** 53n,
  2n ** 62n,
  -(2n ** 53n),
  -(2n ** 62n),
];

const names: readonly string[] = [
  "",
  ".",
  "..",
  "/",
  "//",
  "./",
  "../..",
  "../../etc/passwd",
  "/etc/passwd",
  "a/../..",
  "a/./b",
  "a//b",
  "a/",
  "etc",
  "etc/",
  "etc/passwd",
  "etc/passwd/x",
  "bin/sh",
  "up/b",
  "a",
  "a/b",
  "\0",
  "a\0b",
  "\n",
  "\x1b[31m",
  "\xff\xfe",
  ".wh.",
  ".wh..",
  ".wh...",
  ".wh.a",
  "a/.wh.b",
  ".wh..wh..opq",
  "a/.wh..wh..opq",
  ".wh..wh.plnk/1",
  ".wh..wh.x",
  "a/.wh..wh..opq/b",
  "l",
  "seen",
  "gone",
  "x".repeat(99),
  "x".repeat(100),
  "x".repeat(255),
  "x".repeat(256),
  "y/".repeat(60),
  `${"z/".repeat(2047)}z`,
  `${"z/".repeat(2048)}z`,
  "__proto__",
  "constructor",
  "dev/null",
  "through",
  "cut",
];

const types = "\x00012345 6 7SLKxXgDMNVAZ".replaceAll(" ", "");

const keys: readonly string[] = [
  "path",
  "linkpath",
  "size",
  "mtime",
  "uid",
  "gid",
  "comment",
  "GNU.sparse.map",
  "GNU.sparse.size",
  "GNU.sparse.realsize",
  "GNU.sparse.major",
  "GNU.sparse.minor",
  "GNU.sparse.name",
  "GNU.sparse.offset",
  "GNU.sparse.numbytes",
  "GNU.sparse.numblocks",
  "SCHILY.xattr.user.a",
  "SCHILY.xattr.",
  "SCHILY.xattr.security.capability",
  "LIBARCHIVE.xattr.user.b",
  "LIBARCHIVE.xattr.%00",
  `SCHILY.xattr.${"n".repeat(300)}`,
  "SCHILY.fflags",
  "__proto__",
];

function numberText(random: Random): string {
  const number = random.pick(numbers);
  return random.pick([
    () => String(number),
    () => `${number}.${random.pick(["", "5", "999999999", "0000000001", "x"])}`,
    () => `-${number}`,
    () => ` ${number}`,
    () => random.pick(["", "-", "-0", "-0.5", "1e9", "0x10", "NaN", "99999999999999999999", "1,2", "007"]),
  ])();
}

function mapText(random: Random): string {
  const sizes = [0, 1, 3, 512, 4096, 10_000, 50_000, 99_999, 100_000, 100_001, 2 ** 40, 2 ** 53 - 1, 2 ** 60];
  return Array.from({ length: random.below(9) }, () => random.pick(sizes)).join(
    random.pick([",", ",", ",", "\n", ",,"]),
  );
}

function value(random: Random, key: string): string {
  if (key === "GNU.sparse.map" && !random.once(5)) return mapText(random);
  if (/path|name/.test(key)) return random.pick(names);
  if (/major|minor/.test(key)) return random.pick(["0", "1", "2", "", "01", "-1"]);
  return random.once(6) ? random.pick(names) : numberText(random);
}

/** A number field: octal, base-256, text, or too long for its width. */
function field(random: Random, width: number): Buffer {
  const number = random.pick(numbers);
  switch (random.below(5)) {
    case 0:
      return base256(number, width);
    case 1:
      return random.bytes(width);
    case 2:
      return Buffer.from(
        random
          .pick(["", " ", "8", "-1", "7".repeat(width), "0x1f", "1 2", "\x80", "\xff"])
          .padEnd(width, "\0"),
        "latin1",
      );
    default:
      return number >= 0 ? octal(Number(number), width) : base256(number, width);
  }
}

function put(header: Buffer, at: number, width: number, bytes: Buffer): void {
  header.fill(0, at, at + width);
  bytes.copy(header, at, 0, width);
}

function mutateHeader(random: Random, member: Member): void {
  const { header } = member;
  const text = (width: number): Buffer => Buffer.from(random.pick(names), "latin1").subarray(0, width);
  const places: (() => void)[] = [
    () => put(header, 0, 100, text(100)),
    () => put(header, 157, 100, text(100)),
    () => put(header, 345, 155, text(155)),
    () => void header.write(random.pick(Array.from(types)), 156, "latin1"),
    () => put(header, 124, 12, field(random, 12)),
    () => put(header, 136, 12, field(random, 12)),
    () => put(header, random.pick([100, 108, 116, 329, 337]), 8, field(random, 8)),
    () =>
      put(
        header,
        257,
        8,
        Buffer.from(random.pick(["ustar\x0000", "ustar  \0", "", "ustar\x0001"]), "latin1"),
      ),
    // The map of the old sparse form, its flag and its size.
    () => put(header, 386 + 12 * random.below(8), 12, field(random, 12)),
    () => put(header, random.pick([482, 483]), random.pick([1, 12]), field(random, 12)),
    () => mutateBytes(random, header).copy(header, 0, 0, 512),
  ];
  random.pick(places)();
  if (!random.once(20)) checksummed(header);
}

function mutatePax(random: Random, member: Member): void {
  const size = Number.parseInt(member.header.toString("latin1", 124, 136), 8) || 0;
  const text = member.body.toString("latin1", 0, size);
  const records: [string, Buffer][] = [];
  for (let at = 0; at < text.length; ) {
    const [, length, key] = /^(\d+) ([^=]*)=/.exec(text.slice(at)) ?? [];
    if (length === undefined || key === undefined || Number(length) === 0) break;
    records.push([
      key,
      Buffer.from(text.slice(at + length.length + key.length + 2, at + Number(length) - 1), "latin1"),
    ]);
    at += Number(length);
  }
  const at = random.below(records.length);
  const key = random.pick(keys);
  const made: [string, Buffer] = [key, Buffer.from(value(random, key), "latin1")];
  switch (random.below(5)) {
    case 0:
      records.splice(at, 1);
      break;
    case 1:
      if (records[at] !== undefined)
        records[at] = [records[at][0], Buffer.from(value(random, records[at][0]), "latin1")];
      break;
    case 2:
      records.splice(at, 0, records.at(-1) ?? made);
      break;
    default:
      records.splice(at, 0, made);
  }
  let body = paxRecords(records);
  if (random.once(6)) body = mutateBytes(random, body);
  setBody(member, body);
}

function setBody(member: Member, body: Buffer): void {
  member.body = padded(body);
  put(member.header, 124, 12, octal(body.length, 12));
  checksummed(member.header);
}

function mutateMembers(random: Random, members: Member[], others: readonly Member[]): void {
  const at = random.below(members.length);
  const member = members[at];
  if (member === undefined) return;
  const flag = String.fromCharCode(member.header[156] as number);
  switch (random.below(12)) {
    case 0:
      members.splice(at, 1);
      return;
    case 1:
      members.splice(at, 0, copyOf(random.pick(members)));
      return;
    case 2:
      members.splice(at, 0, copyOf(random.pick(others)));
      return;
    case 3: {
      const to = random.below(members.length);
      [members[at], members[to]] = [members[to] as Member, member];
      return;
    }
    case 4:
      // A body of another length than its header says.
      member.body = mutateBytes(random, member.body);
      return;
    case 5:
    case 6:
    case 7:
      if (flag === "x" || flag === "g") mutatePax(random, member);
      else if (flag === "L" || flag === "K") setBody(member, Buffer.from(random.pick(names), "latin1"));
      else {
        const key = random.pick(keys);
        const records = paxRecords([[key, Buffer.from(value(random, key), "latin1")]]);
        const header = Buffer.alloc(512);
        header.write(random.pick(["x", "x", "x", "g", "X"]), 156, "latin1");
        const made: Member = { header, body: records };
        setBody(made, records);
        members.splice(at, 0, made);
      }
      return;
    default:
      mutateHeader(random, member);
  }
}

const copyOf = ({ header, body }: Member): Member => ({
  header: Buffer.from(header),
  body: Buffer.from(body),
});

/** A changed copy of an archive. */
export function mutateTar(random: Random, tar: Buffer, other: Buffer): Buffer {
  if (random.once(5)) return mutateBytes(random, tar, other);
  const members = membersOf(tar);
  const others = membersOf(other);
  for (let i = random.pick([1, 1, 1, 2, 3, 5]); i > 0; i--) mutateMembers(random, members, others);
  const end = Buffer.alloc(random.pick([1024, 1024, 1024, 512, 0]));
  const whole = Buffer.concat([...members.flatMap(({ header, body }) => [header, body]), end]);
  return random.once(12) ? mutateBytes(random, whole, other) : whole;
}
