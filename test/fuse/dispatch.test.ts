// The dispatcher on messages made by hand: well-formed, short, hostile. No mount.
import { describe, expect, it } from "vitest";
import { Errno, fsError } from "../../src/base/errno.js";
import { nullLogger } from "../../src/base/log.js";
import { EntryOut, InHeader, InitBit, InitOut, Op, OutHeader } from "../../src/fuse/abi.js";
import { Counters, createCounterMemory } from "../../src/fuse/counters.js";
import { Dispatcher } from "../../src/fuse/dispatch.js";
import { negotiate } from "../../src/fuse/init.js";
import { type FileSystem, type Status, SUSPENDED } from "../../src/fuse/operations.js";
import { Exchange } from "../../src/fuse/wire.js";
import { regionAt } from "../../src/sys/memory.js";

const UNIQUE = 0x1_0000_0002;

function message(opcode: number, ...body: readonly Uint8Array[]): Uint8Array {
  const payload = Buffer.concat(body);
  const bytes = Buffer.alloc(InHeader.byteLength + payload.length);
  bytes.writeUInt32LE(bytes.length, InHeader.len);
  bytes.writeUInt32LE(opcode, InHeader.opcode);
  bytes.writeBigUInt64LE(BigInt(UNIQUE), InHeader.unique);
  bytes.writeBigUInt64LE(7n, InHeader.nodeid);
  bytes.set(payload, InHeader.byteLength);
  return bytes;
}

const words = (...values: readonly number[]): Buffer =>
  Buffer.concat(
    values.map((value) => {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32LE(value >>> 0);
      return bytes;
    }),
  );

const base: FileSystem = { lookup: () => 0, forget: () => {}, getattr: () => 0 };

/** A filesystem with every operation, all answered by `answer`. */
function everything(answer: () => Status): FileSystem {
  return new Proxy(base, { get: () => answer });
}

class Bench {
  readonly x = new Exchange(1 << 20);
  readonly counters = new Counters(createCounterMemory());
  readonly dispatcher: Dispatcher;

  constructor(fs: FileSystem) {
    this.dispatcher = new Dispatcher(this.x, fs, this.counters, nullLogger);
  }

  /** The reply's bytes, empty for none. */
  send(bytes: Uint8Array): Buffer {
    expect(this.x.load(this.x.restore(bytes))).toBe(true);
    const length = this.dispatcher.handle();
    return Buffer.from(regionAt(this.x.outAddress, Math.max(length, 16)).bytes.slice(0, length));
  }

  errno(bytes: Uint8Array): number {
    return this.send(bytes).readInt32LE(OutHeader.error);
  }
}

describe("dispatch", () => {
  it("answers with the request's 64-bit number and the length of the whole reply", () => {
    const bench = new Bench({
      ...base,
      lookup: (q, name, out) => {
        expect(q.nodeid).toBe(7);
        expect(Buffer.from(name.bytes.subarray(name.start, name.end)).toString()).toBe("name");
        out.nodeid = 2 ** 40 + 5;
        out.attr.mtimeSec = -5;
        return 0;
      },
    });
    const reply = bench.send(message(Op.LOOKUP, Buffer.from("name\0")));
    expect(reply.length).toBe(OutHeader.byteLength + EntryOut.byteLength);
    expect(reply.readUInt32LE(0)).toBe(reply.length);
    expect(reply.readBigUInt64LE(OutHeader.unique)).toBe(BigInt(UNIQUE));
    expect(reply.readBigUInt64LE(16)).toBe(2n ** 40n + 5n);
    expect(reply.readBigUInt64LE(16 + EntryOut.entryValid)).toBe(0x7fff_ffffn);
    expect(reply.readBigInt64LE(16 + EntryOut.attr + 32)).toBe(-5n);
  });

  it("answers ENOSYS to unknown opcodes and to operations the filesystem leaves out", () => {
    const bench = new Bench(base);
    for (const opcode of [Op.OPEN, Op.POLL, Op.BMAP, Op.SETLKW, Op.IOCTL, 4096, 0xffff_ffff, 0]) {
      expect(bench.errno(message(opcode, Buffer.alloc(128)))).toBe(-Errno.ENOSYS);
    }
  });

  it("maps what an operation throws: FsError to its errno, anything else to EIO", () => {
    const thrown: unknown[] = [fsError("EDQUOT"), new TypeError("bug"), "text"];
    const bench = new Bench({
      ...base,
      getattr: () => {
        throw thrown.shift();
      },
    });
    const codes = [1, 2, 3].map(() => bench.errno(message(Op.GETATTR, Buffer.alloc(16))));
    expect(codes).toEqual([-Errno.EDQUOT, -Errno.EIO, -Errno.EIO]);
    for (let i = 0; i < 4; i++) bench.counters.request(Op.GETATTR);
    expect(bench.counters.report()).toEqual([{ opcode: "GETATTR", requests: 4, errors: 3 }]);
  });

  it("never passes on a status the kernel would refuse as an errno", () => {
    const bench = new Bench({ ...base, getattr: () => -5000 });
    expect(bench.errno(message(Op.GETATTR, Buffer.alloc(16)))).toBe(-Errno.EIO);
  });

  it("leaves suspended and forgotten requests without a reply, also when forget throws", () => {
    const bench = new Bench({
      ...base,
      getattr: () => SUSPENDED,
      forget: () => {
        throw new Error("bug");
      },
    });
    expect(bench.send(message(Op.GETATTR, Buffer.alloc(16))).length).toBe(0);
    expect(bench.send(message(Op.FORGET, Buffer.alloc(8))).length).toBe(0);
    expect(bench.send(message(Op.FORGET)).length).toBe(0);
    expect(bench.send(message(Op.BATCH_FORGET, words(99, 0), Buffer.alloc(16))).length).toBe(0);
  });

  it("forgets each inode of a batch, and no more than the message holds", () => {
    const forgotten: number[][] = [];
    const bench = new Bench({ ...base, forget: (nodeid, count) => void forgotten.push([nodeid, count]) });
    bench.send(message(Op.BATCH_FORGET, words(5, 0), words(9, 0, 2, 0), words(8, 0, 1, 0)));
    expect(forgotten).toEqual([
      [9, 2],
      [8, 1],
    ]);
  });

  it("refuses names that are missing, unterminated, empty or longer than 255 bytes", () => {
    const bench = new Bench(everything(() => 0));
    const long = Buffer.from(`${"x".repeat(256)}\0`);
    expect(bench.errno(message(Op.LOOKUP))).toBe(-Errno.EINVAL);
    expect(bench.errno(message(Op.LOOKUP, Buffer.from("abc")))).toBe(-Errno.EINVAL);
    expect(bench.errno(message(Op.LOOKUP, Buffer.from("\0")))).toBe(-Errno.EINVAL);
    expect(bench.errno(message(Op.LOOKUP, long))).toBe(-Errno.ENAMETOOLONG);
    expect(bench.errno(message(Op.LOOKUP, Buffer.from(`${"x".repeat(255)}\0`)))).toBe(0);
    expect(bench.errno(message(Op.RENAME, Buffer.alloc(8), Buffer.from("a\0"), long))).toBe(
      -Errno.ENAMETOOLONG,
    );
    expect(bench.errno(message(Op.RENAME, Buffer.alloc(8), Buffer.from("a\0")))).toBe(-Errno.EINVAL);
    // A symlink's target is no name.
    expect(bench.errno(message(Op.SYMLINK, Buffer.from("a\0"), long))).toBe(0);
  });

  it("refuses payloads longer than their message", () => {
    const bench = new Bench(everything(() => 0));
    const write = Buffer.alloc(40);
    write.writeUInt32LE(4096, 16);
    expect(bench.errno(message(Op.WRITE, write, Buffer.alloc(100)))).toBe(-Errno.EINVAL);
    expect(bench.errno(message(Op.SETXATTR, words(100, 0), Buffer.from("user.a\0short")))).toBe(
      -Errno.EINVAL,
    );
  });

  it("survives short and random bodies of every opcode with exactly one sound reply each", () => {
    const bench = new Bench(everything(() => 0));
    let seed = 1;
    const random = (): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return seed >>> 16;
    };
    for (let round = 0; round < 20_000; round++) {
      const opcode = random() % 60;
      const body = Buffer.from(
        Array.from({ length: random() % 120 }, () => (random() % 3 === 0 ? 0 : random())),
      );
      const reply = bench.send(message(opcode, body));
      if (opcode === Op.FORGET || opcode === Op.BATCH_FORGET) expect(reply.length).toBe(0);
      else {
        const error = reply.readInt32LE(OutHeader.error);
        expect(reply.readUInt32LE(0)).toBe(reply.length);
        expect(error > -512 && error <= 0).toBe(true);
      }
    }
  });

  it("takes back the lookups of a reply that the kernel did not take", () => {
    const forgotten: number[] = [];
    const name = Buffer.from("abc");
    const bench = new Bench({
      ...base,
      forget: (nodeid) => void forgotten.push(nodeid),
      lookup: (_, __, out) => {
        out.nodeid = 9;
        return 0;
      },
      readdir: (_, __, ___, sink) => {
        for (const [index, text] of [".", "..", "abc", "abcdefgh"].entries()) {
          sink.entry.nodeid = 20 + index;
          sink.add(Buffer.from(text), 0, text.length, 4, 1, index + 1);
        }
        return 0;
      },
    });
    bench.send(message(Op.LOOKUP, name, Buffer.alloc(1)));
    bench.dispatcher.undo();
    const read = Buffer.alloc(40);
    read.writeUInt32LE(4096, 16);
    bench.send(message(Op.READDIRPLUS, read));
    bench.dispatcher.undo();
    expect(forgotten).toEqual([9, 22, 23]);
  });

  it("stops a listing at the size asked for", () => {
    const added: boolean[] = [];
    const bench = new Bench({
      ...base,
      readdir: (_, __, ___, sink) => {
        for (let i = 0; i < 4; i++) added.push(sink.add(Buffer.from("12345678"), 0, 8, 8, i, i + 1));
        return 0;
      },
    });
    const read = Buffer.alloc(40);
    read.writeUInt32LE(100, 16);
    expect(bench.send(message(Op.READDIR, read)).length).toBe(16 + 96);
    expect(added).toEqual([true, true, true, false]);
  });
});

describe("INIT", () => {
  const init = (major: number, minor: number, flags: number, flags2 = 0): Buffer =>
    Buffer.concat([words(major, minor, 131072, flags, flags2), Buffer.alloc(44)]);

  function answer(fs: FileSystem, body: Uint8Array): ReturnType<typeof negotiate> & { out: Buffer } {
    const x = new Exchange(1 << 20);
    x.load(x.restore(message(Op.INIT, body)));
    const outcome = negotiate(x, fs, { readdirplus: "auto" });
    const length = x.seal(outcome.reply);
    return { ...outcome, out: Buffer.from(regionAt(x.outAddress, 80).bytes.slice(16, Math.max(length, 16))) };
  }

  it("agrees on what both sides want and nothing else", () => {
    const offered = (1 << InitBit.ASYNC_READ) | (1 << InitBit.POSIX_LOCKS) | (1 << InitBit.MAX_PAGES);
    const { kind, out } = answer(base, init(7, 31, offered));
    expect(kind).toBe("agreed");
    expect(out.readUInt32LE(InitOut.flags)).toBe((1 << InitBit.ASYNC_READ) | (1 << InitBit.MAX_PAGES));
    expect(out.readUInt32LE(InitOut.minor)).toBe(31);
    expect(out.readUInt32LE(InitOut.maxWrite)).toBe(1 << 20);
    expect(out.readUInt16LE(InitOut.maxPages)).toBe(256);
  });

  it("never takes locks, writeback or passthrough, whatever is offered", () => {
    const outcome = answer(
      everything(() => 0),
      init(7, 45, 0xffff_ffff, 0xffff_ffff),
    );
    if (outcome.kind !== "agreed") throw new Error(outcome.kind);
    for (const flag of [
      "POSIX_LOCKS",
      "FLOCK_LOCKS",
      "WRITEBACK_CACHE",
      "PASSTHROUGH",
      "AUTO_INVAL_DATA",
    ] as const) {
      expect((outcome.info.flags >> BigInt(InitBit[flag])) & 1n).toBe(0n);
    }
  });

  it("asks for ACLs together with the unmasked mode, when the filesystem says so", () => {
    const outcome = answer({ ...base, features: { posixAcl: true } }, init(7, 45, 0xffff_ffff));
    if (outcome.kind !== "agreed") throw new Error(outcome.kind);
    expect((outcome.info.flags >> BigInt(InitBit.POSIX_ACL)) & 1n).toBe(1n);
    expect((outcome.info.flags >> BigInt(InitBit.DONT_MASK)) & 1n).toBe(1n);
  });

  it("refuses a kernel older than 7.31 in words, and asks a newer major version again", () => {
    const old = answer(base, init(7, 30, 0));
    expect(old.kind === "refused" && old.reason).toMatch(/7\.30.*7\.31 is needed/);
    const newer = answer(base, init(8, 0, 0));
    expect(newer.kind).toBe("again");
    expect(newer.out.readUInt32LE(InitOut.major)).toBe(7);
  });
});
