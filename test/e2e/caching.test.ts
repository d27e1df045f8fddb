// What the kernel already knows is not asked again. Proven by the daemon's own request counters:
// once a tree has been walked, walking it again reaches the daemon not even once.
import { beforeAll, describe, expect, it } from "vitest";
import { type Counts, mountForeground, parseCounters } from "./foreground.js";
import { oddLayers } from "./make-image.js";
import { build, cannotMount, imgfs, run, scratch, shell, titleOf } from "./mounted.js";
import { writeLayout } from "./oci-writer.js";

let image: string;

/** find asks for the filesystem's type once a walk; the kernel has no cache for that answer. */
function cacheable({ STATFS: _, ...counts }: Counts): Counts {
  return counts;
}

/** Names, attributes and link targets of the whole tree. */
async function walk(path: string): Promise<number> {
  const listed = await shell(`find '${path}' -printf '%p %m %n %s %T@ %l\\n' | wc -l`);
  return Number(listed);
}

describe.skipIf(cannotMount)(titleOf("the kernel's caches", cannotMount), () => {
  beforeAll(async () => {
    const layout = scratch("layout");
    writeLayout(layout, oddLayers());
    image = await build(`oci:${layout}`);
  });

  it("answer the second find over a read-only mount without a single request", async () => {
    const { path, counters } = await mountForeground(image, "--devices");
    expect(await walk(path)).toBeGreaterThan(2700);
    const before = cacheable(await counters());
    expect(Object.values(before).reduce((sum, count) => sum + count, 0)).toBeGreaterThan(10);
    await walk(path);
    expect(cacheable(await counters())).toEqual(before);
  });

  it("answer the third find over a writable mount without a single request", async () => {
    const { path, counters } = await mountForeground(image, "--devices", "--upper", scratch("upper"));
    await walk(path);
    await walk(path);
    const before = cacheable(await counters());
    await walk(path);
    expect(cacheable(await counters())).toEqual(before);
  });

  it("remember names that do not exist", async () => {
    const { path, counters } = await mountForeground(image);
    const probe = `for n in 1 2 3 4 5; do test ! -e '${path}'/etc/missing-$n; done`;
    await shell(probe);
    const before = await counters();
    await shell(probe);
    expect(await counters()).toEqual(before);
  });

  it("hold file contents: reading again reads nothing", async () => {
    const { path, counters } = await mountForeground(image);
    const read = `cat '${path}'/data/* | sha256sum`;
    const first = await shell(read);
    const { READ: before } = await counters();
    expect(before).toBeGreaterThan(0);
    expect(await shell(read)).toBe(first);
    expect((await counters())["READ"]).toBe(before);
  });

  it("are counted with --stats-on-exit, too", async () => {
    const { path, ended, stderr } = await mountForeground(image, "--stats-on-exit");
    await run("cat", [`${path}/etc/hostname`]);
    expect(await imgfs("umount", path)).toMatchObject({ code: 0 });
    expect(await ended).toMatchObject({ code: 0 });
    expect(parseCounters(stderr())).toMatchObject({ READ: 1 });
  });
});
