// How mounts begin and end: detached and in the foreground, by signal, by umount, by a crash;
// several of one image, locks, user namespaces; nothing is left behind in any of these.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { manyLayers } from "./make-image.js";
import {
  build,
  cannotMount,
  command,
  imgfs,
  isMounted,
  isRunning,
  type Mounted,
  run,
  scratch,
  scratchDirectory,
  shell,
  titleOf,
  until,
} from "./mounted.js";
import { writeLayout } from "./oci-writer.js";
import { transports } from "./transports.js";

let image: string;

const noNamespace =
  spawnSync("unshare", ["-Urm", "true"]).status === 0 ? undefined : "this machine makes no user namespaces";

/** One line for the user, perhaps a hint; never a stack. */
const oneLine = /^imgfs: [^\n]+\n(hint: [^\n]+\n)?$/;

async function gone({ path, pid }: Mounted): Promise<void> {
  await until("the daemon has ended", () => !isRunning(pid));
  expect(isMounted(path)).toBe(false);
}

describe.skipIf(cannotMount).each(transports)(titleOf("a mount by $name", cannotMount), (transport) => {
  const { mount, mountAt, mountForeground } = transport;
  const words = transport.options.join(" ");

  beforeAll(async () => {
    const layout = scratch("layout");
    writeLayout(layout, manyLayers(4));
    image = await build(`oci:${layout}`);
  });

  it("keeps its pid file when another mount that names the same one is refused", async () => {
    const { path, pid } = await mount(image);
    const pidFile = scratch("shared-pid");
    writeFileSync(pidFile, `${pid}\n`);
    expect(await imgfs("mount", ...transport.options, image, path, "--pid-file", pidFile)).toMatchObject({
      code: 32,
    });
    expect(readFileSync(pidFile, "utf8")).toBe(`${pid}\n`);
  });

  it("prints its counters to the caller's stderr when that is a file, and never holds a pipe", async () => {
    const log = scratch("stats");
    const target = scratchDirectory("mnt");
    const line = `"${command}" mount ${words} --stats-on-exit "${image}" "${target}"`;
    await shell(`${line} 2> "${log}"`);
    await shell(`ls "${target}"; umount "${target}"`);
    await until("the counters are printed", () =>
      /\bLOOKUP\b|\bREADDIR(PLUS)?\b/.test(readFileSync(log, "utf8")),
    );
    // The reader of this pipe sees its end although the mount lives.
    await shell(`${line} 2>&1 | cat; "${command}" umount "${target}"`);
    expect(isMounted(target)).toBe(false);
  });

  it("is live when the command returns, with its type, source and pid", async () => {
    const { path, pid } = await mount(image);
    const line = readFileSync("/proc/self/mountinfo", "utf8")
      .split("\n")
      .find((candidate) => candidate.includes(` ${path} `));
    expect(line).toMatch(/ - fuse\.imgfs /);
    expect(line).toContain(` ${image} `);
    expect(isRunning(pid)).toBe(true);
    expect(await readFile(join(path, "stack/top"), "utf8")).toBe("last written by layer 3\n");
  });

  it("ends with imgfs umount, which returns when the daemon has ended", async () => {
    const mounted = await mount(image, "--upper", scratch("upper"));
    await mounted.unmount();
    expect(isRunning(mounted.pid)).toBe(false);
  });

  it("ends with umount(8)", async () => {
    const mounted = await mount(image, "--upper", scratch("upper"));
    await shell(`umount ${mounted.path}`);
    await gone(mounted);
  });

  it.each(["SIGTERM", "SIGINT", "SIGHUP"] as const)("ends cleanly at %s", async (signal) => {
    const { path, pid, ended } = await mountForeground(image);
    process.kill(pid, signal);
    expect(await ended).toEqual({ code: 0, signal: null });
    expect(isMounted(path)).toBe(false);
  });

  it("in the foreground ends with exit 0 when it is unmounted from outside", async () => {
    const { path, ended, stderr } = await mountForeground(image, "--upper", scratch("upper"));
    await shell(`umount ${path}`);
    expect(await ended).toEqual({ code: 0, signal: null });
    expect(stderr()).toBe("");
  });

  it("that is busy says so with exit 32 and stays; -z takes it away", async () => {
    const mounted = await mount(image);
    const holder = spawn("sleep", ["1000"], { cwd: mounted.path, stdio: "ignore" });
    try {
      const busy = await imgfs("umount", mounted.path);
      expect(busy).toMatchObject({ code: 32, stdout: "" });
      expect(busy.stderr).toMatch(oneLine);
      expect(busy.stderr).toContain("busy");
      expect(isMounted(mounted.path)).toBe(true);
      expect(isRunning(mounted.pid)).toBe(true);
      expect(await imgfs("umount", "-z", mounted.path)).toMatchObject({ code: 0 });
      expect(isMounted(mounted.path)).toBe(false);
    } finally {
      holder.kill("SIGKILL");
    }
    await gone(mounted);
  });

  it("whose daemon was killed is cleaned by the next mount there, and its writes are kept", async () => {
    const upper = scratch("upper");
    const first = await mount(image, "--upper", upper);
    await writeFile(first.at("stack/top"), "written before the crash\n");
    process.kill(first.pid, "SIGKILL");
    await until("the daemon is dead", () => !isRunning(first.pid));
    const second = await mountAt(first.path, image, "--upper", upper);
    expect(await readFile(second.at("stack/top"), "utf8")).toBe("written before the crash\n");
    expect(readFileSync("/proc/self/mountinfo", "utf8").split(` ${first.path} `).length).toBe(2);
    await second.unmount();
  });

  it("and others of the same image do not see each other's writes", async () => {
    const mounts = [
      await mount(image, "--upper", scratch("upper")),
      await mount(image, "--upper", scratch("upper")),
      await mount(image),
    ];
    await writeFile(mounts[0]?.at("stack/top") as string, "mine\n");
    expect(await readFile(mounts[0]?.at("stack/top") as string, "utf8")).toBe("mine\n");
    for (const other of mounts.slice(1)) {
      expect(await readFile(other.at("stack/top"), "utf8")).toBe("last written by layer 3\n");
    }
    for (const each of mounts) await each.unmount();
  });

  it("holds its upper alone, and gives it free when it ends", async () => {
    const upper = scratch("upper");
    const first = await mount(image, "--upper", upper);
    const mountpoint = scratchDirectory("mnt");
    const second = await imgfs("mount", ...transport.options, image, mountpoint, "--upper", upper);
    expect(second.code).toBe(32);
    expect(second.stderr).toMatch(oneLine);
    expect(isMounted(mountpoint)).toBe(false);
    await first.unmount();
    await (await mount(image, "--upper", upper)).unmount();
  });

  it("creates the upper and the work directory beside it", async () => {
    const upper = join(scratch("deep"), "er/upper");
    const { unmount } = await mount(image, "--upper", upper);
    expect(existsSync(upper)).toBe(true);
    expect(existsSync(`${upper}.work`)).toBe(true);
    expect(readdirSync(upper)).toEqual([]);
    await unmount();
  });

  it.skipIf(noNamespace)(
    titleOf("works for root of a user namespace, in which it is writable", noNamespace),
    async () => {
      const upper = scratchDirectory("upper");
      const mountpoint = scratchDirectory("mnt");
      const script = `
      set -eu
      imgfs=$1 image=$2 mountpoint=$3 upper=$4
      $imgfs mount ${words} $image $mountpoint --upper $upper --pid-file $upper.pid
      cat $mountpoint/stack/top
      echo changed > $mountpoint/stack/top
      rm $mountpoint/stack/layer-2
      mkdir $mountpoint/made
      ls $mountpoint/stack
      cp $upper.pid $upper.was
      $imgfs umount $mountpoint
    `;
      const args = ["-Urm", "sh", "-c", script, "sh", command, image, mountpoint, upper];
      const outcome = await run("unshare", args);
      expect(outcome).toMatchObject({ code: 0, stderr: "" });
      expect(outcome.stdout).toMatch(/^last written by layer 3\n/);
      expect(outcome.stdout).not.toContain("layer-2\n");
      expect(isMounted(mountpoint)).toBe(false);
      expect(readFileSync(join(upper, "stack/top"), "utf8")).toBe("changed\n");
      await until("the daemon has ended", () => !isRunning(Number(readFileSync(`${upper}.was`, "utf8"))));
    },
  );

  it("that cannot start says why on one line and leaves nothing", async () => {
    const missing = await imgfs("mount", ...transport.options, image, scratch("no-such-folder"));
    expect(missing.code).toBe(32);
    expect(missing.stderr).toMatch(oneLine);
    const file = scratch("a-file");
    writeFileSync(file, "");
    const notFolder = await imgfs("mount", ...transport.options, image, file);
    expect(notFolder.code).toBe(32);
    expect(notFolder.stderr).toMatch(oneLine);
    const damaged = scratchDirectory("damaged");
    mkdirSync(damaged, { recursive: true });
    writeFileSync(join(damaged, "index.imgfs"), Buffer.alloc(8192, 7));
    const mountpoint = scratchDirectory("mnt");
    const refused = await imgfs("mount", ...transport.options, damaged, mountpoint);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toMatch(oneLine);
    expect(isMounted(mountpoint)).toBe(false);
  });
});
