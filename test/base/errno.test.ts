import { readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { Errno, errnoName, FsError, fsError, toErrno } from "../../src/base/errno.js";

describe("errno", () => {
  it("has Linux's numbers, also those Node does not list", () => {
    expect([Errno.EPERM, Errno.EAGAIN, Errno.ENODATA, Errno.EUCLEAN, Errno.EDQUOT]).toEqual([
      1, 11, 61, 117, 122,
    ]);
  });

  it("names a number by its canonical name", () => {
    expect([errnoName(11), errnoName(95), errnoName(4000)]).toEqual(["EAGAIN", "EOPNOTSUPP", "errno 4000"]);
  });
});

describe("toErrno", () => {
  const unknown: unknown[] = [];
  const map = (cause: unknown): number => toErrno(cause, (seen) => unknown.push(seen));

  it("keeps the errno of our errors and of Node's", () => {
    expect(map(fsError("ENOTEMPTY", "x"))).toBe(39);
    let thrown: unknown;
    try {
      readdirSync("/nonexistent");
    } catch (cause) {
      thrown = cause;
    }
    expect(map(thrown)).toBe(2);
    expect(unknown).toEqual([]);
  });

  it("makes anything else EIO and tells of it", () => {
    const bug = new TypeError("a bug");
    expect(map(bug)).toBe(5);
    expect(unknown).toEqual([bug]);
  });

  it("is named in the message", () => {
    expect(new FsError(28, "write x").message).toBe("write x: ENOSPC");
  });
});
