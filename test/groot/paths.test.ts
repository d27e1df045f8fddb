// Ids and paths from outside: whatever is in them leads to what was named and to nothing else, or is refused in one line.
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { cannotMount, isMounted, run, scratch, scratchDirectory, succeed, titleOf } from "../e2e/mounted.js";
import { call, file, madeStore, type Name, names, newStore, program, tarOf, told } from "./kit.js";

const small = (): string => tarOf(file("f", "hello\n"));

interface Said {
  readonly root: { readonly path: string };
  readonly mounts: readonly { readonly source: string; readonly type: string; readonly options: string[] }[];
}

/** Mounts what create --without-mount has printed, as containerd and mount(8) do. */
async function mountBy(said: string): Promise<void> {
  const { root, mounts } = JSON.parse(said) as Said;
  const [{ source, type, options } = { source: "", type: "", options: [] as string[] }] = mounts;
  const bin = scratchDirectory("bin");
  symlinkSync(program("imgfs"), join(bin, type));
  const words = [source, root.path, "-t", type, "-o", options.join(",")];
  await succeed("mount.fuse3", words, { env: { PATH: `${bin}:${process.env["PATH"]}` } });
}

describe.skipIf(cannotMount)(titleOf("a store's path", cannotMount), () => {
  it.each([
    ["spaces", "a b "],
    ["commas", "a,b,upperdir=c"],
    ["colons", "a:b::c"],
    ["backslashes", "a\\b\\,c\\\\d"],
    ["per cent", "a%20b%00c%2e"],
    ["equal signs", "a=b=ro"],
    ["quotes", `a'b"c\`d`],
    ["what shells read", "a$HOME*;&#~!b"],
    ["other letters", "\u00e9\u4e2d\u{1f600}"],
    ["a dash first", "-o"],
    ["255 bytes", "x".repeat(255)],
    ["more than a socket's name has", `${"y".repeat(120)}/${"z".repeat(120)}`],
  ])("may have %s, mounted by us and by mount.fuse3", async (_, name) => {
    const path = join(scratchDirectory("of"), name);
    mkdirSync(dirname(path), { recursive: true });
    const store = newStore(path);
    await store.say("grootfs", "init-store");
    const limit = ["--disk-limit-size-bytes", "1048576"];
    await store.say("grootfs", "create", ...limit, small(), "mounted");
    expect(readFileSync(store.image("mounted", "rootfs/f"), "utf8")).toBe("hello\n");
    expect(await store.say("imgfs", "stats", store.image("mounted"))).toMatch(
      /"committed_space_bytes":1048576}/,
    );
    expect(await store.say("imgfs", "list")).toBe(`${store.image("mounted")}\n`);

    const said = await store.say("grootfs", "create", "--without-mount", ...limit, small(), "later");
    await mountBy(said);
    const rootfs = store.image("later", "rootfs");
    writeFileSync(join(rootfs, "new"), "new\n");
    expect(readFileSync(store.image("later", "diff/new"), "utf8")).toBe("new\n");
    expect(await call("imgfs", "check", "--store", path)).toMatchObject({ code: 0, stderr: "" });
    for (const id of ["mounted", "later"]) await store.say("grootfs", "delete", id);
    expect(isMounted(rootfs)).toBe(false);
    await store.say("grootfs", "delete-store");
    expect(existsSync(path)).toBe(false);
  });

  it("may be relative, have a slash at its end, and be a symlink, which goes with the store", async () => {
    const folder = realpathSync(scratchDirectory("in"));
    const store = newStore(join(folder, "store"));
    symlinkSync("store", join(folder, "link"));
    const at = async (path: string, ...words: string[]): Promise<string> => {
      const { stdout, stderr, code } = await run(program("imgfs"), ["--store", path, ...words], {
        cwd: folder,
      });
      expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
      return stdout;
    };
    await at("store", "init-store");
    await at("./store/", "create", "--format", "path", small(), "x");
    expect(await at("store/../store", "list")).toBe(`${store.image("x")}\n`);
    expect(await at("link", "create", "--format", "path", small(), "y")).toBe(`${folder}/link/images/y\n`);
    expect(await at("link/", "delete", `${folder}/link/images/y/`)).toBe("Image y deleted\n");
    await at("link", "create", small(), "y");
    expect(await at("store", "delete", "y")).toBe("Image y deleted\n");
    symlinkSync("store", join(folder, "-dash"));
    expect(await at("-dash", "list")).toBe(`${folder}/-dash/images/x\n`);
    expect(await at("-dash", "check")).toMatch(/^no damage found in 1 image/);
    rmSync(join(folder, "-dash"));
    await at("link", "delete-store");
    expect(isMounted(store.image("x", "rootfs"))).toBe(false);
    expect(readdirSync(folder)).toEqual([]);
  });

  it.each(names)("that leads to a file is no store, for any command of %s", async (name) => {
    const path = scratch("file");
    writeFileSync(path, "precious");
    const store = newStore(path);
    const none = `${path}: not a store of imgfs (imgfs init-store makes one)`;
    for (const words of [["list"], ["clean"], ["delete", "x"], ["stats", "x"], ["create", small(), "x"]]) {
      const text = name === "grootfs" ? "Store path is not initialized. Please run init-store." : none;
      expect(await store.call(name, ...words), words[0]).toMatchObject(told(name, text, 1));
    }
    expect(await store.call(name, "init-store")).toMatchObject(
      told(name, `${path}: no folder, and not a store of imgfs`, 1),
    );
    expect(await store.call(name, "delete-store")).toMatchObject(told(name, none, 1));
    expect(readFileSync(path, "utf8")).toBe("precious");
  });
});

describe.skipIf(cannotMount).each(names)(titleOf("%s: an id", cannotMount), (name: Name) => {
  it.each([
    "-dash",
    "--help",
    "%2e%2e",
    "a b",
    "a,b",
    "a:b",
    "a\\b",
    "a=b",
    "\u00e9",
    "...",
    "x".repeat(255),
  ])("may be %j", async (id) => {
    const store = await madeStore();
    await store.say(name, "create", "--format", "path", "--", small(), id);
    expect(readFileSync(store.image(id, "rootfs/f"), "utf8")).toBe("hello\n");
    expect(await store.say(name, "list")).toBe(`${store.image(id)}\n`);
    expect(await store.say(name, "stats", "--", id)).toMatch(/^\{"disk_usage":/);
    expect(await store.say(name, "delete", "--", id)).toBe(`Image ${id} deleted\n`);
  });

  it("has no slash, is not another folder, and is one line of at most 255 bytes", async () => {
    const store = await madeStore();
    const refusals: readonly (readonly [id: string, text: string])[] = [
      ["../x", "id `../x` contains invalid characters: `/`"],
      ["/x", "id `/x` contains invalid characters: `/`"],
      ["x/", "id `x/` contains invalid characters: `/`"],
      ["", "id was not specified"],
      [".", 'id "." cannot be the name of an image'],
      ["..", 'id ".." cannot be the name of an image'],
      ["a\nb", 'id "a\\nb" cannot be the name of an image'],
      ["a\u001b[2J", 'id "a\\u001b[2J" cannot be the name of an image'],
      ["x".repeat(256), `id "${"x".repeat(256)}" cannot be the name of an image`],
      ["\u00e9".repeat(128), `id "${"\u00e9".repeat(128)}" cannot be the name of an image`],
    ];
    const before = readdirSync(dirname(store.path));
    for (const [id, text] of refusals) {
      expect(await store.call(name, "create", small(), id), text).toMatchObject(told(name, text, 2));
    }
    expect(readdirSync(join(store.path, "images"))).toEqual([]);
    expect(
      readdirSync(dirname(store.path)).filter((each) => !before.includes(each) && !/rootfs.tar/.test(each)),
    ).toEqual([]);
  });

  it("that is none leads nowhere in delete and stats", async () => {
    const store = await madeStore();
    const outside = `${store.path}/images/../content`;
    for (const [argument, text] of [
      ["../content", "Image `../content` not found."],
      [".", "Image `.` not found."],
      ["a\nb", "Image `a?b` not found."],
      [outside, `path \`${outside}\` is outside store path`],
      [`${store.path}/images`, `path \`${store.path}/images\` is outside store path`],
    ] as const) {
      expect(await store.call(name, "stats", argument)).toMatchObject(
        told(name, text, text.startsWith("Image") ? 10 : 2),
      );
      expect(await store.call(name, "delete", argument)).toMatchObject({
        code: 0,
        stdout: `${text} Skipping delete.\n`,
        stderr: "",
      });
    }
    expect(readdirSync(store.path).sort()).toContain("content");
  });

  it("and a path that is not UTF-8 are refused: another one would be made", async () => {
    const store = await madeStore();
    const words = `'${program(name)}' --store '${store.path}'`;
    const told0 = (what: string): object => told(name, `not UTF-8: ${what}`, 2);
    const bash = (script: string): ReturnType<typeof run> => run("bash", ["-c", script]);
    expect(await bash(`${words} create '${small()}' $'a\\xffb'`)).toMatchObject(told0("a\ufffdb"));
    expect(await bash(`${words} create $'/\\xff' x`)).toMatchObject(told0("/\ufffd"));
    const folder = scratchDirectory("in");
    expect(await bash(`'${program(name)}' --store '${folder}/'$'\\xff' init-store`)).toMatchObject(
      told0(`${folder}/\ufffd`),
    );
    expect(readdirSync(folder)).toEqual([]);
    expect(await store.say(name, "list")).toBe("Store empty\n");
  });
});

describe.skipIf(cannotMount)(titleOf("what is planted in a store", cannotMount), () => {
  it("is not followed: symlinks for images, folders and notes", async () => {
    const store = await madeStore();
    const precious = scratchDirectory("precious");
    writeFileSync(join(precious, "kept"), "kept");
    symlinkSync(precious, store.image("link"));
    expect(await store.call("grootfs", "stats", "link")).toMatchObject(
      told("grootfs", "Image `link` not found.", 1),
    );
    expect(await store.say("grootfs", "delete", "link")).toBe("Image `link` not found. Skipping delete.\n");
    expect(await store.call("grootfs", "create", small(), "link")).toMatchObject(
      told("grootfs", "image for id `link` already exists", 1),
    );
    expect(readdirSync(precious)).toEqual(["kept"]);
    expect(await store.say("grootfs", "list")).toBe("Store empty\n");
    expect(await store.say("grootfs", "delete-store")).toBe("");
    expect(readdirSync(precious)).toEqual(["kept"]);
    expect(basename(precious)).toMatch(/precious/);
  });

  it("a folder of the store that is none is refused by name", async () => {
    const store = await madeStore();
    const { rmdirSync } = await import("node:fs");
    rmdirSync(join(store.path, "tmp"));
    const precious = scratchDirectory("precious");
    symlinkSync(precious, join(store.path, "tmp"));
    expect(await store.call("imgfs", "create", small(), "x")).toMatchObject(
      told("imgfs", `${store.path}: tmp is no directory`, 1),
    );
    expect(readdirSync(precious)).toEqual([]);
    expect((await call("imgfs", "--store", store.path, "delete-store")).code).toBe(1);
    expect(existsSync(join(store.path, "tmp"))).toBe(true);
  });
});
