// The control socket of a mount's process, spoken to by hand: whatever comes, the mount goes on and others are answered.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import * as fs from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CLIENT_LIMIT } from "../../src/daemon/control.js";
import { parseSocketName } from "../../src/daemon/control-place.js";
import { isRunning, sh, until, withBed } from "../fuse/harness.js";

const FOLDER = "/run/imgfs";

/** The socket of a process, when it is there. */
function socketOf(pid: number): string | undefined {
  const name = readdirSync(FOLDER).find(
    (each) => each.endsWith(".sock") && parseSocketName(each)?.pid === pid,
  );
  return name === undefined ? undefined : join(FOLDER, name);
}

async function waitForSocket(pid: number): Promise<string> {
  await until(() => socketOf(pid) !== undefined);
  return socketOf(pid) as string;
}

type Message = Readonly<Record<string, never>> & {
  readonly id?: string | number;
  readonly hello?: { readonly pid: number; readonly mountpoint: string; readonly device: string };
  readonly result?: Readonly<Record<string, unknown>>;
  readonly error?: { readonly code: string; readonly message: string };
};

/** A client that reads no more than it is told to. */
class Client {
  readonly socket: Socket;
  ended = false;
  private text = "";

  constructor(path: string) {
    this.socket = connect({ path });
    this.socket.on("error", () => {});
    this.socket.on("close", () => {
      this.ended = true;
    });
    this.socket.on("data", (chunk) => {
      this.text += chunk.toString();
    });
  }

  send(...requests: readonly (object | string)[]): void {
    const lines = requests.map((each) => (typeof each === "string" ? each : JSON.stringify(each)));
    this.socket.write(lines.map((line) => `${line}\n`).join(""));
  }

  /** The lines that have come whole. */
  get lines(): Message[] {
    return this.text
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line) as Message);
  }

  /** The lines, when there are so many, or as many as there are at the end. */
  async read(count: number): Promise<Message[]> {
    await until(() => this.ended || this.text.split("\n").length > count);
    return this.lines;
  }

  /** What a request is answered. */
  async ask(request: object | string): Promise<Message> {
    const before = this.lines.length + (this.lines.length === 0 ? 1 : 0);
    this.send(request);
    return (await this.read(before + 1)).at(-1) as Message;
  }
}

const status = { version: 1, command: "status" };

/** Asks for the status until its requests are as expected. */
async function watch(client: Client, holds: (found: Figures) => boolean): Promise<Figures> {
  for (;;) {
    const { result } = await client.ask(status);
    const { requests } = result as unknown as { requests: Figures };
    if (holds(requests)) return requests;
  }
}

describe.concurrent("the control socket", () => {
  it(
    "is its owner's alone, says hello, and goes with the mount",
    withBed(async (bed) => {
      const { path, pid } = await bed.mount({ files: ["a"] });
      const socket = await waitForSocket(pid);
      expect(statSync(FOLDER).mode & 0o7777).toBe(0o700);
      expect(statSync(socket).mode & 0o7777).toBe(0o600);
      const other = spawnSync("setpriv", [
        "--reuid=54243",
        "--clear-groups",
        process.execPath,
        "-e",
        `require("node:net").connect(${JSON.stringify(socket)}).on("error", (e) => console.log(e.code))`,
      ]);
      expect(other.stdout.toString()).toBe("EACCES\n");
      const device = sh(`awk '$5 == "${path}" { print $3 }' /proc/self/mountinfo`).trim();
      const [hello] = await new Client(socket).read(1);
      expect(hello).toEqual({ version: 1, hello: { pid, mountpoint: path, device } });
      sh(`umount ${path}`);
      await until(() => !isRunning(pid));
      expect(existsSync(socket)).toBe(false);
    }),
  );

  it.each(["SIGTERM", "SIGINT twice"])("goes with its process at %s", (how) =>
    withBed(async (bed) => {
      const { path, pid } = await bed.mount({ files: ["a"] });
      const socket = await waitForSocket(pid);
      const client = new Client(socket);
      await client.read(1);
      const holder = spawn("sleep", ["60"], { cwd: path, stdio: "ignore" });
      try {
        if (how === "SIGTERM") process.kill(pid, "SIGTERM");
        else {
          process.kill(pid, "SIGINT");
          // The mount is in use: detached, and served on until its last user ends.
          await until(() => !readFileSync("/proc/self/mountinfo", "utf8").includes(` ${path} `));
          expect((await client.ask(status)).result).toMatchObject({ pid });
          process.kill(pid, "SIGINT");
        }
        if (how === "SIGTERM") {
          await until(() => !readFileSync("/proc/self/mountinfo", "utf8").includes(` ${path} `));
          holder.kill();
        }
        await until(() => !isRunning(pid));
        expect(existsSync(socket)).toBe(false);
        await until(() => client.ended);
      } finally {
        holder.kill();
      }
    })(),
  );

  it(
    "answers what makes no sense with one error each, and then what does",
    withBed(async (bed) => {
      const { pid } = await bed.mount({ files: ["a"] });
      const client = new Client(await waitForSocket(pid));
      const refused: readonly (readonly [string, string, RegExp])[] = [
        ["nonsense", "malformed", /one JSON object on one line/],
        ["[]", "malformed", /one JSON object/],
        ["null", "malformed", /one JSON object/],
        ["{", "malformed", /one JSON object/],
        ['{"command":"status"}', "malformed", /version is missing/],
        ['{"version":"1","command":"status"}', "malformed", /version is missing, or not a number/],
        ['{"version":2,"command":"status"}', "unsupported-version", /version 2 is not known here, only 1/],
        ['{"version":1}', "malformed", /command is missing/],
        ['{"version":1,"command":"__proto__"}', "unknown-command", /unknown command "__proto__"/],
        ['{"version":1,"command":"status","id":{}}', "malformed", /id is neither/],
        ['{"version":1,"command":"status","verbose":true}', "invalid-argument", /status takes no "verbose"/],
        ['{"version":1,"command":"quota"}', "no-quota", /^the mount has no quota$/],
        ['{"version":1,"command":"set-quota","bytes":1}', "no-quota", /^the mount has no quota$/],
      ];
      for (const [line, code, message] of refused) {
        const { error, result } = await client.ask(line);
        expect(error, line).toMatchObject({ code, message: expect.stringMatching(message) });
        expect(result).toBeUndefined();
      }
      client.socket.write(Buffer.from([0x22, 0xff, 0xfe, 0x22, 0x0a]));
      expect((await client.read(refused.length + 2)).at(-1)?.error).toMatchObject({ code: "malformed" });
      const { id, result } = await client.ask({ ...status, id: "last" });
      expect(id).toBe("last");
      expect(result).toMatchObject({ pid, quota: null, transport: "direct", readOnly: false });
    }),
  );

  it(
    "takes a request in pieces, several in one, and the last without its newline",
    withBed(async (bed) => {
      const { pid } = await bed.mount({ files: ["a"] });
      const client = new Client(await waitForSocket(pid));
      const text = [1, 2, 3].map((id) => `${JSON.stringify({ ...status, id })}\n\n`).join("");
      for (const piece of text.match(/.{1,7}|\n/g) ?? []) {
        client.socket.write(piece);
        await new Promise((done) => setImmediate(done));
      }
      client.socket.end(JSON.stringify({ ...status, id: 4 }));
      await until(() => client.ended);
      expect(client.lines.slice(1).map(({ id }) => id)).toEqual([1, 2, 3, 4]);
    }),
  );

  it(
    "ends a connection whose request is too long, after saying so",
    withBed(async (bed) => {
      const { pid } = await bed.mount({ files: ["a"] });
      const socket = await waitForSocket(pid);
      const fits = new Client(socket);
      const padded = (length: number): string => JSON.stringify(status).padEnd(length, " ");
      expect((await fits.ask(padded(16_384))).result).toMatchObject({ pid });
      for (const text of [`${padded(16_385)}\n`, "x".repeat(200_000)]) {
        const client = new Client(socket);
        await client.read(1);
        client.socket.write(text);
        await until(() => client.ended);
        expect(client.lines.slice(1)).toEqual([
          { version: 1, error: { code: "too-long", message: "a request has at most 16384 bytes" } },
        ]);
      }
      const flood = new Client(socket);
      flood.socket.write(Buffer.alloc(8 << 20, "x"));
      await until(() => flood.ended);
      expect((await fits.ask(status)).result).toMatchObject({ pid });
    }),
  );

  it(
    "keeps nothing for a client that asks and does not read, answers others meanwhile, and it when it reads",
    withBed(async (bed) => {
      const { path, pid } = await bed.mount({ files: ["a"] });
      const socket = await waitForSocket(pid);
      const stalled = new Client(socket);
      await stalled.read(1);
      stalled.socket.pause();
      const count = 20_000;
      for (let id = 0; id < count; id++) stalled.send({ ...status, id });
      const others = Array.from({ length: 5 }, () => new Client(socket));
      for (let round = 0; round < 20; round++) {
        for (const other of others) expect((await other.ask(status)).result).toMatchObject({ pid });
      }
      // Most of what it has asked is still with the client itself: the process has not read it.
      expect(stalled.socket.writableLength).toBeGreaterThan(count * 10);
      expect(await fs.readFile(join(path, "a"), "utf8")).toBe("content of a\n");
      stalled.socket.resume();
      const lines = await stalled.read(count + 1);
      expect(lines.slice(1).map(({ id }) => id)).toEqual(Array.from({ length: count }, (_, id) => id));
    }),
  );

  it(
    "lives through clients that die in the middle of a request or of the answer",
    withBed(async (bed) => {
      const { pid, path } = await bed.mount({ files: ["a"] });
      const socket = await waitForSocket(pid);
      for (let i = 0; i < 200; i++) {
        const client = new Client(socket);
        client.send(status, status);
        client.socket.write('{"version":1,');
        if (i % 2 === 0) await client.read(1);
        client.socket.destroy();
      }
      expect((await new Client(socket).ask(status)).result).toMatchObject({ pid });
      expect(await fs.readFile(join(path, "a"), "utf8")).toBe("content of a\n");
    }),
  );

  it(
    "ends the quietest of too many clients",
    withBed(async (bed) => {
      const { pid } = await bed.mount({ files: ["a"] });
      const socket = await waitForSocket(pid);
      const clients: Client[] = [];
      for (let i = 0; i < CLIENT_LIMIT; i++) {
        clients.push(new Client(socket));
        await clients[i]?.read(1);
      }
      const [first, second] = clients as [Client, Client];
      expect((await first.ask(status)).result).toMatchObject({ pid });
      const late = new Client(socket);
      expect((await late.ask(status)).result).toMatchObject({ pid });
      await until(() => second.ended);
      expect((await first.ask(status)).result).toMatchObject({ pid });
      expect(clients.filter(({ ended }) => ended)).toEqual([second]);
    }),
  );

  it(
    "says what was asked of the mount, and how long that took, also where a helper answered",
    withBed(async (bed) => {
      const slowFile = join(bed.folder, "slow");
      writeFileSync(slowFile, "");
      const { path, pid } = await bed.mount({ files: ["a", "offload", "suspend"], slowFile });
      const client = new Client(await waitForSocket(pid));
      await fs.readFile(join(path, "a"));
      await expect(fs.readFile(join(path, "none"))).rejects.toMatchObject({ code: "ENOENT" });
      await expect(fs.readFile(join(path, "boom-1"))).rejects.toMatchObject({ code: "EIO" });
      const file = await fs.open(join(path, "offload"), "r+");
      for (let i = 0; i < 3; i++) await file.sync();
      await file.close();
      await fs.readFile(join(path, "suspend"));
      // The last request, RELEASE, is one that nobody waits for.
      const { opcodes, total, errors } = await watch(client, ({ serving, waiting, opcodes: each }) => {
        return serving === null && waiting === 0 && each.some(({ opcode }) => opcode === "RELEASE");
      });
      const of = (name: string): Figures["opcodes"][number] | undefined =>
        opcodes.find(({ opcode }) => opcode === name);
      expect(of("LOOKUP")).toMatchObject({ requests: 5, errors: 1 });
      expect(of("FSYNC")).toMatchObject({ requests: 3, errors: 0 });
      expect(of("OPEN")).toMatchObject({ requests: 3, errors: 0 });
      for (const name of ["LOOKUP", "FSYNC", "OPEN", "READ"]) {
        const { mean, p50, p99, max } = (of(name) as { latency: Latency }).latency;
        expect(mean, name).toBeGreaterThan(0);
        expect(p50, name).toBeLessThanOrEqual(p99);
        expect(p99, name).toBeLessThanOrEqual(max);
      }
      expect(total).toBe(opcodes.reduce((sum, { requests }) => sum + requests, 0));
      expect(errors).toBe(opcodes.reduce((sum, each) => sum + each.errors, 0));
    }),
  );

  it(
    "tells what holds up the mount, which answers nothing itself then",
    withBed(async (bed) => {
      // A file of a mount whose process has been stopped is the slow disk of the others.
      const slow = await bed.mount({ files: ["sleep-0"] });
      const settings = { files: ["offload", "suspend"], slowFile: join(slow.path, "sleep-0") };
      const busy = await bed.mount(settings);
      const stuck = await bed.mount(settings);
      const [client, stuckClient, slowClient] = (await Promise.all(
        [busy, stuck, slow].map(async ({ pid }) => new Client(await waitForSocket(pid))),
      )) as [Client, Client, Client];
      // The one has the slow file open before, so that a helper waits for it; the other waits in its only thread.
      const file = await fs.open(join(busy.path, "offload"), "r+");
      await file.sync();
      process.kill(slow.pid, "SIGSTOP");
      try {
        const ended = [busy, stuck].map(({ path }) => {
          const held = spawn("cat", [join(path, "suspend")], { stdio: "ignore" });
          return new Promise((done) => held.on("close", done));
        });
        await watch(client, ({ waiting }) => waiting === 1);
        expect(await fs.readFile(join(busy.path, "offload"), "utf8")).toBe("content of offload\n");
        const { serving } = await watch(stuckClient, (found) => found.serving !== null);
        expect(serving).toEqual({ opcode: "OPEN", for: expect.any(Number) });
        process.kill(slow.pid, "SIGCONT");
        await Promise.all(ended);
        for (const each of [client, stuckClient]) {
          await watch(each, (found) => found.waiting === 0 && found.serving === null);
        }
      } finally {
        process.kill(slow.pid, "SIGCONT");
        await file.close();
      }
      expect((await slowClient.ask(status)).result).toMatchObject({ pid: slow.pid });
    }),
  );

  it(
    "of a killed process is removed by the next mount, one that somebody listens to is not",
    withBed(async (bed) => {
      const killed = await bed.mount({ files: ["a"] });
      const stale = await waitForSocket(killed.pid);
      process.kill(killed.pid, "SIGKILL");
      await until(() => !isRunning(killed.pid));
      // As a process of another pid namespace leaves and has it: the number names nobody here.
      const pids = [2 ** 30, 2 ** 30 + 1];
      const [dead, alive] = pids.map((pid) => join(FOLDER, `0:1.${pid}-${process.pid}.sock`)) as [
        string,
        string,
      ];
      const foreign = createServer();
      await new Promise<void>((done) => foreign.listen(alive, done));
      const plain = join(FOLDER, `notes-${process.pid}`);
      writeFileSync(plain, "");
      const script = `require("node:net").createServer().listen(${JSON.stringify(dead)}, () => process.kill(process.pid, 9))`;
      expect(spawnSync(process.execPath, ["-e", script]).signal).toBe("SIGKILL");
      try {
        const { pid } = await bed.mount({ files: ["a"] });
        const socket = await waitForSocket(pid);
        await until(() => !existsSync(stale) && !existsSync(dead));
        expect(existsSync(alive)).toBe(true);
        expect(existsSync(plain)).toBe(true);
        expect((await new Client(socket).ask(status)).result).toMatchObject({ pid });
      } finally {
        foreign.close();
        rmSync(plain);
      }
    }),
  );
});

interface Latency {
  readonly mean: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

interface Figures {
  readonly total: number;
  readonly errors: number;
  readonly waiting: number;
  readonly serving: object | null;
  readonly opcodes: readonly {
    readonly opcode: string;
    readonly requests: number;
    readonly errors: number;
    readonly latency: Latency | null;
  }[];
}
