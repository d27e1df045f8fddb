// Downloads that outlive who began them.
import { type ChildProcess, spawn } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { type Digest, sha256 } from "../../src/base/digest.js";
import { type Ingest, IngestError } from "../../src/oci/ingest.js";
import { type IngestHost, Ingests } from "../../src/oci/ingests.js";
import { flockFd, LOCK_EX, LOCK_NB } from "../../src/sys/files.js";
import { noise } from "../e2e/make-image.js";
import { noCommand, shell, titleOf } from "../e2e/mounted.js";

const host: IngestHost = {
  wait: (fd) => void flockFd(fd, LOCK_EX),
  take: (fd) => flockFd(fd, LOCK_EX | LOCK_NB) === 0,
  announce: () => {},
};

const root = mkdtempSync(join(tmpdir(), "imgfs-ingest-"));
const children: ChildProcess[] = [];
afterAll(() => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(root, { recursive: true, force: true });
});

let folder: string;
let ingests: Ingests;
let serial = 0;
beforeEach(() => {
  folder = join(root, `${serial++}`);
  ingests = new Ingests(join(folder, "ingests"), host);
});

const bytes = noise(3_000_000);
const digest: Digest = sha256(bytes);
const other: Digest = sha256(Buffer.from("other"));
const total = bytes.length;
/** Names in the folder but the lock. */
const left = (): string[] => readdirSync(ingests.folder).filter((name) => name !== "lock");
const nothing = (): void => {};

async function kindOf(doing: () => unknown): Promise<string> {
  try {
    await doing();
  } catch (cause) {
    expect(cause).toBeInstanceOf(IngestError);
    expect((cause as IngestError).message).toMatch(/^ingest "[^\n]+$/);
    return (cause as IngestError).kind;
  }
  return "done";
}

/** An ingest of which the first bytes have come, in pieces of all sizes, and are on disk. */
async function begun(ref: string, length: number, wish = { total, expected: digest }): Promise<Ingest> {
  const ingest = ingests.open(ref, wish);
  await add(ingest, bytes.subarray(0, length));
  return ingest;
}

async function add(ingest: Ingest, rest: Uint8Array): Promise<void> {
  for (let at = 0, size = 1; at < rest.length; at += size, size = size * 3 + 1) {
    const piece = Buffer.from(rest.subarray(at, at + size));
    await ingest.write(piece);
    // It was taken by copy.
    piece.fill(0);
  }
  await ingest.flush();
}

async function arrived(ingest: Ingest): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of ingest.arrived()) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

describe("an ingest", () => {
  it("tells how far it is, and ends when it is whole", async () => {
    const before = Date.now();
    const ingest = await begun("layer/1", 1000);
    expect(ingests.status("layer/1")).toEqual({
      ref: "layer/1",
      offset: 1000,
      total,
      expected: digest,
      startedAt: expect.any(Date),
      updatedAt: expect.any(Date),
      isActive: true,
    });
    expect(ingests.status("layer/1")?.startedAt.getTime()).toBeGreaterThanOrEqual(before);
    expect(ingests.status("another")).toBeUndefined();
    await add(ingest, bytes.subarray(1000));
    expect((await arrived(ingest)).equals(bytes)).toBe(true);
    let there: string[] = [];
    ingest.commit(digest, () => {
      there = left();
    });
    expect(there).toEqual([sha256(Buffer.from("layer/1")).slice("sha256:".length)]);
    expect([ingests.list(), left()]).toEqual([[], []]);
    expect(statSync(ingests.folder).mode & 0o777).toBe(0o700);
  });

  it("goes on where it stopped", async () => {
    (await begun("a", 2_100_000)).close();
    expect(ingests.status("a")).toMatchObject({ offset: 2_100_000, isActive: false });
    const again = ingests.open("a");
    expect([again.offset, again.total]).toEqual([2_100_000, total]);
    expect((await arrived(again)).equals(bytes.subarray(0, 2_100_000))).toBe(true);
    await add(again, bytes.subarray(2_100_000));
    expect((await arrived(again)).equals(bytes)).toBe(true);
    again.commit(digest, nothing);
    expect(left()).toEqual([]);
  });

  it("has one writer", async () => {
    const ingest = await begun("a", 10);
    expect(await kindOf(() => ingests.open("a"))).toBe("unavailable");
    expect(await kindOf(() => ingests.open("a", { total: 5 }))).toBe("unavailable");
    const second = ingests.open("b");
    expect(ingests.list().map(({ ref, isActive }) => [ref, isActive])).toEqual([
      ["a", true],
      ["b", true],
    ]);
    ingest.close();
    second.close();
    ingests.open("a").close();
  });

  it("is committed with the expected size and digest only, and stays otherwise", async () => {
    const published: string[] = [];
    const publish = (): void => void published.push("published");
    const short = await begun("a", total - 1);
    expect(await kindOf(() => short.commit(digest, publish))).toBe("mismatch");
    const wrong = ingests.open("b", { expected: digest });
    await add(wrong, Buffer.from("something else"));
    expect(await kindOf(() => wrong.commit(other, publish))).toBe("mismatch");
    expect(published).toEqual([]);
    expect(ingests.list().map(({ ref, offset, isActive }) => [ref, offset, isActive])).toEqual([
      ["a", total - 1, false],
      ["b", 14, false],
    ]);
    const behind = ingests.open("c");
    await behind.write(Buffer.from("x"));
    expect(await kindOf(() => behind.commit(digest, publish))).toBe("failed");
    const more = await begun("d", total);
    expect(await kindOf(() => add(more, Buffer.from("x")))).toBe("mismatch");
    expect(await kindOf(() => more.write(Buffer.from("x")))).toBe("mismatch");
    behind.close();
    expect(await kindOf(() => behind.write(Buffer.from("x")))).toBe("failed");
    expect(published).toEqual([]);
    const free = ingests.open("e");
    await add(free, bytes);
    free.commit(digest, publish);
    expect(published).toEqual(["published"]);
  });

  it("stays where what was made of it cannot get its name", async () => {
    const ingest = await begun("a", total);
    const failed = (): void => {
      throw new Error("no name");
    };
    expect(() => ingest.commit(digest, failed)).toThrow("no name");
    expect(ingests.status("a")).toMatchObject({ offset: total, isActive: false });
  });

  it("begins anew where another size or digest is wished for, or what is noted was damaged", async () => {
    (await begun("a", 1000)).close();
    const shorter = ingests.open("a", { total: 5 });
    expect([shorter.offset, shorter.total]).toEqual([0, 5]);
    shorter.close();
    (await begun("b", 1000)).close();
    const [name = ""] = left().filter((one) => one === sha256(Buffer.from("b")).slice(7));
    writeFileSync(join(ingests.folder, name, "ingest.json"), "");
    expect(ingests.status("b")).toBeUndefined();
    const anew = ingests.open("b", { total });
    expect(anew.offset).toBe(0);
    anew.close();
    // More than there can be, as after a crash of the machine.
    truncateSync(join(ingests.folder, name, "data"), 2 * total);
    const longer = ingests.open("b");
    expect(longer.offset).toBe(0);
    longer.close();
  });

  it("is aborted on demand, under its writer too, and never commits what is another's", async () => {
    const ingest = await begun("a", total);
    ingests.abort("a");
    expect([ingests.list(), left()]).toEqual([[], []]);
    expect(await kindOf(() => ingest.commit(digest, nothing))).toBe("absent");
    const old = await begun("a", total);
    ingests.abort("a");
    const anew = await begun("a", 10);
    expect(await kindOf(() => old.commit(digest, nothing))).toBe("absent");
    expect(ingests.status("a")).toMatchObject({ offset: 10, isActive: true });
    ingests.abort("a");
    expect(await kindOf(() => add(anew, bytes.subarray(10)))).toBe("absent");
    expect(await kindOf(() => ingests.abort("a"))).toBe("absent");
  });

  it("expires when nobody is at it and nothing came for long", async () => {
    const long = new Date(Date.now() - 3_600_000);
    const at = await begun("at", 5);
    for (const ref of ["old", "new"]) (await begun(ref, 5)).close();
    for (const ref of ["at", "old"]) {
      utimesSync(join(ingests.folder, sha256(Buffer.from(ref)).slice(7), "data"), long, long);
    }
    writeFileSync(join(ingests.folder, "something"), "else");
    ingests.expire(new Date(Date.now() - 60_000));
    expect(ingests.list().map(({ ref }) => ref)).toEqual(["at", "new"]);
    expect(left()).toHaveLength(2);
    at.close();
  });

  it("has any ref, and no path of it", async () => {
    for (const ref of ["../../etc/passwd", "a\0b", "ref with spaces\n", "x".repeat(4096), "."]) {
      ingests.open(ref).close();
      expect(ingests.status(ref)?.ref).toBe(ref);
    }
    expect(left().every((name) => /^[0-9a-f]{64}$/.test(name))).toBe(true);
    for (const ref of ["", "x".repeat(4097)]) expect(await kindOf(() => ingests.open(ref))).toBe("failed");
  });

  it("follows no symlink that was planted", async () => {
    const outside = join(folder, "outside");
    mkdirSync(outside);
    writeFileSync(join(outside, "data"), "precious");
    (await begun("a", 5)).close();
    const path = join(ingests.folder, left()[0] as string);
    for (const name of ["data", "ingest.json"]) {
      rmSync(join(path, name));
      symlinkSync(join(outside, "data"), join(path, name));
      expect(ingests.list()).toEqual([]);
      (await begun("a", 7)).close();
      expect(ingests.status("a")?.offset).toBe(7);
    }
    rmSync(path, { recursive: true });
    symlinkSync(outside, path);
    expect(ingests.list()).toEqual([]);
    ingests.abort("a");
    symlinkSync(outside, path);
    ingests.expire(new Date(0));
    expect(left()).toEqual([]);
    rmSync(join(ingests.folder, "lock"));
    symlinkSync(join(outside, "lock"), join(ingests.folder, "lock"));
    expect(() => ingests.list()).toThrow(/ELOOP/);
    expect(readdirSync(outside)).toEqual(["data"]);
    expect(readFileSync(join(outside, "data"), "utf8")).toBe("precious");
  });

  it("leaves nothing of a step that was not finished", async () => {
    mkdirSync(join(ingests.folder, ".new-0123456789ab"));
    writeFileSync(join(ingests.folder, ".new-0123456789ab/data"), "x");
    expect(ingests.list()).toEqual([]);
    expect(left()).toEqual([]);
  });

  it.runIf(process.getuid?.() === 0)("keeps what fits on a full disk", async () => {
    const small = join(folder, "small");
    mkdirSync(small);
    await shell(`mount -t tmpfs -o size=2m tmpfs '${small}'`);
    try {
      const tight = new Ingests(join(small, "ingests"), host);
      const ingest = tight.open("a", { total, expected: digest });
      const cause = await add(ingest, bytes).catch((reason: unknown) => reason);
      expect(cause).toMatchObject({ kind: "failed", message: 'ingest "a": no space left' });
      const offset = tight.status("a")?.offset ?? 0;
      expect(offset).toBeGreaterThan(0);
      await shell(`mount -o remount,size=8m '${small}'`);
      const again = tight.open("a");
      expect(again.offset).toBe(offset);
      await add(again, bytes.subarray(offset));
      expect((await arrived(again)).equals(bytes)).toBe(true);
      again.close();
    } finally {
      await shell(`umount '${small}'`);
    }
  });
});

describe.skipIf(noCommand)(titleOf("an ingest of a process that was killed", noCommand), () => {
  it("is taken over by the next one, and locked until then", async () => {
    const dist = resolve(import.meta.dirname, "../../dist");
    const script = `
      import { Ingests } from ${JSON.stringify(join(dist, "oci/ingests.js"))};
      import { flockFd } from ${JSON.stringify(join(dist, "sys/files.js"))};
      const host = { wait: (fd) => flockFd(fd, 2), take: (fd) => flockFd(fd, 6) === 0, announce: () => {} };
      const ingest = new Ingests(process.argv[1], host).open("a", { total: ${total}, expected: "${digest}" });
      await ingest.write(Buffer.from(process.argv[2], "base64"));
      await ingest.flush();
      console.log("written");
      setInterval(() => {}, 1000);`;
    const part = bytes.subarray(0, 50_000).toString("base64");
    const child = spawn(process.execPath, ["--input-type=module", "-e", script, ingests.folder, part], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    children.push(child);
    await new Promise((written) => child.stdout.once("data", written));
    expect(ingests.status("a")).toMatchObject({ offset: 50_000, isActive: true });
    expect(await kindOf(() => ingests.open("a"))).toBe("unavailable");
    const gone = new Promise((done) => child.once("exit", done));
    child.kill("SIGKILL");
    await gone;
    expect(ingests.status("a")).toMatchObject({ offset: 50_000, isActive: false });
    const ingest = ingests.open("a");
    expect((await arrived(ingest)).equals(bytes.subarray(0, 50_000))).toBe(true);
    ingest.close();
  });
});
