// Downloads that outlive who began them.
import { type ChildProcess, spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { type Digest, sha256 } from "../../src/base/digest.js";
import { type Ingest, IngestError, receive } from "../../src/oci/ingest.js";
import { type FileLocks, Ingests } from "../../src/oci/ingests.js";
import { openSource } from "../../src/oci/open.js";
import type { RemoteBytes } from "../../src/oci/source.js";
import { flockFd, LOCK_EX, LOCK_NB } from "../../src/sys/files.js";
import { noise } from "../e2e/make-image.js";
import { noCommand, shell, titleOf } from "../e2e/mounted.js";
import { Layout } from "../fixtures/oci.js";
import { file, tar } from "../fixtures/tar.js";
import { environment, quick } from "./registry/pull.js";
import { cannotServe, push, serveRegistry } from "./registry/serve.js";
import { troubled } from "./registry/trouble.js";

const locks: FileLocks = {
  wait: (fd) => void flockFd(fd, LOCK_EX),
  take: (fd) => flockFd(fd, LOCK_EX | LOCK_NB) === 0,
};

const root = mkdtempSync(join(tmpdir(), "imgfs-ingest-"));
const children: ChildProcess[] = [];
afterAll(() => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(root, { recursive: true, force: true });
});

let folder: string;
let ingests: Ingests;
let target: string;
let serial = 0;
beforeEach(() => {
  folder = join(root, `${serial++}`);
  ingests = new Ingests(join(folder, "ingests"), locks);
  target = join(folder, "blob");
});

const bytes = noise(300_000);
const digest: Digest = sha256(bytes);
const total = bytes.length;
/** Names in the folder but the lock. */
const left = (): string[] => readdirSync(ingests.folder).filter((name) => name !== "lock");

async function kindOf(doing: Promise<unknown> | (() => unknown)): Promise<string> {
  try {
    await (typeof doing === "function" ? doing() : doing);
  } catch (cause) {
    expect(cause).toBeInstanceOf(IngestError);
    expect((cause as IngestError).message).toMatch(/^ingest "[^\n]+$/);
    return (cause as IngestError).kind;
  }
  return "done";
}

async function begun(ref: string, length: number, wish = { total, expected: digest }): Promise<Ingest> {
  const ingest = await ingests.open(ref, wish);
  await ingest.write(bytes.subarray(0, length));
  return ingest;
}

describe("an ingest", () => {
  it("tells how far it is, and becomes a blob when it is whole", async () => {
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
    await ingest.write(bytes.subarray(1000));
    expect(await ingest.commit(target)).toBe(digest);
    expect(readFileSync(target).equals(bytes)).toBe(true);
    expect([ingests.list(), left()]).toEqual([[], []]);
    expect(statSync(target).mode & 0o777).toBe(0o600);
    expect(statSync(ingests.folder).mode & 0o777).toBe(0o700);
  });

  it("goes on where it stopped", async () => {
    await (await begun("a", 100_000)).close();
    expect(ingests.status("a")).toMatchObject({ offset: 100_000, isActive: false });
    const again = await ingests.open("a");
    expect([again.offset, again.total]).toEqual([100_000, total]);
    await receive(again, async function* (from) {
      yield bytes.subarray(from, from + 5);
      yield bytes.subarray(from + 5);
    });
    expect(await again.commit(target)).toBe(digest);
    expect(readFileSync(target).equals(bytes)).toBe(true);
  });

  it("has one writer", async () => {
    const ingest = await begun("a", 10);
    expect(await kindOf(ingests.open("a"))).toBe("unavailable");
    expect(await kindOf(ingests.open("a", { total: 5 }))).toBe("unavailable");
    const other = await ingests.open("b");
    expect(ingests.list().map(({ ref, isActive }) => [ref, isActive])).toEqual([
      ["a", true],
      ["b", true],
    ]);
    await ingest.close();
    await other.close();
    await (await ingests.open("a")).close();
  });

  it("is committed with the expected size and digest only, and stays otherwise", async () => {
    const short = await begun("a", total - 1);
    expect(await kindOf(short.commit(target))).toBe("mismatch");
    const wrong = await ingests.open("b", { expected: digest });
    await wrong.write(Buffer.from("something else"));
    expect(await kindOf(wrong.commit(target))).toBe("mismatch");
    expect(await kindOf((await begun("c", 5)).commit(target, { total: 6 }))).toBe("mismatch");
    expect(existsSync(target)).toBe(false);
    expect(ingests.list().map(({ ref, offset, isActive }) => [ref, offset, isActive])).toEqual([
      ["a", total - 1, false],
      ["b", 14, false],
      ["c", 5, false],
    ]);
    const more = await begun("d", total);
    expect(await kindOf(more.write(Buffer.from("x")))).toBe("mismatch");
    expect(await kindOf(more.write(Buffer.from("x")))).toBe("failed");
    const whole = await ingests.open("d");
    const by512 = `sha512:${"0".repeat(128)}` as Digest;
    expect(await kindOf(whole.commit(target, { expected: by512 }))).toBe("mismatch");
    const free = await ingests.open("e");
    await free.write(bytes);
    expect(await free.commit(target)).toBe(digest);
  });

  it("begins anew where another size or digest is wished for, or what is noted was damaged", async () => {
    await (await begun("a", 1000)).close();
    const other = await ingests.open("a", { total: 5 });
    expect([other.offset, other.total]).toEqual([0, 5]);
    await other.reset();
    await other.close();
    await (await begun("b", 1000)).close();
    const [name = ""] = left().filter((one) => one === sha256(Buffer.from("b")).slice(7));
    writeFileSync(join(ingests.folder, name, "ingest.json"), "");
    expect(ingests.status("b")).toBeUndefined();
    const anew = await ingests.open("b", { total });
    expect(anew.offset).toBe(0);
    await anew.close();
    // More than there can be, as after a crash of the machine.
    truncateSync(join(ingests.folder, name, "data"), 2 * total);
    const longer = await ingests.open("b");
    expect(longer.offset).toBe(0);
    await longer.close();
  });

  it("is aborted on demand, under its writer too, and never commits what is another's", async () => {
    const ingest = await begun("a", total);
    ingests.abort("a");
    expect([ingests.list(), left()]).toEqual([[], []]);
    expect(await kindOf(ingest.commit(target))).toBe("absent");
    const old = await begun("a", total);
    ingests.abort("a");
    const anew = await begun("a", 10);
    expect(await kindOf(old.commit(target))).toBe("absent");
    expect(existsSync(target)).toBe(false);
    expect(ingests.status("a")).toMatchObject({ offset: 10, isActive: true });
    await anew.close();
    ingests.abort("a");
    expect(await kindOf(() => ingests.abort("a"))).toBe("absent");
  });

  it("ends where the blob is there already", async () => {
    writeFileSync(target, bytes);
    expect(await kindOf((await begun("a", total)).commit(target))).toBe("exists");
    expect(left()).toEqual([]);
  });

  it("has any ref, and no path of it", async () => {
    for (const ref of ["../../etc/passwd", "a\0b", "ref with spaces\n", "x".repeat(4096), "."]) {
      await (await ingests.open(ref)).close();
      expect(ingests.status(ref)?.ref).toBe(ref);
    }
    expect(left().every((name) => /^[0-9a-f]{64}$/.test(name))).toBe(true);
    for (const ref of ["", "x".repeat(4097)]) expect(await kindOf(ingests.open(ref))).toBe("failed");
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
    await shell(`mount -t tmpfs -o size=200k tmpfs '${small}'`);
    try {
      const tight = new Ingests(join(small, "ingests"), locks);
      const ingest = await tight.open("a", { total, expected: digest });
      const cause = await ingest.write(bytes).catch((reason: unknown) => reason);
      expect(cause).toMatchObject({ kind: "failed", message: 'ingest "a": no space left' });
      const offset = tight.status("a")?.offset ?? 0;
      expect(offset).toBeGreaterThan(0);
      await shell(`mount -o remount,size=2m '${small}'`);
      const again = await tight.open("a");
      expect(again.offset).toBe(offset);
      await again.write(bytes.subarray(offset));
      expect(await again.commit(join(small, "blob"))).toBe(digest);
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
      const locks = { wait: (fd) => flockFd(fd, 2), take: (fd) => flockFd(fd, 6) === 0 };
      const ingest = await new Ingests(process.argv[1], locks).open("a", { total: ${total}, expected: "${digest}" });
      await ingest.write(Buffer.from(process.argv[2], "base64"));
      console.log("written");
      setInterval(() => {}, 1000);`;
    const part = bytes.subarray(0, 50_000).toString("base64");
    const child = spawn(process.execPath, ["--input-type=module", "-e", script, ingests.folder, part], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    children.push(child);
    await new Promise((written) => child.stdout.once("data", written));
    expect(ingests.status("a")).toMatchObject({ offset: 50_000, isActive: true });
    expect(await kindOf(ingests.open("a"))).toBe("unavailable");
    const gone = new Promise((done) => child.once("exit", done));
    child.kill("SIGKILL");
    await gone;
    expect(ingests.status("a")).toMatchObject({ offset: 50_000, isActive: false });
    const ingest = await ingests.open("a");
    await ingest.write(bytes.subarray(50_000));
    expect(await ingest.commit(target)).toBe(digest);
  });
});

describe.skipIf(cannotServe)(titleOf("an ingest from a registry", cannotServe), () => {
  it("is resumed by Range, in another pull", async () => {
    const { host } = await serveRegistry({ storage: "ingest" });
    const layer = tar(file("big", noise(3 << 20)));
    const made = new Layout(join(folder, "layout"));
    made.tag(made.image([layer]), "latest");
    await push(host, "a/b", made);
    const wanted = sha256(layer);
    const front = await troubled(host, ({ path, before }) =>
      path.endsWith(wanted) && before < 2 ? { cutAfter: 1_000_000 } : undefined,
    );
    const pullInto = async (limits: object): Promise<Ingest> => {
      const registry = { environment: environment(), tlsVerify: false, limits: { ...quick, ...limits } };
      const image = await openSource(`docker://${front.host}/a/b`, { registry });
      try {
        const remote = image.layers[0]?.bytes as RemoteBytes;
        const ingest = await ingests.open(`layer-${wanted}`, { total: remote.size, expected: wanted });
        await receive(ingest, (from) => image.fetch?.(remote, undefined, from) ?? expect.unreachable()).catch(
          async (cause: unknown) => {
            await ingest.close();
            throw cause;
          },
        );
        return ingest;
      } finally {
        await image.close?.();
      }
    };
    await expect(pullInto({ tries: 1 })).rejects.toThrow(/^the connection was closed at \d+ of \d+ bytes$/);
    const offset = ingests.status(`layer-${wanted}`)?.offset ?? 0;
    expect(offset).toBeGreaterThan(0);
    expect(await (await pullInto({})).commit(target)).toBe(wanted);
    const ranges = front.asked
      .filter(({ path }) => path.endsWith(wanted))
      .map(({ headers }) => headers.range);
    expect(ranges.slice(0, 2)).toEqual([undefined, `bytes=${offset}-`]);
  });
});
