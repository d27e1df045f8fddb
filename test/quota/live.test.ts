// Limits that change: below what is used, while eight processes write, and on a disk that has less than the limit.
import { existsSync, statfsSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import {
  build,
  cannotMount,
  command,
  hasCommand,
  imgfs,
  isMounted,
  mount,
  mountAt,
  python,
  run,
  scratch,
  scratchDirectory,
  succeed,
  titleOf,
} from "../e2e/mounted.js";

const reason = cannotMount ?? (hasCommand("python3") ? undefined : "python3 is missing");
const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
const BLOCK = 4096;
/** EDQUOT, which Node has no name for. */
const refused = expect.objectContaining({ errno: -122 });

it.runIf(inCi)("limits that change are tested in CI", () => expect(reason).toBeUndefined());

/** Writes from eight processes until their input ends; then what is used, at most, after it was told to look. */
const writers = `
import os, sys, time
mount, high = sys.argv[1], 0
children = []
for n in range(8):
    pid = os.fork()
    if pid == 0:
        i = 0
        while True:
            i += 1
            try:
                with open(f"{mount}/{n}.{i % 7}", "ab", buffering=0) as f: f.write(b"w" * 5000)
                if i % 9 == 0: os.unlink(f"{mount}/{n}.{i % 7}")
            except OSError as cause:
                if cause.errno != 122: os._exit(1)
                time.sleep(0.001)
    children.append(pid)
print("begun", flush=True)
used = lambda: (lambda s: (s.f_blocks - s.f_bfree) * 4096)(os.statvfs(mount))
for line in sys.stdin:
    # The next to fit in, and what was used just before or after the change, whichever is more.
    limit, before = int(line), used()
    os.system(f"{sys.argv[2]} quota {mount} --set {limit} > {os.devnull}")
    most = max(limit, used(), before)
    for i in range(300):
        now = used()
        if now > most: sys.exit(f"{now} bytes used after the limit was set to {limit}, {most} before")
        most = max(limit, now) if now < most else most
        time.sleep(0.0005)
for pid in children:
    os.kill(pid, 9)
    assert os.waitpid(pid, 0)[1] == 9
print("ended")
`;

describe.skipIf(reason)(titleOf("a limit", reason), () => {
  let image: string;
  beforeAll(async () => {
    const source = scratchDirectory("source");
    writeFileSync(join(source, "file"), "i".repeat(10_000));
    image = await build(`dir:${source}`);
  });

  const left = (path: string): number => statfsSync(path).bavail * BLOCK;
  const used = (path: string): number => {
    const { blocks, bfree } = statfsSync(path);
    return (blocks - bfree) * BLOCK;
  };
  const write = (path: string, blocks: number): void =>
    writeFileSync(path, Buffer.alloc(blocks * BLOCK, "w"));

  it("below what is used mounts, lets nothing grow and everything go, and can be raised", async () => {
    const upper = scratch("upper");
    const first = await mount(image, "--upper", upper, "--quota", "1M", "--quota-inodes", "20");
    write(first.at("new"), 100);
    write(first.at("other"), 50);
    await first.unmount();
    const second = await mount(image, "--upper", upper, "--quota", "256K", "--quota-inodes", "1");
    expect([used(second.path), left(second.path), statfsSync(second.path).ffree]).toEqual([
      150 * BLOCK,
      0,
      0,
    ]);
    expect(() => write(second.at("third"), 1)).toThrow(refused);
    await expect(python(`open("${second.at("new")}", "r+b").seek(0)`)).resolves.toBe("");
    await expect(
      python(`import os; os.pwrite(os.open("${second.at("new")}", 1), b"x" * 9000, 0)`),
    ).resolves.toBe("");
    await expect(
      python(`import os; os.pwrite(os.open("${second.at("new")}", 1), b"x", 500 * 4096)`),
    ).rejects.toThrow("Disk quota exceeded");
    truncateSync(second.at("new"), 10 * BLOCK);
    expect([used(second.path), left(second.path)]).toEqual([60 * BLOCK, 4 * BLOCK]);
    expect(() => write(second.at("third"), 1)).toThrow(refused);
    await succeed(command, ["quota", second.path, "--set", "300K", "--set-inodes", "3"]);
    write(second.at("third"), 15);
    expect(left(second.path)).toBe(0);
    await second.unmount();
  });

  it("of nothing counts all the same, and can be set live; a mount that does not count cannot have one", async () => {
    const options = ["--quota", "unlimited", "--quota-errno", "ENOSPC"];
    const mounted = await mount(image, "--upper", scratch("upper"), ...options);
    const full = expect.objectContaining({ code: "ENOSPC" });
    write(mounted.at("new"), 50);
    expect(JSON.parse(await succeed(command, ["quota", mounted.path, "--json"]))).toMatchObject({
      bytes: 50 * BLOCK,
      byteLimit: null,
    });
    await succeed(command, ["quota", mounted.path, "--set", "100k"]);
    expect(() => write(mounted.at("other"), 1)).toThrow(full);
    truncateSync(mounted.at("new"), 1);
    write(mounted.at("other"), 24);
    expect(() => write(mounted.at("third"), 1)).toThrow(full);
    await mounted.unmount();
    const uncounted = await mount(image, "--upper", scratch("upper"));
    const { code, stderr } = await imgfs("quota", uncounted.path, "--set", "1G");
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: `imgfs: quota: ${uncounted.path}: the mount has no quota\n`,
    });
    await uncounted.unmount();
  });

  it("is never passed while it goes up and down under eight writers", async () => {
    const upper = scratch("upper");
    const mounted = await mount(image, "--upper", upper, "--quota", "1M");
    const limits = [900_000, 300_000, 5000, 2_000_000, 100_000, 1_000_000, 4096, 700_000].map(
      (limit) => `${limit}\n`,
    );
    const script = scratch("writers.py");
    writeFileSync(script, writers);
    const outcome = await run("python3", [script, mounted.path, command], { input: limits.join("") });
    expect(outcome).toMatchObject({ code: 0, stdout: "begun\nended\n", stderr: "" });
    const { bytes, inodes } = JSON.parse(await succeed(command, ["quota", mounted.path, "--json"]));
    expect(JSON.parse(await succeed(command, ["du", upper, "--json"]))).toMatchObject({ bytes, inodes });
    await mounted.unmount();
  });

  it("of image and upper that the image alone passes refuses to mount, in GrootFS's words, and leaves nothing", async () => {
    const path = scratchDirectory("mnt");
    const upper = scratch("upper");
    const options = ["--upper", upper, "--quota", "9999", "--quota-mode", "inclusive"];
    const { code, stderr } = await imgfs("mount", image, path, ...options);
    expect({ code, stderr }).toEqual({
      code: 32,
      stderr: expect.stringMatching(
        /^imgfs: [^\n]*disk limit is smaller than volume size \(9999 bytes, the image has 10000\)\n/,
      ),
    });
    expect(isMounted(path)).toBe(false);
    const mounted = await mountAt(path, image, ...options.with(3, "18192"));
    write(mounted.at("new"), 2);
    expect(() => write(mounted.at("new2"), 1)).toThrow(refused);
    await mounted.unmount();
    expect(existsSync(join(upper, "new"))).toBe(true);
  });

  it("above what the disk has shows what the disk has, and a full disk is no full quota", async () => {
    const disk = scratchDirectory("disk");
    await succeed("mount", ["-t", "tmpfs", "-o", "size=2m,nr_inodes=100", "tmpfs", disk]);
    try {
      const options = ["--upper", join(disk, "upper"), "--quota", "1G", "--quota-inodes", "5000"];
      const mounted = await mount(image, ...options);
      const below = statfsSync(disk);
      const shown = statfsSync(mounted.path);
      expect([shown.bavail, shown.ffree]).toEqual([below.bavail, below.ffree]);
      expect(() => write(mounted.at("new"), 1000)).toThrow(expect.objectContaining({ code: "ENOSPC" }));
      // Charged is what is there.
      expect(used(mounted.path)).toBeLessThanOrEqual(2 << 20);
      const { bytes, inodes } = JSON.parse(await succeed(command, ["quota", mounted.path, "--json"]));
      expect(JSON.parse(await succeed(command, ["du", join(disk, "upper"), "--json"]))).toMatchObject({
        bytes,
        inodes,
      });
      truncateSync(mounted.at("new"), 0);
      expect(used(mounted.path)).toBe(0);
      await mounted.unmount();
    } finally {
      await succeed("umount", [disk]);
    }
  });
});
