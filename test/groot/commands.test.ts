// Every command of the store under both names: standard output, standard error and exit code, literally. A success says
// the same under both; a failure is told on stdout as GrootFS tells it, or on stderr as we do.
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  cannotMount,
  isMounted,
  run,
  scratch,
  scratchDirectory,
  shell,
  succeed,
  titleOf,
  until,
} from "../e2e/mounted.js";
import { layerTar } from "../e2e/tar-writer.js";
import {
  call,
  file,
  folder,
  layoutOf,
  MiB,
  madeStore,
  names,
  newStore,
  program,
  tarOf,
  told,
} from "./kit.js";

const inCi = process.env["CI"] !== undefined;
it.runIf(inCi)("the store's commands are tested in CI", () => expect(cannotMount).toBeUndefined());

const small = (): string => tarOf(folder("etc/"), file("etc/motd", "hello\n"));

describe.skipIf(cannotMount).each(names)(titleOf("%s", cannotMount), (name) => {
  describe("init-store", () => {
    it("makes a store, says nothing, and finds it made the second time", async () => {
      const store = newStore();
      const quiet = { code: 0, stdout: "", stderr: "" };
      expect(await store.call(name, "init-store")).toMatchObject(quiet);
      expect(statSync(store.path).mode & 0o777).toBe(0o700);
      expect(await store.call(name, "init-store")).toMatchObject(quiet);
      expect(
        await store.call(name, "init-store", "--store-size-bytes", "1073741824", "--with-direct-io"),
      ).toMatchObject(quiet);
    });

    it("keeps its id maps, and refuses others", async () => {
      const store = newStore();
      const maps = (kind: string, ...all: string[]): string[] =>
        all.flatMap((map) => [`--${kind}-mapping`, map]);
      const uids = maps("uid", "1:100000:65536", "0:1000:1");
      const gids = maps("gid", "0:1000:1", "1:100000:65536");
      await store.say(name, "init-store", ...uids, ...gids);
      await store.say(name, "init-store", ...gids, ...uids);
      expect(await store.call(name, "init-store", ...maps("uid", "0:1000:1"), ...gids)).toMatchObject(
        told(name, "provided UID mappings do not match those already configured in the store", 1),
      );
      expect(await store.call(name, "init-store", ...uids, ...maps("gid", "0:7:1"))).toMatchObject(
        told(name, "provided GID mappings do not match those already configured in the store", 1),
      );
    });

    it("refuses mappings that are none", async () => {
      for (const kind of ["uid", "gid"]) {
        expect(await newStore().call(name, "init-store", `--${kind}-mapping`, "a:b:c")).toMatchObject(
          told(name, `parsing ${kind}-mapping: expected integer`, 2),
        );
      }
    });

    it("takes only an empty or missing folder, and leaves another as it is", async () => {
      const path = scratchDirectory("mine");
      writeFileSync(join(path, "precious"), "");
      const store = newStore(path);
      const { code, stdout, stderr } = await store.call(name, "init-store");
      expect(code).not.toBe(0);
      expect(stdout + stderr).toContain(path);
      expect((await store.call(name, "delete-store")).code).not.toBe(0);
      expect(readdirSync(path)).toEqual(["precious"]);
    });
  });

  describe("delete-store", () => {
    it("unmounts and removes everything, and a store that is not there is deleted", async () => {
      const store = await madeStore();
      await store.say(name, "create", small(), "a");
      expect(await store.say(name, "delete-store")).toBe("");
      expect(isMounted(store.image("a", "rootfs"))).toBe(false);
      expect(existsSync(store.path)).toBe(false);
      expect(await store.say(name, "delete-store")).toBe("");
    });
  });

  describe("create", () => {
    it("prints one line of JSON, and the root filesystem is mounted and writable", async () => {
      const store = await madeStore();
      const rootfs = store.image("my-id", "rootfs");
      expect(await store.say(name, "create", small(), "my-id")).toBe(
        `{"ociVersion":"","process":{"user":{"uid":0,"gid":0},"cwd":""},"root":{"path":"${rootfs}"}}\n`,
      );
      expect(readFileSync(join(rootfs, "etc/motd"), "utf8")).toBe("hello\n");
      writeFileSync(join(rootfs, "new"), "new\n");
      const layout = layoutOf(layerTar([file("one", "1")]));
      expect(await store.say(name, "create", `oci://${layout}:latest`, "two")).toBe(
        `{"ociVersion":"","process":{"user":{"uid":0,"gid":0},"env":["PATH=/bin"],"cwd":""},"root":{"path":"${store.image("two", "rootfs")}"}}\n`,
      );
      const config = JSON.parse(readFileSync(store.image("two", "image.json"), "utf8")) as {
        readonly config: object;
      };
      expect(config.config).toEqual({ Env: ["PATH=/bin"], Cmd: ["/bin/sh"] });
    });

    it("prints the image's path alone where that is asked for", async () => {
      const store = await madeStore();
      expect(await store.say(name, "create", "--format", "path", small(), "x")).toBe(`${store.image("x")}\n`);
    });

    it("makes an image of a directory, and refuses it under --no-dir", async () => {
      const store = await madeStore();
      const tree = scratchDirectory("tree");
      writeFileSync(join(tree, "a"), "a");
      await store.say(name, "create", tree, "x");
      expect(readFileSync(store.image("x", "rootfs/a"), "utf8")).toBe("a");
      expect(await store.call(name, "create", "--no-dir", tree, "y")).toMatchObject(
        told(name, "invalid base image: directory provided instead of a tar file", 1),
      );
    });

    it("takes the arguments that GrootFS takes, and wants two of them", async () => {
      const store = await madeStore();
      for (const words of [[], ["a"], ["a", "b", "c"]]) {
        const outcome = await store.call(name, "create", ...words);
        if (name === "imgfs") expect(outcome).toMatchObject({ code: 2, stdout: "" });
        else
          expect(outcome).toMatchObject(
            told(name, "invalid arguments - usage: create [options] <image> <id>", 1),
          );
      }
      const flags = [
        "--skip-layer-validation",
        "--with-mount",
        "--without-clean",
        "--insecure-registry",
        "a:1",
      ];
      const global = [
        "--tardis-bin",
        "t",
        "--newuidmap-bin",
        "n",
        "--newgidmap-bin",
        "n",
        "--metron-endpoint",
        "m",
      ];
      await store.say(name, ...global, "create", ...flags, small(), "x");
    });

    it("refuses what cannot be, before anything is done", async () => {
      const store = await madeStore();
      const tar = small();
      const refusals: readonly (readonly [text: string, code: number, ...words: string[]])[] = [
        ["invalid argument: disk limit cannot be negative", 2, "--disk-limit-size-bytes", "-5", tar, "x"],
        ["invalid argument: clean threshold cannot be negative", 2, "--threshold-bytes", "-5", tar, "x"],
        [
          "with-clean and without-clean cannot be used together",
          2,
          "--with-clean",
          "--without-clean",
          tar,
          "x",
        ],
        ["parsing uid-mapping: expected integer", 2, "--uid-mapping", "x:1:1", tar, "x"],
        ["parsing gid-mapping: unexpected EOF", 2, "--gid-mapping", "1:1", tar, "x"],
        ["id `this/is/not/okay` contains invalid characters: `/`", 2, tar, "this/is/not/okay"],
      ];
      for (const [text, code, ...words] of refusals) {
        expect(await store.call(name, "create", ...words), text).toMatchObject(told(name, text, code));
      }
      for (const id of ["", ".", ".."]) expect((await store.call(name, "create", tar, id)).code).not.toBe(0);
      expect(await store.say(name, "list")).toBe("Store empty\n");
    });

    it("wants a store that is made", async () => {
      const store = newStore();
      expect(await store.call(name, "create", small(), "x")).toMatchObject(
        name === "grootfs"
          ? told(name, "Store path is not initialized. Please run init-store.", 1)
          : { code: 10, stdout: "", stderr: expect.stringMatching(/^imgfs: [^\n]+\n(hint: [^\n]+\n)?$/) },
      );
      expect(existsSync(store.path)).toBe(false);
    });

    it("refuses an id that is taken", async () => {
      const store = await madeStore();
      await store.say(name, "create", small(), "random-id");
      expect(await store.call(name, "create", small(), "random-id")).toMatchObject(
        told(name, "image for id `random-id` already exists", 1),
      );
    });

    it("names a source that is not there", async () => {
      const store = await madeStore();
      const none = scratch("none");
      for (const source of [none, `oci://${none}:latest`]) {
        expect(await store.call(name, "create", source, "x")).toMatchObject(
          name === "grootfs"
            ? told(name, "Image source doesn't exist", 1)
            : {
                code: 10,
                stdout: "",
                stderr: `imgfs: ${none}${source === none ? "" : ":latest"}: no such file or directory\n`,
              },
        );
      }
    });

    it("maps ids as the store does, and as its own options say", async () => {
      const store = await madeStore();
      const tar = tarOf(
        file("root", "", { uid: 0, gid: 0 }),
        file("user", "", { uid: 10, gid: 20 }),
        file("far", "", { uid: 99, gid: 99 }),
      );
      const maps = ["--uid-mapping", "0:1000:1", "--uid-mapping", "1:100000:50"];
      const gids = ["--gid-mapping", "0:2000:1", "--gid-mapping", "1:200000:50"];
      await store.say(name, "create", ...maps, ...gids, tar, "x");
      const owner = (path: string): readonly [number, number] => {
        const { uid, gid } = statSync(store.image("x", "rootfs", path));
        return [uid, gid];
      };
      expect(owner("root")).toEqual([1000, 2000]);
      expect(owner("user")).toEqual([100_009, 200_019]);
      // What has no id on the host is nobody's, never that of the same number.
      expect(owner("far")).toEqual([65_534, 65_534]);
    });
  });

  describe("create with a limit", () => {
    const zeros = (mebibytes: number): Buffer =>
      layerTar([file(`f${mebibytes}`, Buffer.alloc(mebibytes * MiB))]);

    it("refuses layers that are larger as they are stored", async () => {
      const store = await madeStore();
      const tar = tarOf(file("f", Buffer.alloc(MiB)));
      const { size } = statSync(tar);
      expect(await store.call(name, "create", "--disk-limit-size-bytes", "10", tar, "x")).toMatchObject(
        told(name, `layers exceed disk quota ${size}/10 bytes`, 1),
      );
      await store.say(
        name,
        "create",
        "--disk-limit-size-bytes",
        "10",
        "--exclude-image-from-quota",
        tar,
        "x",
      );
      await store.say(name, "create", "--disk-limit-size-bytes", "0", tar, "y");
    });

    it("refuses a layer that grows beyond it", async () => {
      const store = await madeStore();
      const layout = layoutOf(zeros(4));
      expect(
        await store.call(name, "create", "--disk-limit-size-bytes", String(2 * MiB), `oci://${layout}`, "x"),
      ).toMatchObject(told(name, "uncompressed layer size exceeds quota", 1));
      expect(await store.say(name, "list")).toBe("Store empty\n");
    });

    it("refuses an image that is larger than it with all its layers", async () => {
      const store = await madeStore();
      const layout = layoutOf(zeros(3), zeros(2));
      const text = "disk limit is smaller than volume size";
      const whole = `making image: creating image: applying disk limits: ${text}`;
      expect(
        await store.call(name, "create", "--disk-limit-size-bytes", String(4 * MiB), `oci://${layout}`, "x"),
      ).toMatchObject(told(name, name === "grootfs" ? whole : text, 1));
      expect(await store.say(name, "list")).toBe("Store empty\n");
    });
  });

  describe("create of a damaged image", () => {
    /** A layout whose one layer, or what is said of it, is changed. */
    function damaged(change: (blob: string, data: Buffer) => Buffer): string {
      const layer = layerTar([file("f", "as it was")]);
      const layout = layoutOf(layer);
      const blobs = join(layout, "blobs/sha256");
      for (const name of readdirSync(blobs)) {
        const path = join(blobs, name);
        writeFileSync(path, change(name, readFileSync(path)));
      }
      return layout;
    }
    const isJson = (data: Buffer): boolean => data[0] === 0x7b;
    const hex = "[0-9a-f]{64}";

    it.each([
      [
        "size",
        (data: Buffer) => Buffer.concat([data, Buffer.from("x")]),
        /^layer size is different from the value in the manifest; expected: \d+, actual \d+\n$/,
      ],
      [
        "digest",
        (data: Buffer) => {
          // The time in the header of gzip: what is packed stays whole.
          data[4] = (data[4] as number) ^ 1;
          return data;
        },
        new RegExp(`^layerID digest mismatch: expected: ${hex}, actual: ${hex}\\n$`),
      ],
    ])("names a wrong %s, and leaves nothing", async (_, change, words) => {
      const store = await madeStore();
      const layout = damaged((_name, data) => (isJson(data) ? data : change(data)));
      const outcome = await store.call(name, "create", `oci://${layout}`, "x");
      expect(outcome.code).toBe(1);
      if (name === "grootfs") expect(outcome.stdout).toMatch(words);
      else
        expect(outcome).toMatchObject({
          stdout: "",
          stderr: expect.stringMatching(/^imgfs: create: [^\n]+\n$/),
        });
      expect(await store.say(name, "list")).toBe("Store empty\n");
    });
  });

  describe("create --without-mount", () => {
    it("prints a mount that mount(8) makes, with the quota in it", async () => {
      const store = await madeStore();
      const said = await store.say(
        name,
        "create",
        "--without-mount",
        "--disk-limit-size-bytes",
        String(MiB),
        "--exclude-image-from-quota",
        small(),
        "x",
      );
      const rootfs = store.image("x", "rootfs");
      expect(isMounted(rootfs)).toBe(false);
      const { root, mounts } = JSON.parse(said) as {
        readonly root: { readonly path: string };
        readonly mounts: readonly {
          readonly destination: string;
          readonly type: string;
          readonly source: string;
          readonly options: readonly string[];
        }[];
      };
      expect(root.path).toBe(rootfs);
      expect(mounts).toEqual([
        {
          destination: "/",
          type: "fuse3.imgfs",
          source: expect.stringMatching(/\.imgfs$/),
          options: expect.arrayContaining([
            `upperdir=${store.image("x", "diff")}`,
            `quota=${MiB}`,
            "quota-mode=exclusive",
          ]),
        },
      ]);
      const [mount] = mounts;
      // As mount.fuse3 starts it: by the name of the type, found in PATH.
      const bin = scratchDirectory("bin");
      symlinkSync(program("imgfs"), join(bin, "fuse3.imgfs"));
      const { source = "", options = [], type = "" } = mount ?? {};
      await succeed("mount.fuse3", [source, rootfs, "-t", type, "-o", options.join(",")], {
        env: { PATH: `${bin}:${process.env["PATH"]}` },
      });
      expect(readFileSync(join(rootfs, "etc/motd"), "utf8")).toBe("hello\n");
      expect(await shell(`dd if=/dev/zero of='${rootfs}/big' bs=1M count=2 2>&1 || :`)).toContain(
        "Disk quota exceeded",
      );
      expect(await store.say(name, "delete", "x")).toBe("Image x deleted\n");
      expect(isMounted(rootfs)).toBe(false);
    });
  });

  describe("create --with-clean", () => {
    it("starts a clean that nobody waits for, which logs to its own file", async () => {
      const store = await madeStore();
      await store.say(name, "create", tarOf(file("unused", "1")), "a");
      await store.say(name, "delete", "a");
      const layers = (): string[] =>
        readdirSync(join(store.path, "content")).filter((each) => !each.includes("index"));
      expect(layers()).toHaveLength(1);
      const log = scratch("clean-log");
      await store.say(name, "create", "--with-clean", "--clean-log-file", log, tarOf(file("used", "2")), "b");
      await until("the clean is over", () => layers().length === 1);
      if (name === "grootfs") {
        await until("it has logged", () => existsSync(log) && readFileSync(log, "utf8").includes("ending"));
      }
      expect(readFileSync(store.image("b", "rootfs/used"), "utf8")).toBe("2");
    });
  });

  describe("delete", () => {
    it("takes an image away, by its id or its path", async () => {
      const store = await madeStore();
      for (const argument of ["x", store.image("x")]) {
        await store.say(name, "create", small(), "x");
        expect(await store.say(name, "delete", argument)).toBe("Image x deleted\n");
        expect(isMounted(store.image("x", "rootfs"))).toBe(false);
        expect(existsSync(store.image("x"))).toBe(false);
      }
    });

    it("has nothing to do where there is no image, no store or no such path, which is no failure", async () => {
      const store = await madeStore();
      expect(await store.say(name, "delete", "non-existing-id")).toBe(
        "Image `non-existing-id` not found. Skipping delete.\n",
      );
      expect(await store.say(name, "delete", store.image("non_existing"))).toBe(
        "Image `non_existing` not found. Skipping delete.\n",
      );
      const outside = "/Iamnot/in/the/storage/images/1234/rootfs";
      expect(await store.say(name, "delete", outside)).toBe(
        `path \`${outside}\` is outside store path Skipping delete.\n`,
      );
      expect(await newStore().say(name, "delete", "x")).toBe("Image `x` not found. Skipping delete.\n");
    });

    it("says when an image is in use, which keeps it", async () => {
      const store = await madeStore();
      await store.say(name, "create", small(), "x");
      const script = `exec 3< '${store.image("x", "rootfs/etc/motd")}'; '${program(name)}' --store '${store.path}' delete x`;
      const outcome = await run("sh", ["-c", script]);
      const text = `deleting image path '${store.image("x")}' failed`;
      if (name === "grootfs") expect(outcome).toMatchObject(told(name, text, 1));
      else {
        const rootfs = store.image("x", "rootfs");
        expect(outcome).toMatchObject(told(name, `${text}: umount: ${rootfs}: target is busy`, 1));
      }
      expect(isMounted(store.image("x", "rootfs"))).toBe(true);
      expect(readFileSync(store.image("x", "rootfs/etc/motd"), "utf8")).toBe("hello\n");
      expect(await store.say(name, "delete", "x")).toBe("Image x deleted\n");
    });

    it("wants an id", async () => {
      const store = await madeStore();
      if (name === "grootfs") {
        expect(await store.call(name, "delete")).toMatchObject(told(name, "id was not specified", 1));
      } else expect(await store.call(name, "delete")).toMatchObject({ code: 2, stdout: "" });
      expect(await store.call(name, "delete", "")).toMatchObject(told(name, "id was not specified", 2));
    });

    it("leads nowhere else, whatever the path", async () => {
      const store = await madeStore();
      const precious = scratchDirectory("precious");
      for (const path of ["..", "../content", `${store.path}/images/../content`, `${store.path}/images/..`]) {
        await store.call(name, "delete", path);
      }
      symlinkSync(precious, store.image("link"));
      await store.call(name, "delete", "link");
      expect(existsSync(precious)).toBe(true);
      expect(existsSync(join(store.path, "content"))).toBe(true);
    });
  });

  describe("stats", () => {
    it("prints what the image takes, and what it may", async () => {
      const store = await madeStore();
      const tar = tarOf(file("big", Buffer.alloc(5 * MiB, 1)));
      await store.say(name, "create", "--disk-limit-size-bytes", String(50 * MiB), tar, "x");
      writeFileSync(store.image("x", "rootfs/new"), Buffer.alloc(4 * MiB));
      const said = await store.say(name, "stats", "x");
      const exclusive = /"exclusive_bytes_used":(\d+)/.exec(said)?.[1];
      expect(Number(exclusive)).toBeGreaterThanOrEqual(4 * MiB);
      expect(Number(exclusive)).toBeLessThanOrEqual(4 * MiB + 8192);
      expect(said).toBe(
        `{"disk_usage":{"total_bytes_used":${5 * MiB + Number(exclusive)},"exclusive_bytes_used":${exclusive},"quota_size_bytes":${45 * MiB},"committed_space_bytes":${50 * MiB}}}\n`,
      );
      expect(await store.say(name, "stats", store.image("x"))).toBe(said);
      expect(await store.say(name, "metrics", "x")).toBe(
        `{"disk_usage":{"total_bytes_used":${5 * MiB + Number(exclusive)},"exclusive_bytes_used":${exclusive}}}\n`,
      );
    });

    it("names an image that is not there, and a path that is none of the store's", async () => {
      const store = await madeStore();
      for (const argument of ["invalid-id", store.image("invalid-id")]) {
        expect(await store.call(name, "stats", argument)).toMatchObject(
          told(name, "Image `invalid-id` not found.", 10),
        );
      }
      const outside = "/Iamnot/in/the/storage/images/1234/rootfs";
      expect(await store.call(name, "stats", outside)).toMatchObject(
        told(name, `path \`${outside}\` is outside store path`, 2),
      );
      const usage = await store.call(name, "stats");
      if (name === "imgfs") expect(usage).toMatchObject({ code: 2, stdout: "" });
      else
        expect(usage).toMatchObject(
          told(name, "invalid arguments - usage: stats [options] <id|image path>", 1),
        );
    });
  });

  describe("list", () => {
    it("prints the path of each image", async () => {
      const store = await madeStore();
      expect(await store.say(name, "list")).toBe("Store empty\n");
      for (const id of ["a", "b"]) await store.say(name, "create", small(), id);
      const said = await store.say(name, "list");
      expect(said.split("\n").sort()).toEqual(["", store.image("a"), store.image("b")]);
    });

    it("wants a store", async () => {
      const { path, call: callStore } = newStore();
      expect(await callStore(name, "list")).toMatchObject(told(name, `no store found at ${path}`, 10));
    });
  });

  describe("clean", () => {
    it("removes the layers that no image uses, and says so", async () => {
      const store = await madeStore();
      await store.say(name, "create", tarOf(file("a", "1")), "a");
      await store.say(name, "create", tarOf(file("b", "2")), "b");
      await store.say(name, "delete", "a");
      const content = (): number => readdirSync(join(store.path, "content")).length;
      const before = content();
      expect(await store.say(name, "clean", "--threshold-bytes", String(1 << 30))).toBe(
        "threshold not reached: skipping clean\n",
      );
      expect(content()).toBe(before);
      expect(await store.say(name, "clean")).toBe("clean completed\n");
      expect(content()).toBeLessThan(before);
      expect(readFileSync(store.image("b", "rootfs/b"), "utf8")).toBe("2");
    });

    it("measures what is committed, quotas and layers, or what is used", async () => {
      const store = await madeStore();
      const tar = tarOf(file("a", Buffer.alloc(MiB, 1)));
      await store.say(name, "create", "--disk-limit-size-bytes", String(100 * MiB), tar, "a");
      const clean = (...words: string[]): Promise<string> =>
        store.say(name, "clean", "--threshold-bytes", String(50 * MiB), ...words);
      expect(await clean()).toBe("clean completed\n");
      expect(await clean("--threshold-mode", "committed")).toBe("clean completed\n");
      expect(await clean("--threshold-mode", "used")).toBe("threshold not reached: skipping clean\n");
    });

    it("waits three seconds for another clean, and no longer", async () => {
      const store = await madeStore();
      const lock = join(store.path, "locks/groot-gc-lock.lock");
      const script = `exec 3> '${lock}'; flock 3; '${program(name)}' --store '${store.path}' clean 3>&-`;
      const outcome = await run("sh", ["-c", script]);
      expect(outcome).toMatchObject(
        told(name, "timed out waiting for the 'groot-gc-lock' file lock after '3s'", 1),
      );
    });

    it("keeps the layers of images that it is told to ignore", async () => {
      const store = await madeStore();
      const [kept, other] = [tarOf(file("kept", "1")), tarOf(file("other", "2"))];
      for (const tar of [kept, other]) await store.say(name, "pull", tar);
      const content = (): number => readdirSync(join(store.path, "content")).length;
      const before = content();
      await store.say(name, "clean", "--ignore-image", kept);
      expect(content()).toBe(before / 2);
      await store.say(name, "clean");
      expect(content()).toBe(0);
    });

    it("refuses a negative threshold, and has nothing to do without a store", async () => {
      const store = newStore();
      const text = `no store found at ${store.path}`;
      expect(await store.call(name, "clean")).toMatchObject(
        name === "grootfs" ? { code: 0, stdout: `${text}\n`, stderr: "" } : told(name, text, 10),
      );
      expect(await store.call(name, "clean", "--threshold-bytes", "-1")).toMatchObject(
        told(name, "invalid argument: clean threshold cannot be negative", 2),
      );
    });
  });

  describe("capacity", () => {
    it("prints what the config file says, else the size of the filesystem", async () => {
      const config = scratch("config.yaml");
      writeFileSync(config, "init:\n  store_size_bytes: 4321\n");
      expect(await call(name, "--config", config, "capacity")).toMatchObject({
        code: 0,
        stdout: '{"capacity":4321}\n',
        stderr: "",
      });
      const [blocks, size] = (await succeed("stat", ["-f", "-c", "%b %S", scratchDirectory("x")]))
        .split(" ")
        .map(Number);
      const store = newStore();
      expect(await store.say(name, "capacity")).toBe(
        `{"capacity":${(blocks as number) * (size as number)}}\n`,
      );
    });
  });

  describe("pull", () => {
    it("brings layers into the store, and a create needs no source any more", async () => {
      const store = await madeStore();
      const tar = small();
      expect(await store.say(name, "pull", tar)).toBe("");
      expect(await store.say(name, "list")).toBe("Store empty\n");
      expect(readdirSync(join(store.path, "content")).length).toBeGreaterThan(0);
      await store.say(name, "create", tar, "x");
      expect(readFileSync(store.image("x", "rootfs/etc/motd"), "utf8")).toBe("hello\n");
    });
  });

  describe("generate-volume-size-metadata", () => {
    it("says nothing, and needs a store", async () => {
      const store = await madeStore();
      await store.say(name, "create", small(), "x");
      expect(await store.say(name, "generate-volume-size-metadata")).toBe("");
      expect((await newStore().call(name, "generate-volume-size-metadata")).code).not.toBe(0);
    });
  });

  describe("the config file", () => {
    it("counts where no option does", async () => {
      const store = await madeStore();
      const config = scratch("config.yaml");
      writeFileSync(
        config,
        `store: ${store.path}\ncreate:\n  without_mount: true\n  disk_limit_size_bytes: ${50 * MiB}\n`,
      );
      const configured = (...words: string[]): ReturnType<typeof call> =>
        call(name, "--config", config, ...words);
      expect((await configured("create", small(), "x")).stdout).toContain('"mounts":[{');
      expect((await configured("create", "--with-mount", small(), "y")).stdout).not.toContain("mounts");
      expect(await configured("list")).toMatchObject({ code: 0, stderr: "" });
      expect((await configured("stats", "y")).stdout).toContain(`"committed_space_bytes":${50 * MiB}}`);
      expect(await configured("create", "--disk-limit-size-bytes", "1", small(), "z")).toMatchObject({
        code: 1,
      });
    });

    it("is refused when it is not there or is none", async () => {
      const none = scratch("none.yaml");
      expect(await call(name, "--config", none, "list")).toMatchObject(
        told(name, `invalid config path: open ${none}: no such file or directory`, 1),
      );
      writeFileSync(none, "create: 5\n");
      expect(await call(name, "--config", none, "list")).toMatchObject(
        told(name, `invalid config file: ${none}: create is no list of keys with values`, 1),
      );
      writeFileSync(none, "create:\n  disk_limit_size_bytes: -1\n");
      expect(await call(name, "--config", none, "list")).toMatchObject(
        told(name, "invalid argument: disk limit cannot be negative", 2),
      );
    });
  });

  describe("metrics", () => {
    it("are kept under GrootFS's names", async () => {
      const store = await madeStore();
      const [file, lines] = [scratch("imgfs.prom"), scratch("metrics")];
      const places = ["--metrics-file", file, "--metrics-log", lines];
      const tar = small();
      await store.say(name, ...places, "create", "--disk-limit-size-bytes", String(MiB), tar, "x");
      await store.say(name, ...places, "stats", "x");
      await store.say(name, ...places, "delete", "x");
      await store.say(name, ...places, "clean");
      const kept = readFileSync(file, "utf8");
      const measured = [
        "ImageCreationTime",
        "ImageStatsTime",
        "ImageDeletionTime",
        "ImageCleanTime",
        "UnpackTime",
        "SharedLockingTime",
        "ExclusiveLockingTime",
        "UnusedLayersSize",
        "UsedLayersSize",
        "DownloadedLayersSizeInBytes",
        "CommittedQuotaInBytes",
        "UsedBackingStoreInBytes",
      ];
      for (const each of measured) {
        expect(kept, each).toMatch(
          new RegExp(`^${each}\\{origin="grootfs",unit="(nanos|bytes)"\\} \\d+$`, "m"),
        );
      }
      expect(readFileSync(lines, "utf8")).toContain(
        '"name":"CommittedQuotaInBytes","value":1048570,"unit":"bytes"',
      );
      rmSync(file);
    });
  });
});

describe.skipIf(cannotMount)(titleOf("GrootFS's logs", cannotMount), () => {
  it("are lines of lager on stderr, of the level that was asked for", async () => {
    const store = newStore();
    const parse = (text: string): { level: string; message: string; data: Record<string, unknown> }[] =>
      text
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line) as { level: string; message: string; data: Record<string, unknown> });
    const debug = async (...words: string[]): ReturnType<typeof store.call> =>
      store.call("grootfs", "--log-level", "debug", ...words);
    expect(parse((await debug("init-store")).stderr).map(({ message }) => message)).not.toContain(
      "grootfs.init-store.store-already-initialized",
    );
    expect(parse((await debug("init-store")).stderr).map(({ message }) => message)).toContain(
      "grootfs.init-store.store-already-initialized",
    );
    const created = await debug("create", small(), "x");
    expect(parse(created.stderr).map(({ level, message }) => `${level} ${message}`)).toEqual(
      expect.arrayContaining([
        "info grootfs.create.groot-creating.starting",
        "info grootfs.create.groot-creating.ending",
      ]),
    );
    const skipped = await debug("delete", "/path/to/random-id");
    expect(skipped.stderr).toContain('"id":"/path/to/random-id"');
    const failed = await store.call("grootfs", "--log-level", "error", "create", small(), "x");
    expect(failed.stdout).toBe("image for id `x` already exists\n");
    expect(parse(failed.stderr)).toEqual([
      expect.objectContaining({
        level: "error",
        message: "grootfs.create.creating",
        data: { error: "image for id `x` already exists", session: "1" },
      }),
    ]);
  });

  it("go to a file at level info, and say nothing of passwords", async () => {
    const store = await madeStore();
    const log = scratch("log");
    const words = [
      "--log-file",
      log,
      "--log-level",
      "debug",
      "create",
      "--username",
      "me",
      "--password",
      "s3cret",
    ];
    const outcome = await store.call("grootfs", ...words, small(), "x");
    expect(outcome).toMatchObject({ code: 0, stderr: "" });
    expect(readFileSync(log, "utf8")).not.toContain("s3cret");
    const quiet = scratch("log");
    await store.call("grootfs", "--log-file", quiet, "delete", "x");
    expect(readFileSync(quiet, "utf8")).toContain('"level":"info"');
    expect(readFileSync(quiet, "utf8")).not.toContain('"level":"debug"');
    const missing = join(scratch("none"), "log");
    expect(await store.call("grootfs", "--log-file", missing, "list")).toMatchObject({
      code: 1,
      stdout: `failed to configure logger: open ${missing}: no such file or directory\n`,
      stderr: "",
    });
  });
});

describe("GrootFS's command line", () => {
  it("tells wrong usage as Go's flag package does, on stdout", async () => {
    const first = async (...words: string[]): Promise<string> => {
      const { code, stdout, stderr } = await call("grootfs", ...words);
      return `${code} ${stdout.split("\n", 1)[0]}${stderr}`;
    };
    expect(await first("--nope", "list")).toBe("1 Incorrect Usage: flag provided but not defined: -nope");
    expect(await first("create", "--nope", "a", "b")).toBe(
      "1 Incorrect Usage: flag provided but not defined: -nope",
    );
    expect(await first("clean", "--threshold-bytes", "many")).toBe(
      '1 Incorrect Usage: invalid value "many" for flag -threshold-bytes: parse error',
    );
    expect(await first("clean", "--threshold-bytes")).toBe(
      "1 Incorrect Usage: flag needs an argument: -threshold-bytes",
    );
    expect(await first("dance")).toBe("3 No help topic for 'dance'");
    expect(await first("--version")).toMatch(/^0 grootfs version \d+\.\d+\.\d+$/);
    expect(await first()).toMatch(/^0 Usage: grootfs /);
  });

  it("reads flags with one dash, too", async () => {
    const path = scratch("none");
    expect(await call("grootfs", "-store", path, "list")).toMatchObject(
      told("grootfs", `no store found at ${path}`, 1),
    );
    mkdirSync(path);
    expect(await run(program("grootfs"), [`-store=${path}`, "list"])).toMatchObject({ code: 1, stderr: "" });
  });
});
