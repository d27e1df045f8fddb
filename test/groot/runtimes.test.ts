// runc and crun run what create has mounted: by the config.json of `imgfs bundle`, and by what create itself prints.
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { userland } from "../e2e/make-image.js";
import {
  cannotMount,
  type Outcome,
  run,
  scratch,
  scratchDirectory,
  succeed,
  titleOf,
} from "../e2e/mounted.js";
import { layerTar } from "../e2e/tar-writer.js";
import { folder, layoutOf, MiB, madeStore, type TestStore } from "./kit.js";

interface Config {
  process: { args: string[]; user: object; env: string[]; cwd: string };
  root: { path: string };
  hostname: string;
  linux: { namespaces: { type: string }[]; uidMappings?: object[] };
}

let containers = 0;

/** Runs a bundle to its end, in a mount namespace with what the runtime of Debian 12 wants of cgroups. */
async function runBundle(runtime: "runc" | "crun", bundle: string): Promise<Outcome> {
  const id = `imgfs-groot-${process.pid}-${++containers}`;
  const filesystem = await succeed("stat", ["-f", "-c", "%T", "/sys/fs/cgroup"]);
  if (runtime === "runc") return run("runc", ["run", "--bundle", bundle, id]);
  const command = `crun --cgroup-manager=disabled run --bundle '${bundle}' ${id}`;
  if (filesystem === "cgroup2fs\n") return run("sh", ["-c", command]);
  const script = `umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec ${command}`;
  return run("unshare", ["-m", "sh", "-c", script]);
}

describe.skipIf(cannotMount).each(["runc", "crun"] as const)(titleOf("%s", cannotMount), (runtime) => {
  let layout: string;
  let store: TestStore;

  beforeAll(() => {
    const folders = [folder("proc"), folder("dev"), folder("sys"), folder("tmp", { mode: 0o1777 })];
    layout = layoutOf(userland(["/bin/sh", "/bin/cat", "/bin/dd", "/usr/bin/id"]), layerTar(folders));
  });

  const edit = (bundle: string, change: (config: Config) => void): void => {
    const path = join(bundle, "config.json");
    const config = JSON.parse(readFileSync(path, "utf8")) as Config;
    change(config);
    writeFileSync(path, JSON.stringify(config));
  };
  const write = ["/bin/sh", "-c", "echo hello from $(/usr/bin/id -u); dd if=/dev/zero of=/big bs=1M count=3"];

  it("runs the bundle of an image, whose quota bites inside", async () => {
    store = await madeStore();
    const limit = ["--disk-limit-size-bytes", String(2 * MiB), "--exclude-image-from-quota"];
    await store.say("imgfs", "create", ...limit, `oci:${layout}`, "my_id");
    const bundle = scratch("bundle");
    expect(await store.say("imgfs", "bundle", "my_id", bundle)).toBe("");
    edit(bundle, (config) => {
      expect(config.process).toMatchObject({
        args: ["/bin/sh"],
        user: { uid: 0, gid: 0 },
        env: ["HOME=/", "PATH=/bin"],
        cwd: "/",
      });
      expect(config.root).toEqual({ path: store.image("my_id", "rootfs"), readonly: false });
      expect(config.hostname).toBe("my_id");
      config.process.args = write;
    });
    const { stdout, stderr, code } = await runBundle(runtime, bundle);
    expect(stdout).toBe("hello from 0\n");
    expect(stderr).toContain("Disk quota exceeded");
    expect(code).toBe(1);
    expect(readFileSync(store.image("my_id", "diff/big")).length).toBeLessThanOrEqual(2 * MiB);
    expect(await store.say("imgfs", "delete", "my_id")).toBe("Image my_id deleted\n");
  });

  it.each(["the store's maps", "maps of its own"])("runs in a user namespace with %s", async (whose) => {
    const maps = ["uid", "gid"].flatMap((kind) => [`--${kind}-mapping`, "0:100000:65536"]);
    const [ofStore, ofImage] = whose === "the store's maps" ? [maps, []] : [[], maps];
    store = await madeStore(...ofStore);
    await store.say("imgfs", "create", ...ofImage, `oci:${layout}`, "mapped");
    // Root of the container passes, and changes nothing of what root of the host goes by.
    for (const path of [store.path, store.image("."), store.image("mapped")]) {
      const { mode, uid, gid } = statSync(path);
      const isStores = path !== store.image("mapped") && ofStore.length === 0;
      expect([mode & 0o777, uid, gid]).toEqual(isStores ? [0o701, 0, 0] : [0o710, 0, 100_000]);
    }
    const bundle = scratch("bundle");
    await store.say("imgfs", "bundle", store.image("mapped"), bundle);
    edit(bundle, (config) => {
      expect(config.linux.uidMappings).toEqual([{ containerID: 0, hostID: 100_000, size: 65_536 }]);
      config.process.args = ["/bin/sh", "-c", "echo hello from $(/usr/bin/id -u); echo written > /written"];
    });
    await openWay(dirname(store.path));
    expect(await runBundle(runtime, bundle)).toMatchObject({ code: 0, stdout: "hello from 0\n" });
    expect(await succeed("stat", ["-c", "%u", store.image("mapped", "diff/written")])).toBe("100000\n");
  });

  it("runs a spec that Garden would make of create's output, whose quota bites inside", async () => {
    store = await madeStore();
    const limit = ["--disk-limit-size-bytes", String(MiB), "--exclude-image-from-quota"];
    const said = await store.say("grootfs", "create", ...limit, `oci://${layout}`, "garden");
    const desired = JSON.parse(said) as { process: { env: string[] }; root: { path: string } };
    const bundle = scratchDirectory("bundle");
    await succeed("runc", ["spec", "--bundle", bundle]);
    edit(bundle, (config) => {
      config.root.path = desired.root.path;
      Object.assign(config.root, { readonly: false });
      Object.assign(config.process, {
        terminal: false,
        env: desired.process.env,
        args: ["/bin/sh", "-c", "echo $PATH > /w; cat /w; dd if=/dev/zero of=/big bs=64k count=32"],
      });
    });
    const outcome = await runBundle(runtime, bundle);
    expect(outcome).toMatchObject({ code: 1, stdout: "/bin\n" });
    expect(outcome.stderr).toContain("Disk quota exceeded");
    expect(await store.say("grootfs", "stats", "garden")).toContain(`"exclusive_bytes_used":${MiB},`);
    expect(readFileSync(store.image("garden", "diff/w"), "utf8")).toBe("/bin\n");
  });
});

/** Lets other ids pass to the root filesystem: the runtime's own process has one of them there. */
async function openWay(path: string): Promise<void> {
  for (let at = path; at !== "/tmp" && at !== "/"; at = dirname(at)) await succeed("chmod", ["o+x", at]);
}

describe.skipIf(cannotMount)(titleOf("imgfs bundle", cannotMount), () => {
  const small = (): string => layoutOf(userland(["/bin/sh"]));

  it("refuses what it cannot make a bundle of, and writes nothing", async () => {
    const store = await madeStore();
    const bundle = scratch("bundle");
    const failing = (...words: string[]): Promise<Outcome> => store.call("imgfs", "bundle", ...words, bundle);
    expect(await failing("none")).toMatchObject({ code: 10, stderr: "imgfs: Image `none` not found.\n" });
    await store.say("imgfs", "create", "--without-mount", `oci:${small()}`, "bare");
    expect(await failing("bare")).toMatchObject({
      code: 1,
      stderr: "imgfs: image bare is not mounted\nhint: create it without --without-mount\n",
    });
    await store.say("imgfs", "create", `oci:${small()}`, "x");
    expect(await failing("-u", "nobody", "x")).toMatchObject({
      code: 1,
      stderr: "imgfs: image x: no user nobody in the image's /etc/passwd\n",
    });
    expect(existsSync(bundle)).toBe(false);
    await store.say("imgfs", "bundle", "x", bundle);
    expect(await failing("x")).toMatchObject({
      code: 1,
      stderr: `imgfs: ${bundle}/config.json is there already\n`,
    });
  });

  it("makes one for a user without privileges where that is asked for", async () => {
    const store = await madeStore();
    await store.say("imgfs", "create", `oci:${small()}`, "x");
    const bundle = scratch("bundle");
    await store.say("imgfs", "bundle", "--rootless", "x", bundle);
    const { linux } = JSON.parse(readFileSync(join(bundle, "config.json"), "utf8")) as Config;
    expect(linux.namespaces.map(({ type }) => type)).toEqual(["pid", "ipc", "uts", "mount", "user"]);
    expect(linux).not.toHaveProperty("resources");
  });
});
