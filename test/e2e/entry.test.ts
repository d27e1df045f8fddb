// bin/imgfs: how the command is found and started, and what a mount in the background leaves of its caller.
import { existsSync, mkdirSync, readFileSync, readlinkSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { manyLayers } from "./make-image.js";
import {
  build,
  cannotMount,
  cleanLater,
  command,
  isRunning,
  type Outcome,
  run,
  scratch,
  scratchDirectory,
  titleOf,
  until,
} from "./mounted.js";
import { writeLayout } from "./oci-writer.js";

describe.skipIf(cannotMount !== undefined)(titleOf("the command", cannotMount), () => {
  let image: string;
  beforeAll(async () => {
    const layout = scratch("layout");
    writeLayout(layout, manyLayers(2));
    image = await build(`oci:${layout}`);
  });

  const version = (outcome: Outcome): void =>
    expect(outcome).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
      stderr: "",
    });

  it("is found through a chain of symlinks, from its own folder, and by a relative path", async () => {
    const folder = scratchDirectory("links");
    symlinkSync(command, join(folder, "one"));
    symlinkSync("one", join(folder, "two"));
    version(await run(join(folder, "two"), ["--version"]));
    version(await run("sh", ["imgfs", "--version"], { cwd: dirname(command) }));
    version(await run("./two", ["--version"], { cwd: folder }));
  });

  it("finds node without PATH, and prefers that of the prefix it is installed in", async () => {
    version(await run("env", ["-i", command, "--version"]));
    const prefix = scratchDirectory("prefix");
    const installed = join(prefix, "lib/node_modules/imgfs");
    mkdirSync(dirname(installed), { recursive: true });
    mkdirSync(join(prefix, "bin"));
    symlinkSync(dirname(dirname(command)), installed);
    symlinkSync("/bin/echo", join(prefix, "bin/node"));
    const { stdout } = await run("sh", [join(installed, "bin/imgfs"), "ls"]);
    expect(stdout).toMatch(/\/imgfs\.cjs ls\n$/);
  });

  it("mounts with one process, which holds nothing of its caller", async () => {
    const mountpoint = scratchDirectory("mnt");
    const pidFile = scratch("pid");
    cleanLater(mountpoint, pidFile);
    // The shell's substitution ends when nobody holds its pipe any more.
    const script = 'said=$("$1" mount "$2" "$3" --pid-file "$4" 2>&1 <&0); echo "$? [$said]"';
    const { stdout } = await run("sh", ["-c", script, "sh", command, image, mountpoint, pidFile], {
      input: "not for the mount",
    });
    expect(stdout).toBe("0 []\n");
    const pid = Number(readFileSync(pidFile, "utf8"));
    for (const fd of [0, 1, 2]) expect(readlinkSync(`/proc/${pid}/fd/${fd}`)).toBe("/dev/null");
    expect(existsSync(`/proc/${pid}/fd/3`) && readlinkSync(`/proc/${pid}/fd/3`).startsWith("pipe:")).toBe(
      false,
    );
    expect(readlinkSync(`/proc/${pid}/cwd`)).toBe("/");
    const [, , , , group, session] = readFileSync(`/proc/${pid}/stat`, "utf8").split(" ");
    expect([group, session]).toEqual([String(pid), String(pid)]);
    expect(await run(command, ["umount", mountpoint])).toMatchObject({ code: 0, stdout: "", stderr: "" });
    await until("the daemon has ended", () => !isRunning(pid));
  });

  // A descriptor of the caller that is a socket, a device or a directory must not live as long as the mount does.
  it("holds no socket, device or directory of its caller, whatever its number", async () => {
    const mountpoint = scratchDirectory("mnt");
    const pidFile = scratch("pid");
    cleanLater(mountpoint, pidFile);
    const script = `
import os, socket, subprocess, sys
ours, theirs = socket.socketpair()
numbers = {20: theirs.fileno(), 21: os.open("/dev/zero", os.O_RDONLY), 23: os.open(sys.argv[1], os.O_RDONLY)}
for number, fd in numbers.items():
    os.dup2(fd, number, inheritable=True)
print(subprocess.run(sys.argv[2:], pass_fds=list(numbers)).returncode)
theirs.close(); os.close(20)
ours.settimeout(60)
print(ours.recv(1))`;
    const folder = scratchDirectory("held");
    const args = ["-c", script, folder, command, "mount", image, mountpoint, "--pid-file", pidFile];
    expect(await run("python3", args)).toMatchObject({ code: 0, stdout: "0\nb''\n", stderr: "" });
    const held = await run("sh", ["-c", 'readlink /proc/"$(cat "$1")"/fd/*', "sh", pidFile]);
    expect(held.stdout).not.toMatch(/\/dev\/zero|-held$/m);
    expect(await run(command, ["umount", mountpoint])).toMatchObject({ code: 0 });
  });

  it("mounts with any of the standard streams closed", async () => {
    const mountpoint = scratchDirectory("mnt");
    const pidFile = scratch("pid");
    cleanLater(mountpoint, pidFile);
    for (const closed of ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]) {
      const script = `"$0" mount "$1" "$2" --pid-file "$3" ${closed}; code=$?; "$0" umount "$2" ${closed}; echo $code $?`;
      expect(await run("sh", ["-c", script, command, image, mountpoint, pidFile]), closed).toMatchObject({
        stdout: "0 0\n",
        stderr: "",
      });
    }
  });

  // What could not be written must not look as if it had been.
  it("fails when it has something to write and stdout is closed", async () => {
    for (const words of [
      "cat IMAGE /stack/top",
      "ls IMAGE /",
      "extract --tar IMAGE",
      "inspect IMAGE",
      "--version",
    ]) {
      const script = `"$1" ${words.replace("IMAGE", '"$2"')} >&-; echo $? >&2`;
      const { stdout, stderr } = await run("sh", ["-c", script, "sh", command, image]);
      expect({ words, stdout, stderr }).toEqual({
        words,
        stdout: "",
        stderr: expect.stringMatching(/^imgfs: [^\n]*standard output is closed\n1\n$/),
      });
    }
  });

  it("leaves a lock to the caller who took it", async () => {
    const mountpoint = scratchDirectory("mnt");
    const pidFile = scratch("pid");
    cleanLater(mountpoint, pidFile);
    // Numbers of one digit are the shell's to close, others only Node's.
    const script =
      'exec 9>"$4" {far}>"$4.far"; flock 9; flock $far; "$0" mount "$1" "$2" --pid-file "$3" && exec 9>&- {far}>&-; flock -n "$4" flock -n "$4.far" true; echo $?';
    const args = ["-c", script, command, image, mountpoint, pidFile, scratch("lock")];
    expect((await run("bash", args)).stdout).toBe("0\n");
    await run(command, ["umount", mountpoint]);
  });

  it("says why a mount failed on one line, with the exit code of the failure", async () => {
    const mountpoint = scratchDirectory("mnt");
    expect(await run(command, ["mount", image])).toMatchObject({ code: 2, stdout: "" });
    expect(await run(command, ["mount", join(mountpoint, "none"), mountpoint])).toMatchObject({
      code: 10,
      stderr: expect.stringMatching(/^imgfs: .*none: no image here\nhint: /),
    });
    expect(await run(command, ["mount", image, join(mountpoint, "none")])).toMatchObject({
      code: 32,
      stderr: expect.stringMatching(/^imgfs: mount .*none: no such file or directory\n$/),
    });
    expect(await run(command, ["mount", "--help"])).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("Usage: imgfs mount"),
    });
  });
});
