// What is left of GrootFS's texts: wrong usage and missing stores of every command, and layers that are not those of their
// manifest, literally. A success and the refusals of one command alone are in commands.test.ts.
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { cannotMount, scratch, scratchDirectory, titleOf, until } from "../e2e/mounted.js";
import { layerTar } from "../e2e/tar-writer.js";
import { digest, gzip, Layout } from "../fixtures/oci.js";
import { file as entry, tar } from "../fixtures/tar.js";
import { file, folder, layoutOf, MiB, madeStore, names, newStore, tarOf, told } from "./kit.js";

const small = (): string => tarOf(folder("etc/"), file("etc/motd", "hello\n"));

/** A command's words without an argument too few or too many, its usage, and our word for what is missing first. */
const commands: { readonly words: readonly string[]; readonly usage: string; readonly missing?: string }[] = [
  { words: ["init-store"], usage: "init-store --store <path>" },
  { words: ["delete-store"], usage: "delete-store --store <path>" },
  { words: ["generate-volume-size-metadata"], usage: "generate-volume-size-metadata --store <path>" },
  { words: ["create", "image", "id"], usage: "create [options] <image> <id>", missing: "image" },
  { words: ["stats", "id"], usage: "stats [options] <id|image path>", missing: "id" },
  { words: ["metrics", "id"], usage: "metrics [options] <id>", missing: "id" },
  { words: ["list"], usage: "list" },
  { words: ["clean"], usage: "clean" },
  { words: ["capacity"], usage: "capacity" },
  { words: ["pull", "image"], usage: "pull [options] <image>", missing: "image" },
  { words: ["bundle", "id", "folder"], usage: "bundle [options] <id|image path> <dir>", missing: "id" },
];

describe.each(names)("wrong usage of %s", (name) => {
  it.each(commands)("of $words is told in one line, and does nothing", async ({ words, usage, missing }) => {
    const store = newStore();
    const [command = "", ...args] = words;
    const expected = args.length;
    const plural = `argument${expected === 1 ? "" : "s"}`;
    const groot = told("grootfs", `invalid arguments - usage: ${usage}`, 1);
    expect(await store.call(name, ...words, "more")).toMatchObject(
      name === "grootfs"
        ? groot
        : told(
            name,
            `too many arguments for '${command}'. Expected ${expected} ${plural} but got ${expected + 1}.`,
            2,
          ),
    );
    if (missing !== undefined) {
      expect(await store.call(name, command)).toMatchObject(
        name === "grootfs" ? groot : told(name, `missing required argument '${missing}'`, 2),
      );
    }
    expect(readdirSync(join(store.path, ".."))).not.toContain("store");
  });

  it("of delete wants an id", async () => {
    const store = newStore();
    const few = name === "grootfs" ? "id was not specified" : "missing required argument 'id'";
    const many =
      name === "grootfs"
        ? "id was not specified"
        : "too many arguments for 'delete'. Expected 1 argument but got 2.";
    expect(await store.call(name, "delete")).toMatchObject(told(name, few, 2));
    expect(await store.call(name, "delete", "a", "b")).toMatchObject(told(name, many, 2));
  });

  it("of numbers: bytes that are none, and fewer than none", async () => {
    const store = newStore();
    const refusals = [
      [
        "invalid argument: disk limit cannot be negative",
        "create",
        "--disk-limit-size-bytes",
        "-1",
        "i",
        "x",
      ],
      ["invalid argument: disk limit cannot be negative", "pull", "--disk-limit-size-bytes", "-1", "i"],
      ["invalid argument: clean threshold cannot be negative", "create", "--threshold-bytes", "-1", "i", "x"],
      ["invalid argument: clean threshold cannot be negative", "clean", "--threshold-bytes", "-1"],
      ["invalid argument: store size cannot be negative", "init-store", "--store-size-bytes", "-1"],
    ] as const;
    for (const [text, ...words] of refusals) {
      expect(await store.call(name, ...words), text).toMatchObject(told(name, text, 2));
    }
    const outcome = await store.call(name, "clean", "--threshold-bytes", "1 G");
    if (name === "imgfs") {
      expect(outcome).toMatchObject(
        told(
          name,
          "option '--threshold-bytes <size>' argument '1 G' is invalid. not a size like 10000, 512K or 1.5G.",
          2,
        ),
      );
    } else {
      expect(outcome).toMatchObject({ code: 1, stderr: "" });
      expect(outcome.stdout).toMatch(
        /^Incorrect Usage: invalid value "1 G" for flag -threshold-bytes: parse error\n\nUsage: grootfs clean /,
      );
    }
    expect(readdirSync(join(store.path, ".."))).not.toContain("store");
  });
});

describe.skipIf(cannotMount).each(names)(titleOf("%s", cannotMount), (name) => {
  it("takes every flag that GrootFS's versions have had and that says nothing here", async () => {
    const store = await madeStore();
    const globals = ["tardis", "drax", "btrfs", "newuidmap", "newgidmap"].map((each) => `--${each}-bin`);
    const all = [...globals, "--metron-endpoint", "--driver", "--log-timestamp-format"];
    const ignored = all.flatMap((flag) => [flag, "x"]);
    expect(await store.say(name, ...ignored, "list")).toBe("Store empty\n");
    expect(await store.say(name, ...ignored, "init-store", "--with-direct-io")).toBe("");
    const options = ["--skip-layer-validation", "--with-mount", "--without-clean", "--threshold-bytes", "0"];
    await store.say(name, ...ignored, "create", ...options, small(), "x");
  });

  it("wants a store that init-store has made, for every command but delete-store and capacity", async () => {
    const { path, ...store } = newStore();
    const none = `${path}: no store (imgfs init-store makes one)`;
    const notMade = name === "grootfs" ? "Store path is not initialized. Please run init-store." : none;
    const notThere = `no store found at ${path}`;
    const cases: readonly (readonly [text: string, ...words: string[]])[] = [
      [notMade, "create", small(), "x"],
      [notMade, "pull", small()],
      [notMade, "generate-volume-size-metadata"],
      ["Image `x` not found.", "stats", "x"],
      ["Image `x` not found.", "metrics", "x"],
      ["Image `x` not found.", "bundle", "x", scratch("bundle")],
      [notThere, "list"],
    ];
    for (const [text, ...words] of cases) {
      expect(await store.call(name, ...words), words[0]).toMatchObject(told(name, text, 10));
    }
    expect(await store.call(name, "clean")).toMatchObject(
      name === "grootfs" ? { code: 0, stdout: `${notThere}\n`, stderr: "" } : told(name, notThere, 10),
    );
    const skipped = "Image `x` not found. Skipping delete.\n";
    expect(await store.call(name, "delete", "x")).toMatchObject({ code: 0, stdout: skipped, stderr: "" });
    expect(await store.call(name, "delete-store")).toMatchObject({ code: 0, stdout: "", stderr: "" });
  });

  it("finds no image in a folder that is empty, as Garden's second store may be", async () => {
    const store = newStore(scratchDirectory("empty"));
    const skipped = "Image `x` not found. Skipping delete.\n";
    expect(await store.call(name, "delete", "x")).toMatchObject({ code: 0, stdout: skipped, stderr: "" });
    expect(await store.call(name, "stats", "x")).toMatchObject(told(name, "Image `x` not found.", 10));
    expect(readdirSync(store.path)).toEqual([]);
  });

  it("refuses what is not its own, and a layout that it does not know", async () => {
    const path = scratchDirectory("mine");
    writeFileSync(join(path, "precious"), "");
    const store = newStore(path);
    const foreign = `${path}: not a store of imgfs (imgfs init-store makes one)`;
    const groot = name === "grootfs" ? "Store path is not initialized. Please run init-store." : foreign;
    expect(await store.call(name, "init-store")).toMatchObject(
      told(name, `${path}: not empty, and not a store of imgfs`, 1),
    );
    expect(await store.call(name, "delete-store")).toMatchObject(told(name, foreign, 1));
    for (const words of [["list"], ["clean"], ["delete", "x"], ["stats", "x"], ["create", small(), "x"]]) {
      expect(await store.call(name, ...words), words[0]).toMatchObject(told(name, groot, 1));
    }
    expect(readdirSync(path)).toEqual(["precious"]);
    // A file that has the mark's name is none.
    writeFileSync(join(path, "format"), "of a book:\nquarto\n");
    expect(await store.call(name, "list")).toMatchObject(told(name, groot, 1));
    expect(await store.call(name, "init-store")).toMatchObject(told(name, foreign, 1));
    expect(await store.call(name, "delete-store")).toMatchObject(told(name, foreign, 1));
    expect(readdirSync(path).sort()).toEqual(["format", "precious"]);

    const newer = await madeStore();
    writeFileSync(join(newer.path, "format"), "imgfs store 2\n");
    const text = `${newer.path}: a store with a layout this version does not know: imgfs store 2`;
    for (const words of [["init-store"], ["list"], ["clean"], ["delete", "x"], ["delete-store"]]) {
      expect(await newer.call(name, ...words), words[0]).toMatchObject(told(name, text, 1));
    }
    writeFileSync(join(newer.path, "format"), "imgfs store 1\n");
  });

  it("compares a layer with its manifest and config: length, digest and diffID", async () => {
    const layer = tar(entry("f", "as it was"));
    const packed = gzip(layer);
    const hex = (text: string): string => text.replace("sha256:", "");
    const of = (change: (layout: Layout, blob: string) => void, config?: (of: object) => void): string => {
      const layout = new Layout(scratch("layout"));
      const options = config === undefined ? {} : { config: config as (of: Record<string, unknown>) => void };
      layout.tag(layout.image([layer], { compress: gzip, ...options }), "1");
      change(layout, layout.path(digest(packed)));
      return layout.folder;
    };
    const other = Buffer.from(packed);
    // The time in the header of gzip: what is packed stays whole.
    other[4] = (other[4] as number) ^ 1;
    const wrong = digest(Buffer.from("other bytes"));
    const at = `layer 1 (${digest(packed)})`;
    const longer = of((_, blob) => writeFileSync(blob, Buffer.concat([packed, Buffer.from("x")])));
    const cases = [
      [
        longer,
        `layer size is different from the value in the manifest; expected: ${packed.length}, actual ${packed.length + 1}`,
        `${longer}: ${at}: the blob has ${packed.length + 1} bytes, the descriptor says ${packed.length}`,
      ],
      [
        of((_, blob) => writeFileSync(blob, other)),
        `layerID digest mismatch: expected: ${hex(digest(packed))}, actual: ${hex(digest(other))}`,
        `${at}: digest mismatch: the bytes are ${digest(other)}, expected ${digest(packed)}`,
      ],
      [
        of(
          () => {},
          (config) => Object.assign(config, { rootfs: { type: "layers", diff_ids: [wrong] } }),
        ),
        `diffID digest mismatch: expected: ${hex(wrong)}, actual: ${hex(digest(layer))}`,
        `${at}: diffID mismatch: the uncompressed bytes are ${digest(layer)}, expected ${wrong}`,
      ],
    ] as const;
    const store = await madeStore();
    for (const [layout, groot, ours] of cases) {
      const text = name === "grootfs" ? groot : `create: ${ours}`;
      expect(await store.call(name, "create", `oci://${layout}:1`, "x")).toMatchObject(told(name, text, 1));
      expect(await store.say(name, "list")).toBe("Store empty\n");
      expect(readdirSync(join(store.path, "content"))).toEqual([]);
    }
  });

  it("names an image that is none", async () => {
    const store = await madeStore();
    const none = scratch("none");
    const groot = "Image source doesn't exist";
    for (const [image, ours, code] of [
      [none, `${none}: no such file or directory`, 10],
      [`oci://${none}`, `${none}: no such file or directory`, 10],
      [`oci://${none}:tag`, `${none}:tag: no such file or directory`, 10],
      ["", "an empty image", 1],
    ] as const) {
      const text = name === "grootfs" ? groot : ours;
      expect(await store.call(name, "create", image, "x"), image).toMatchObject(told(name, text, code));
    }
    const upper =
      '"docker://h:1/A": "A": upper case is not allowed in it; the form is docker://NAME[:TAG|@DIGEST]';
    expect(await store.call(name, "create", "docker://h:1/A", "x")).toMatchObject(told(name, upper, 2));
  });

  it("has what each key of the config file says, and what an option says before it", async () => {
    const store = await madeStore();
    const at = scratchDirectory("kept");
    const path = join(at, "config.yaml");
    const call = (config: string, ...words: string[]): ReturnType<typeof store.say> => {
      writeFileSync(path, config);
      return store.say(name, "--config", path, ...words);
    };
    const committed = async (id: string): Promise<string | undefined> =>
      /"quota_size_bytes":(\d+)/.exec(await store.say(name, "stats", id))?.[1];
    const image = tarOf(file("f", Buffer.alloc(MiB)));
    const limit = `disk_limit_size_bytes: ${4 * MiB}`;
    await call(`create: {${limit}}`, "create", image, "a");
    expect(await committed("a")).toBe(String(3 * MiB));
    await call(`create: {${limit}}`, "create", "--disk-limit-size-bytes", String(2 * MiB), image, "b");
    expect(await committed("b")).toBe(String(MiB));
    await call(`create: {${limit}}`, "create", "--disk-limit-size-bytes", "0", image, "c");
    expect(await committed("c")).toBe("0");
    const exclusive = `create: {${limit}, exclude_image_from_quota: true}`;
    await call(exclusive, "create", image, "d");
    expect(await committed("d")).toBe(String(4 * MiB));
    const back = name === "grootfs" ? "--exclude-image-from-quota=false" : "--no-exclude-image-from-quota";
    await call(exclusive, "create", back, image, "e");
    expect(await committed("e")).toBe(String(3 * MiB));

    expect(await call("create: {without_mount: true}", "create", image, "f")).toContain('"mounts":[');
    expect(await call("create: {without_mount: true}", "create", "--with-mount", image, "g")).not.toContain(
      "mounts",
    );

    const huge = `clean: {threshold_bytes: ${1 << 30}}`;
    expect(await call(huge, "clean")).toBe("threshold not reached: skipping clean\n");
    expect(await call(huge, "clean", "--threshold-bytes", "0")).toBe("clean completed\n");
    const used = `clean: {threshold_bytes: ${8 * MiB}, threshold_mode: used}`;
    expect(await call(used, "clean")).toBe("threshold not reached: skipping clean\n");
    expect(await call(used, "clean", "--threshold-mode", "committed")).toBe("clean completed\n");

    const [one, two] = [tarOf(file("one", "1")), tarOf(file("two", "2"))];
    const content = (): number => readdirSync(join(store.path, "content")).length;
    await call("", "clean");
    const before = content();
    for (const each of [one, two]) await call("", "pull", each);
    const pulled = content() - before;
    await call(`clean: {ignore_images: ["${one}", "${two}"]}`, "clean");
    expect(content()).toBe(before + pulled);
    await call(`clean: {ignore_images: ["${one}", "${two}"]}`, "clean", "--ignore-image", two);
    expect(content()).toBe(before + pulled / 2);

    expect(await call("init: {store_size_bytes: 77}", "capacity")).toBe('{"capacity":77}\n');

    const files = { prom: join(at, "prom"), lines: join(at, "lines"), log: join(at, "log") };
    await call(`metrics: {file: ${files.prom}, log: ${files.lines}}`, "stats", "a");
    expect(readFileSync(files.prom, "utf8")).toContain("\nImageStatsTime{");
    expect(readFileSync(files.lines, "utf8")).toContain('"name":"ImageStatsTime"');
    const elsewhere = join(at, "elsewhere");
    await call(`metrics: {file: ${join(at, "no")}}`, "--metrics-file", elsewhere, "stats", "a");
    expect(readdirSync(at)).toContain("elsewhere");
    expect(readdirSync(at)).not.toContain("no");
    await call(`log_file: ${files.log}\nlog_level: debug\n`, "delete", "a");
    expect(readFileSync(files.log, "utf8")).toMatch(/groot.deleting/);
    const level = join(at, "level");
    await call(`log_file: ${level}\nlog_level: debug\n`, "--log-level", "error", "delete", "b");
    expect(readFileSync(level, "utf8")).toBe("");
    expect(await call(`store: ${join(at, "none")}`, "delete", "c")).toBe("Image c deleted\n");
    for (const id of ["d", "e", "f", "g"]) await store.say(name, "delete", id);
  });

  it("cleans from the threshold on: quotas and content, or content alone", async () => {
    const store = await madeStore();
    const limit = ["--disk-limit-size-bytes", String(4 * MiB)];
    await store.say(name, "create", ...limit, tarOf(file("f", Buffer.alloc(MiB, 1))), "x");
    const content = join(store.path, "content");
    const used = readdirSync(content).reduce((sum, each) => sum + statSync(join(content, each)).size, 0);
    const committed = used + 3 * MiB;
    for (const [mode, size] of [
      [[], committed],
      [["--threshold-mode", "committed"], committed],
      [["--threshold-mode", "used"], used],
    ] as const) {
      const clean = (threshold: number): Promise<string> =>
        store.say(name, "clean", ...mode, "--threshold-bytes", String(threshold));
      expect(await clean(size)).toBe("clean completed\n");
      expect(await clean(size + 1)).toBe("threshold not reached: skipping clean\n");
    }
  });

  it("takes layers of gzip, of zstd and as they are, and whiteouts by the start of a name alone", async () => {
    const store = await madeStore();
    const below = [entry("gone", "1"), entry("kept.wh.gone", "2"), entry("same", "3")];
    const above = [entry(".wh.gone", ""), entry("new.wh.same", "4")];
    const packings = {
      gzip,
      zstd: (layer: Buffer): Buffer => execFileSync("zstd", ["-q"], { input: layer }),
      plain: undefined,
    };
    for (const [id, compress] of Object.entries(packings)) {
      const layout = new Layout(scratch(id));
      const options = {
        ...(compress === undefined ? {} : { compress }),
        mediaType: `application/vnd.oci.image.layer.v1.tar${id === "plain" ? "" : `+${id}`}`,
      };
      layout.tag(layout.image([tar(...below), tar(...above)], options), "1");
      await store.say(name, "create", `oci://${layout.folder}:1`, id);
      expect(readdirSync(store.image(id, "rootfs")).sort()).toEqual(["kept.wh.gone", "new.wh.same", "same"]);
      expect(readFileSync(store.image(id, "rootfs/new.wh.same"), "utf8")).toBe("4");
    }
    // The bytes are the same once they are unpacked: a layer is converted once, whatever it came packed in.
    expect(readdirSync(join(store.path, "content")).filter((each) => !each.includes("index"))).toHaveLength(
      2,
    );
  });

  it("starts a clean where the config file says so, but where an option says not to", async () => {
    const store = await madeStore();
    const at = scratchDirectory("kept");
    const config = join(at, "config.yaml");
    writeFileSync(
      config,
      `log_level: fatal\ncreate: {with_clean: true, clean_log_file: ${at}/log}\nmetrics: {log: ${at}/metrics}\n`,
    );
    const cleans = (): number =>
      (readdirSync(at).includes("metrics") ? readFileSync(join(at, "metrics"), "utf8") : "").split(
        '"name":"ImageCleanTime"',
      ).length - 1;
    const image = layoutOf(layerTar([file("f", "1")]));
    await store.say(name, "--config", config, "create", "--without-clean", `oci://${image}:latest`, "a");
    await store.say(name, "--config", config, "create", `oci://${image}:latest`, "b");
    await until("a clean is over", () => cleans() > 0);
    expect(cleans()).toBe(1);
    await store.say(name, "--config", config, "delete", "a");
  });
});
