// `create` of layers that the store has: nothing is converted, Node is started once, what serves holds nothing of its
// caller, and whatever ends it before the image is complete leaves no process, no mount and no image.
import { type ChildProcess, spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { checkStore } from "../../src/store/check.js";
import {
  cannotMount,
  isMounted,
  isRunning,
  type Outcome,
  run,
  scratch,
  scratchDirectory,
  shell,
  titleOf,
  until,
} from "../e2e/mounted.js";
import { layerTar } from "../e2e/tar-writer.js";
import { file, folder, layoutOf, madeStore, type Name, names, program, type TestStore } from "./kit.js";

describe.skipIf(cannotMount !== undefined)(titleOf("a create of known layers", cannotMount), () => {
  let oci: string;
  beforeAll(() => {
    oci = `oci://${layoutOf(layerTar([folder("etc"), file("etc/name", "one\n")]), layerTar([file("top", "two\n")]))}`;
  });

  /** A folder with a `node` that writes down the process of each start. */
  function watchedNode(): { env: Record<string, string>; starts(): number[] } {
    const log = scratch("starts");
    const bin = scratchDirectory("bin");
    writeFileSync(log, "");
    writeFileSync(join(bin, "node"), `#!/bin/sh\necho $$ >> "${log}"\nexec "${process.execPath}" "$@"\n`);
    chmodSync(join(bin, "node"), 0o755);
    return {
      env: { PATH: `${bin}:${process.env["PATH"]}`, IMGFS_STORE: "", XDG_CONFIG_HOME: "/nonexistent" },
      starts: () => readFileSync(log, "utf8").split("\n").filter(Boolean).map(Number),
    };
  }

  const pidOf = (store: TestStore, id: string): number =>
    Number(readFileSync(store.image(id, "pid"), "utf8"));

  const OPENAT = process.arch === "arm64" ? "56" : "257";

  /** True while the main thread of a process waits in open(2). */
  const isOpening = (pid: number): boolean =>
    readFileSync(`/proc/${pid}/syscall`, "latin1").startsWith(`${OPENAT} `);

  /** How often the main thread has waited: in a system call that waits, once more with each signal. */
  const waits = (pid: number): number =>
    Number(/^voluntary_ctxt_switches:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1]);

  const contentOf = ({ path }: TestStore): unknown[] =>
    readdirSync(join(path, "content")).map((name) => {
      const { ino, mtimeNs, size } = statSync(join(path, "content", name), { bigint: true });
      return [name, ino, mtimeNs, size];
    });

  const isSound = ({ path }: TestStore): void =>
    expect(checkStore(path, { data: true })).toMatchObject({ findings: [] });

  it.each(names)("converts nothing and starts Node once, as %s", async (name) => {
    const store = await madeStore();
    const metrics = scratch("metrics");
    const create = async (id: string): Promise<number[]> => {
      const { env, starts } = watchedNode();
      const words = ["--store", store.path, "--metrics-log", metrics, "create", oci, id];
      expect(await run(program(name), words, { env })).toMatchObject({ code: 0, stderr: "" });
      return starts();
    };
    const [first] = await create("one");
    // Who has converted leaves the mount to a process that has not.
    expect(pidOf(store, "one")).not.toBe(first);
    expect(isRunning(first as number)).toBe(false);
    expect(readFileSync(metrics, "utf8").match(/UnpackTime/g)).toHaveLength(2);
    const content = contentOf(store);
    expect(await create("two")).toEqual([pidOf(store, "two")]);
    expect(contentOf(store)).toEqual(content);
    expect(readFileSync(metrics, "utf8").match(/UnpackTime/g)).toHaveLength(2);
    expect(readFileSync(store.image("two", "rootfs/etc/name"), "utf8")).toBe("one\n");
    isSound(store);
  });

  it("has nothing of its caller in the process that serves", async () => {
    const store = await madeStore();
    await store.say("imgfs", "pull", oci);
    const log = scratch("log");
    const held = scratch("held");
    const words = ["--store", store.path, "--log-level", "debug", "--log-file", log, "create", oci, "one"];
    // The substitution ends when nobody holds its pipe any more.
    const script = 'exec 7>"$1"; shift; said=$("$@" 2>&1); echo "$? $said"';
    const { stdout } = await run("sh", ["-c", script, "sh", held, program("grootfs"), ...words], {
      input: "not for the mount",
    });
    expect(stdout).toMatch(/^0 \{"ociVersion"/);
    expect(readFileSync(log, "utf8")).toContain("groot-creating.ending");
    const pid = pidOf(store, "one");
    const open = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
    for (const fd of [0, 1, 2]) expect(readlinkSync(`/proc/${pid}/fd/${fd}`)).toBe("/dev/null");
    expect(open).not.toContain(log);
    expect(open).not.toContain(held);
    expect(readlinkSync(`/proc/${pid}/cwd`)).toBe("/");
    const [, , , parent, group, session] = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/\(.*\)/s, "()")
      .split(" ");
    expect(Number(parent)).not.toBe(process.pid);
    expect([group, session]).toEqual([String(pid), String(pid)]);
    // What it was started with is not for everybody to read, and it ends as any mount's process does.
    expect(readFileSync(`/proc/${pid}/cmdline`, "utf8")).toMatch(/^imgfs /);
    expect(readFileSync(`/proc/${pid}/environ`, "latin1")).toMatch(/PATH=/);
    process.kill(pid, "SIGTERM");
    await until("the process has ended", () => !isRunning(pid));
    expect(isMounted(store.image("one", "rootfs"))).toBe(false);
  });

  it("works with standard streams closed, and says when there is nowhere to print", async () => {
    const store = await madeStore();
    await store.say("imgfs", "pull", oci);
    const create = async (id: string, closed: string): Promise<string> =>
      (
        await run("sh", [
          "-c",
          `"$0" --store "$1" create "$2" "$3" ${closed}; echo $?`,
          program("imgfs"),
          store.path,
          oci,
          id,
        ])
      ).stdout;
    expect(await create("one", "<&-")).toMatch(/^\{.*\}\n0\n$/);
    expect(await create("two", "2>&-")).toMatch(/^\{.*\}\n0\n$/);
    expect(await create("three", ">&- 2>&-")).toBe("1\n");
    for (const id of ["one", "two", "three"]) expect(isRunning(pidOf(store, id))).toBe(true);
    isSound(store);
  });

  /** A create that stops before the step at `point` until `goOn`; the signal goes to the process that the caller started. */
  async function paused(
    store: TestStore,
    name: Name,
    point: string,
  ): Promise<{
    child: ChildProcess;
    node: number;
    signalled(): boolean;
    goOn(): Promise<void>;
    done: Promise<Outcome>;
  }> {
    const [fifo, reached] = [scratch("fifo"), scratch("reached")];
    await shell(`mkfifo '${fifo}'`);
    const { env, starts } = watchedNode();
    const child = spawn(program(name), ["--store", store.path, "create", oci, "one"], {
      // Without a reader the FIFO cannot be opened.
      env: { ...process.env, ...env, IMGFS_STORE_FAULT: `${point}:trace=${reached},${point}:trace=${fifo}` },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (chunk: Buffer) => (stdout += chunk));
    child.stderr.on("data", (chunk: Buffer) => (stderr += chunk));
    const done = new Promise<Outcome>((resolve) => {
      child.on("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
    });
    await until("the step is reached", () => existsSync(reached));
    const [node = 0] = starts();
    await until("it waits for a reader", () => isOpening(node));
    const before = waits(node);
    return {
      child,
      node,
      signalled: () => waits(node) > before,
      goOn: async () => void (await shell(`cat '${fifo}' >/dev/null`)),
      done,
    };
  }

  /** Nothing is left, and the id is free. */
  async function leavesNothing(store: TestStore, node: number): Promise<void> {
    await until("its process has ended", () => !isRunning(node));
    expect(isMounted(store.image("one", "rootfs"))).toBe(false);
    expect(existsSync(store.image("one"))).toBe(false);
    isSound(store);
    await store.say("imgfs", "create", oci, "one");
    expect(isRunning(pidOf(store, "one"))).toBe(true);
  }

  it.each([
    ["SIGTERM", 143],
    ["SIGINT", 130],
    ["SIGHUP", 143],
  ] as const)("ends by %s with its own words, and leaves nothing", async (signal, code) => {
    const store = await madeStore();
    await store.say("imgfs", "pull", oci);
    const { child, node, signalled, goOn, done } = await paused(store, "imgfs", "image.mount");
    child.kill(signal);
    await until("the signal is handed on", signalled);
    await goOn();
    expect(await done).toEqual({
      code,
      signal: null,
      stdout: "",
      stderr: `imgfs: create ${oci}: stopped by ${signal}, nothing was left behind\n`,
    });
    await leavesNothing(store, node);
  });

  it.each(["SIGKILL", "SIGQUIT"] as const)("does not outlive a caller's %s", async (signal) => {
    const store = await madeStore();
    await store.say("imgfs", "pull", oci);
    const { child, node, signalled, goOn } = await paused(store, "grootfs", "image.mount");
    expect(node).not.toBe(child.pid);
    child.kill(signal);
    await until("its process knows", signalled);
    await goOn();
    await leavesNothing(store, node);
  });

  it("is repaired by the next command where its process is killed with the mount", async () => {
    const store = await madeStore();
    await store.say("imgfs", "pull", oci);
    const { node, done } = await paused(store, "imgfs", "image.complete");
    process.kill(node, "SIGKILL");
    expect(await done).toMatchObject({ code: 137, stdout: "" });
    expect(await store.say("imgfs", "create", oci, "one")).toContain("rootfs");
    expect(readFileSync(store.image("one", "rootfs/top"), "utf8")).toBe("two\n");
    isSound(store);
  });

  it.each(["image.mount", "image.complete"])("takes everything back where %s is refused", async (point) => {
    const store = await madeStore();
    await store.say("imgfs", "pull", oci);
    const { env, starts } = watchedNode();
    const outcome = await run(program("imgfs"), ["--store", store.path, "create", oci, "one"], {
      env: { ...env, IMGFS_STORE_FAULT: `${point}:EIO` },
    });
    expect(outcome).toMatchObject({ code: 1, stdout: "", stderr: expect.stringContaining("EIO") });
    await leavesNothing(store, starts()[0] as number);
  });
});
