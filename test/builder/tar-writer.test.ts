// The tar writer against the reader: any member comes back as it was. What other programs make of it is in e2e.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { nameOf } from "../../src/base/bytes.js";
import type { MemberType, TarMember } from "../../src/builder/tar/member.js";
import { TarReader } from "../../src/builder/tar/reader.js";
import { dataPadding, encodeMember, endOfArchive } from "../../src/builder/tar/writer.js";

interface Said {
  readonly member: TarMember;
  /** Bytes, and lengths of holes. */
  readonly body: Array<Buffer | number>;
}

function read(archive: Buffer): Said[] {
  const said: Said[] = [];
  const reader = new TarReader({
    member: (member) => said.push({ member, body: [] }),
    body: (bytes) => (said.at(-1) as Said).body.push(Buffer.from(bytes)),
    hole: (length) => (said.at(-1) as Said).body.push(length),
    end: () => {},
  });
  reader.write(archive);
  reader.finish();
  return said;
}

const bytes = (min: number, max: number): fc.Arbitrary<Buffer> =>
  fc
    .array(fc.integer({ min: 1, max: 255 }), { minLength: min, maxLength: max })
    .map((list) => Buffer.from(list));
const id = fc.oneof(fc.nat(70000), fc.integer({ min: 0, max: 0xffff_fffe }));
const types: readonly MemberType[] = ["file", "link", "symlink", "char", "block", "directory", "fifo"];

const member = fc
  .record({
    type: fc.constantFrom(...types),
    path: fc.oneof(bytes(1, 30), bytes(95, 105), bytes(200, 4000)),
    target: fc.oneof(bytes(1, 30), bytes(95, 105), bytes(200, 4000)),
    mode: fc.integer({ min: 0, max: 0o7777 }),
    uid: id,
    gid: id,
    mtimeSec: fc.oneof(fc.integer({ min: -(2 ** 34), max: 2 ** 34 }), fc.integer({ min: -2, max: 2 })),
    mtimeNsec: fc.oneof(
      fc.constant(0),
      fc.integer({ min: 0, max: 999_999_999 }),
      fc.constantFrom(1, 999_999_999),
    ),
    devMajor: fc.nat(0xfff),
    devMinor: fc.nat(0xfffff),
    xattrs: fc.uniqueArray(
      fc.record({
        name: bytes(1, 250).map((name) => nameOf(name)),
        value: fc.uint8Array({ maxLength: 200 }),
      }),
      { maxLength: 3, selector: ({ name }) => name },
    ),
    literal: fc.boolean(),
  })
  .map(
    (given): TarMember => ({
      ...given,
      target: given.type === "link" || given.type === "symlink" ? given.target : Buffer.alloc(0),
      size: 0,
      devMajor: given.type === "char" || given.type === "block" ? given.devMajor : 0,
      devMinor: given.type === "char" || given.type === "block" ? given.devMinor : 0,
      xattrs: given.xattrs
        .map(({ name, value }) => ({ name, value: Buffer.from(value) }))
        .sort((a, b) => (a.name < b.name ? -1 : 1)),
    }),
  );

const sorted = (given: TarMember): TarMember => ({
  ...given,
  xattrs: [...given.xattrs].sort((a, b) => (a.name < b.name ? -1 : 1)),
});

describe("the tar writer", () => {
  it("gives members that are read back as they were", () => {
    fc.assert(
      fc.property(fc.array(member, { maxLength: 4 }), (members) => {
        const archive = Buffer.concat([...members.map((given) => encodeMember(given)), endOfArchive]);
        expect(read(archive).map((said) => sorted(said.member))).toEqual(members);
      }),
      { numRuns: 300 },
    );
  });

  it("gives data and holes that are read back as they were", () => {
    const piece = fc.record({
      hole: fc.integer({ min: 1, max: 5000 }),
      data: fc.uint8Array({ minLength: 1, maxLength: 1500 }),
    });
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 5 }), fc.nat(3000), fc.boolean(), (list, tail, lead) => {
        const pieces: number[] = [];
        const data: Buffer[] = [];
        const body: Array<Buffer | number> = [];
        let size = 0;
        list.forEach(({ hole, data: own }, i) => {
          if (i > 0 || lead) {
            body.push(hole);
            size += hole;
          }
          pieces.push(size, own.length);
          data.push(Buffer.from(own));
          body.push(Buffer.from(own));
          size += own.length;
        });
        if (tail > 0) {
          body.push(tail);
          size += tail;
          pieces.push(size, 0);
        }
        const given: TarMember = {
          type: "file",
          path: Buffer.from("some/sparse"),
          target: Buffer.alloc(0),
          mode: 0o600,
          uid: 1,
          gid: 2,
          size,
          mtimeSec: 3,
          mtimeNsec: 4,
          devMajor: 0,
          devMinor: 0,
          xattrs: [],
          literal: false,
        };
        const stored = Buffer.concat(data);
        const archive = [encodeMember(given, pieces), stored, dataPadding(stored.length), endOfArchive];
        const [said] = read(Buffer.concat(archive)) as [Said];
        expect(said.member).toEqual(given);
        expect(said.body).toEqual(body);
      }),
      { numRuns: 200 },
    );
  });

  it("writes an attribute's value byte for byte, also when its name holds what ends a key", () => {
    const value = Buffer.from("0100000200240000000a3d00ff0000000000ffff", "hex");
    const names = ["security.capability", "user.a=b", "user.100%", "user.%3D"].map((name) =>
      nameOf(Buffer.from(name)),
    );
    const given: TarMember = {
      type: "file",
      path: Buffer.from("f"),
      target: Buffer.alloc(0),
      mode: 0o755,
      uid: 0,
      gid: 0,
      size: 0,
      mtimeSec: 0,
      mtimeNsec: 0,
      devMajor: 0,
      devMinor: 0,
      xattrs: names.map((name) => ({ name, value })),
      literal: false,
    };
    const [said] = read(Buffer.concat([encodeMember(given), endOfArchive])) as [Said];
    expect(new Map(said.member.xattrs.map((xattr) => [xattr.name, xattr.value]))).toEqual(
      new Map(names.map((name) => [name, value])),
    );
  });
});
