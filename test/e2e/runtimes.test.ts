// Container runtimes on a mount. What is run is docs/runtimes.md itself, so that what people copy from there works.
// A runtime that is missing fails its test: setup installs all of them.
import { chmodSync, existsSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { userland } from "./make-image.js";
import {
  build,
  cannotMount,
  cleanLater,
  command,
  isMounted,
  type Outcome,
  run,
  scratch,
  scratchDirectory,
  succeed,
  titleOf,
} from "./mounted.js";
import { writeLayout } from "./oci-writer.js";
import { layerTar } from "./tar-writer.js";

const guide = readFileSync(resolve(import.meta.dirname, "../../docs/runtimes.md"), "utf8");

/** The commands under a heading of the guide, block by block. */
function commands(heading: string): string[] {
  const section = guide.split(/^## /m).find((part) => part.startsWith(`${heading}\n`)) ?? "";
  const blocks = [...section.matchAll(/^```sh\n(.*?)^```$/gms)].map((block) => block[1] as string);
  if (blocks.length === 0) throw new Error(`docs/runtimes.md has no commands under ${heading}`);
  return blocks;
}

/** Where the commands are run: `image`, `bundle` and `upper` are here. */
interface Place {
  readonly folder: string;
  run(script: string): Promise<Outcome>;
  /** Runs it; it must end with 0 and say nothing on stderr. */
  say(script: string): Promise<string>;
  readonly rootfs: string;
  inUpper(name: string): string;
}

describe.skipIf(cannotMount)(titleOf("a container on a mount", cannotMount), () => {
  let image: string;
  let containers = 0;

  beforeAll(async () => {
    const layout = scratch("layout");
    const folder = (name: string, mode = 0o755) => ({ name, type: "dir", mode }) as const;
    const folders = [folder("proc"), folder("dev"), folder("sys"), folder("tmp", 0o1777)];
    writeLayout(layout, [
      userland(["/bin/sh", "/bin/cat", "/usr/bin/id", "/usr/bin/stat"]),
      layerTar(folders),
    ]);
    image = await build(`oci:${layout}`);
  });

  /** A fresh place with the bundle of the guide, mounted. */
  async function prepare(): Promise<Place> {
    const folder = scratchDirectory("place");
    // Ordinary users are to come as far as the mountpoint.
    chmodSync(dirname(folder), 0o711);
    symlinkSync(image, join(folder, "image"));
    const rootfs = join(folder, "bundle/rootfs");
    cleanLater(rootfs, join(folder, "no-pid-file"));
    // Names of containers are the machine's: another run of these tests may be under way.
    const id = `imgfs-${process.pid}-${++containers}`;
    const start = (script: string): Promise<Outcome> =>
      run("sh", ["-euc", script.replace(/ demo\b/, ` ${id}`)], {
        cwd: folder,
        env: { PATH: `${dirname(command)}:${process.env["PATH"]}` },
      });
    const place: Place = {
      folder,
      rootfs,
      run: start,
      say: async (script) => {
        const outcome = await start(script);
        expect(outcome, script).toMatchObject({ code: 0, stderr: "" });
        return outcome.stdout;
      },
      inUpper: (name) => readFileSync(join(folder, "upper", name), "utf8"),
    };
    await place.say(commands("Bundle").join(""));
    expect(isMounted(rootfs)).toBe(true);
    return place;
  }

  async function end(place: Place): Promise<void> {
    await place.say(commands("End").join(""));
    expect(isMounted(place.rootfs)).toBe(false);
  }

  /** Runs the command of the bundle, then one that fails. */
  async function runsBundle(place: Place, script: string): Promise<void> {
    expect(await place.say(script)).toBe("hello from 0\n");
    expect(place.inUpper("written")).toBe("written\n");
    const config = join(place.folder, "bundle/config.json");
    const text = readFileSync(config, "utf8");
    writeFileSync(config, text.replace("echo hello from $(id -u)", "cat /written; exit 7"));
    expect(await place.run(script)).toMatchObject({ code: 7, stdout: "written\n" });
    await end(place);
  }

  /** The recipe that fits the cgroups of this machine. */
  async function crun(): Promise<string> {
    const [unified, hybrid] = commands("crun") as [string, string];
    const filesystem = await succeed("stat", ["-f", "-c", "%T", "/sys/fs/cgroup"]);
    return filesystem === "cgroup2fs\n" ? unified : hybrid;
  }

  it("is run by runc", async () => {
    await runsBundle(await prepare(), commands("runc").join(""));
  });

  it("is run by crun", async () => {
    await runsBundle(await prepare(), await crun());
  });

  it("is run by gVisor", async () => {
    await runsBundle(await prepare(), commands("gVisor").join(""));
  });

  it("is run by bubblewrap, for root and for an ordinary user", async () => {
    const place = await prepare();
    const [asRoot, asUser] = commands("bubblewrap") as [string, string];
    const failing = (script: string): string => script.replace(/'echo.*'/, "'cat /written; exit 7'");
    expect(await place.say(asRoot)).toBe("hello from 0\n");
    expect(place.inUpper("written")).toBe("written\n");
    expect(await place.run(failing(asRoot))).toMatchObject({ code: 7, stdout: "written\n" });
    expect(await place.say(asUser)).toBe("hello from 65534\n");
    expect(place.inUpper("tmp/written")).toBe("written\n");
    expect(await place.run(failing(asUser))).toMatchObject({ code: 7, stdout: "written\n" });
    // The user has no right to a root's file there.
    const refused = await place.run(asUser.replace("/tmp/written", "/written"));
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toContain("Permission denied");
    await end(place);
  });

  it("has its root's files by an id map, in a user namespace of runc and of crun", async () => {
    const place = await prepare();
    await end(place);
    await place.say(commands("User namespace").join(""));
    const config = join(place.folder, "bundle/config.json");
    const asks = "stat -c %u:%g /bin/sh /tmp /written";
    writeFileSync(config, readFileSync(config, "utf8").replace("> /written", `> /written; ${asks}`));
    const said = "hello from 0\n0:0\n0:0\n0:0\n";
    const written = join(place.folder, "upper-mapped/written");
    for (const script of [commands("runc").join(""), await crun()]) {
      expect(await place.say(script)).toBe(said);
      expect(statSync(written)).toMatchObject({ uid: 100_000, gid: 100_000 });
      await place.say("rm bundle/rootfs/written");
    }
    await end(place);
  });

  it("is run by runc from a read-only mount", async () => {
    const place = await prepare();
    await end(place);
    await place.say(commands("Read-only").join(""));
    const outcome = await place.run(commands("runc").join(""));
    expect(outcome).toMatchObject({ code: 2, stdout: "hello from 0\n" });
    expect(outcome.stderr).toContain("Read-only file system");
    await end(place);
    expect(existsSync(join(place.folder, "upper/written"))).toBe(false);
  });
});
