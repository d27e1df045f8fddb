// File handles as far as FUSE has them, and the time of birth.
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import {
  build,
  cannotMount,
  type Mounted,
  mount,
  python,
  scratch,
  scratchDirectory,
  shell,
  succeed,
  titleOf,
} from "./mounted.js";

const tool = join(import.meta.dirname, "handles.py");

describe.skipIf(cannotMount)(titleOf("handles", cannotMount), () => {
  let image: string;

  beforeAll(async () => {
    const tree = scratchDirectory("tree");
    await shell(
      `cd '${tree}' && mkdir -p d/e && for f in d/f one two three; do echo $f > $f; done && ln d/f d/e/g`,
    );
    image = await build(`dir:${tree}`);
  });

  const take = async (m: Mounted, paths: readonly string[]): Promise<string[]> =>
    (await succeed("python3", [tool, "take", m.path, ...paths])).trim().split("\n");

  /** What each handle leads to: an inode number or an errno. */
  const open = async (m: Mounted, handles: readonly string[]): Promise<string[]> =>
    (await succeed("python3", [tool, "open", m.path, ...handles])).trim().split("\n");

  const inos = async (m: Mounted, paths: readonly string[]): Promise<string[]> =>
    (await shell(`cd '${m.path}' && stat -c %i ${paths.join(" ")}`)).trim().split("\n");

  const forget = (): Promise<string> => shell("echo 2 > /proc/sys/vm/drop_caches");

  it("lead to the image's objects, whatever the kernel has forgotten and whoever mounts them", async () => {
    const paths = ["d", "d/e", "d/f", "d/e/g", "one"];
    const readOnly = await mount(image);
    const handles = await take(readOnly, paths);
    const expected = await inos(readOnly, paths);
    await forget();
    expect(await open(readOnly, handles)).toEqual(expected);
    await readOnly.unmount();
    const again = await mount(image, "--upper", scratch("upper"));
    expect(await open(again, handles)).toEqual(expected);
    await again.unmount();
  });

  it("lead to copies at their place, and to nothing else once what they were given for is gone", async () => {
    const m = await mount(image, "--upper", scratch("upper"));
    await shell(`cd '${m.path}' && echo x >> two && chmod 600 d/f && mkdir new && echo n > new/file`);
    const paths = ["two", "d/f", "d/e/g", "one", "three", "new", "new/file"];
    const handles = await take(m, paths);
    const expected = await inos(m, paths);
    expect(await open(m, handles)).toEqual(expected);
    await shell(`cd '${m.path}' && rm two three && echo other > three`);
    await forget();
    expect((await open(m, handles)).slice(0, 5)).toEqual([
      "ESTALE",
      expected[1],
      expected[2],
      expected[3],
      "ESTALE",
    ]);
    const upper = (await take(m, ["new", "new/file"])).concat(handles.slice(-2));
    await m.unmount();
    // Nodeids of what was born in the upper directory are given anew: an old handle must not find a new object.
    const later = await mount(image, "--upper", scratch("upper"));
    await shell(`cd '${later.path}' && for i in 1 2 3 4; do echo > n$i; done`);
    expect(new Set(await open(later, upper))).toEqual(new Set(["ESTALE"]));
    await later.unmount();
  });

  it("tell when what was born in the upper directory was born, and of the image's objects nothing", async () => {
    const m = await mount(image, "--upper", scratch("upper"));
    const before = Math.floor(Date.now() / 1000) - 1;
    await shell(`cd '${m.path}' && echo n > new && sleep 0.02 && echo more >> new && chmod 640 one`);
    const births = (await shell(`cd '${m.path}' && stat -c '%W' new one two d`))
      .trim()
      .split("\n")
      .map(Number);
    expect(births[0]).toBeGreaterThanOrEqual(before);
    expect(births.slice(1)).toEqual([0, 0, 0]);
    const script = `import os,sys; s=os.stat(sys.argv[1]); print(s.st_mtime_ns > s.st_atime_ns)`;
    expect(await python(script, m.at("new"))).toBe("True");
    await m.unmount();
  });
});
