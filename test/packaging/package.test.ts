// The tarball, the command that it installs, and what it exports.
import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import { beforeAll, describe, expect, it } from "vitest";
import {
  cannotMount,
  cleanLater,
  isMounted,
  scratch,
  scratchDirectory,
  shell,
  titleOf,
  until,
} from "../e2e/mounted.js";
import { layerTar } from "../e2e/tar-writer.js";
import { clean, type Installed, install, manifest, type Packed, pack, repository } from "./installed.js";

const layer = layerTar([
  { name: "etc", type: "dir" },
  { name: "etc/motd", data: Buffer.from("hello from a tarball\n") },
  { name: "etc/issue", type: "symlink", link: "motd" },
]);

let packed: Packed;
let installed: Installed;
let tar: string;
/** A project that has the package and the types of Node, and nothing else. */
let project: string;

beforeAll(async () => {
  packed = await pack();
  installed = await install(packed);
  tar = scratch("layer.tar");
  writeFileSync(tar, layer);
  project = scratchDirectory("project");
  mkdirSync(join(project, "node_modules/@types"), { recursive: true });
  symlinkSync(installed.folder, join(project, "node_modules/imgfs"));
  symlinkSync(join(repository, "node_modules/@types/node"), join(project, "node_modules/@types/node"));
  writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module" }));
});

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((path) => !path.startsWith("node_modules"))
    .map((path) => join(folder, path))
    .filter((path) => statSync(path).isFile());
}

describe("the tarball", () => {
  it("holds what users need, no sources and no tests, and is small", () => {
    const { size, unpackedSize, paths } = packed;
    process.stderr.write(`npm pack: ${size} bytes, ${unpackedSize} unpacked, ${paths.length} files\n`);
    const expected =
      /^(bin|dist|docs|examples)\/|^(ARCHITECTURE|CHANGELOG|HACKING|README|SECURITY)\.md$|^LICENSE$|^package\.json$|^src\/imgfs\/FORMAT\.md$/;
    expect(paths.filter((path) => !expected.test(path) || /\.(test\.|map$|tsbuildinfo$)/.test(path))).toEqual(
      [],
    );
    for (const path of ["README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md", "src/imgfs/FORMAT.md"]) {
      expect(paths).toContain(path);
    }
    // Each program is one file, so that it starts fast: what they have in common is there several times.
    expect(size).toBeLessThan(1_500_000);
    expect(unpackedSize).toBeLessThan(5_000_000);
  });

  it("names no path of the machine it was made on", () => {
    const secrets = [repository, homedir()].filter((path) => path.length > 1);
    const wrong = filesBelow(installed.folder).filter((path) => {
      const text = readFileSync(path, "latin1");
      return secrets.some((secret) => text.includes(`${secret}/`));
    });
    expect(wrong).toEqual([]);
  });

  it("is what publint calls good", async () => {
    const { messages } = await publint({ pkgDir: installed.folder, pack: false, strict: true });
    const pkg = JSON.parse(readFileSync(join(installed.folder, "package.json"), "utf8"));
    expect(messages.map((message) => formatMessage(message, pkg))).toEqual([]);
  });
});

describe("installed without a compiler", () => {
  const run = (command: string, ...args: readonly string[]): Promise<string> =>
    clean(command, args, { path: installed.path, cwd: project });

  it("has every command of package.json in the prefix's bin", async () => {
    expect(readdirSync(join(installed.prefix, "bin")).sort()).toEqual(Object.keys(manifest.bin).sort());
    expect(await run("imgfs", "--version")).toBe(`${manifest.version}\n`);
  });

  it("has what it needs to reach registries", async () => {
    const conf = scratch("registries.conf");
    writeFileSync(conf, '[[registry]]\nlocation = "never.lan"\nblocked = true\n');
    const said = await run(
      "sh",
      "-c",
      `CONTAINERS_REGISTRIES_CONF='${conf}' imgfs build docker://never.lan/x out 2>&1 || :`,
    );
    expect(said).toBe(`imgfs: build docker://never.lan/x: never.lan/x: never.lan is blocked by ${conf}\n`);
  });

  it("has the man pages where man(1) looks for them", () => {
    for (const page of manifest.man ?? []) {
      const installedAt = join(installed.prefix, `share/man/man${page.at(-1)}`, basename(page));
      expect(readFileSync(installedAt, "utf8")).toMatch(/^\.Dd /);
    }
    expect(manifest.man?.length).toBeGreaterThan(3);
  });

  it.skipIf(cannotMount !== undefined)(
    titleOf("builds, mounts and unmounts an image, also as mount(8) does", cannotMount),
    async () => {
      const image = scratch("image");
      const mountpoint = scratchDirectory("mnt");
      const pidFile = scratch("pid");
      cleanLater(mountpoint, pidFile);
      await run("imgfs", "build", `tar:${tar}`, image);
      await run("imgfs", "mount", image, mountpoint, "--pid-file", pidFile);
      expect(await shell(`cat ${mountpoint}/etc/issue`)).toBe("hello from a tarball\n");
      await run("imgfs", "umount", mountpoint);
      expect(isMounted(mountpoint)).toBe(false);
      const upper = scratch("upper");
      await run("mount.imgfs", image, mountpoint, "-o", `rw,nodev,upper=${upper},pid-file=${pidFile}`);
      await shell(`echo more >> ${mountpoint}/etc/motd`);
      await run("imgfs", "umount", mountpoint);
      expect(readFileSync(join(upper, "etc/motd"), "utf8")).toBe("hello from a tarball\nmore\n");
    },
  );
});

describe("what the package exports", () => {
  const node = (file: string, ...args: readonly string[]): Promise<string> =>
    clean(process.execPath, [file, ...args], { path: installed.path, cwd: project });

  function script(name: string, text: string): string {
    const file = join(project, name);
    writeFileSync(file, text);
    return file;
  }

  it("can be imported and required, and nothing deeper", async () => {
    const names = Object.keys(manifest.exports).map((key) => key.replace(".", "imgfs"));
    expect(names).toContain("imgfs");
    const deeper = packed.paths
      .filter((path) => path.startsWith("dist/") && /\.(js|cjs)$/.test(path))
      .map((path) => `imgfs/${path}`)
      .concat("imgfs/cli", "imgfs/sys", "imgfs/dist", "imgfs/src/imgfs/FORMAT.md");
    const file = script(
      "imports.js",
      `import { createRequire } from "node:module";
       const { names, deeper } = JSON.parse(process.argv[2]);
       const require = createRequire(import.meta.url);
       const empty = [];
       for (const name of names) {
         const options = name.endsWith(".json") ? { with: { type: "json" } } : {};
         if (Object.keys(await import(name, options)).length === 0) empty.push(name);
         if (Object.keys(require(name)).length === 0) empty.push(name);
       }
       const codes = new Set();
       for (const name of deeper) codes.add(await import(name).then(() => name, ({ code }) => code));
       console.log(JSON.stringify({ empty, codes: [...codes] }));`,
    );
    expect(JSON.parse(await node(file, JSON.stringify({ names, deeper })))).toEqual({
      empty: [],
      codes: ["ERR_PACKAGE_PATH_NOT_EXPORTED"],
    });
  });

  it("reads a tar, writes and merges layers, and looks into the result", async () => {
    const file = script(
      "format.js",
      `import { readFileSync, writeFileSync } from "node:fs";
       import { TarReader } from "imgfs/builder";
       import { checkImage, Corrupt, displayName, Image, InodeType, LayerWriter, mergeLayers, nameFromText, readContent,
         resolvePath, sha256, walkTree } from "imgfs/imgfs";
       const [tar, folder] = process.argv.slice(2);
       const members = [];
       const reader = new TarReader({
         member: ({ path, type }) => members.push(type + " " + path), body() {}, hole() {}, end() {},
       });
       reader.write(readFileSync(tar));
       reader.finish();

       const writer = LayerWriter.create(folder + "/layer.imgfs");
       writer.beginContent();
       writer.append(Buffer.from("written by hand"));
       const content = writer.endContent();
       const common = { mode: 0o644, uid: 1, gid: 2, mtimeSec: -1, mtimeNsec: 5, xattrs: [] };
       const file = { ...common, type: InodeType.file, content };
       const root = { ...common, mode: 0o755, type: InodeType.directory, opaque: false, explicit: true,
         entries: new Map([[nameFromText("two"), file], [nameFromText("one"), file]]) };
       await writer.finish(root, sha256(Buffer.from("a layer")));

       const image = Image.stack([folder + "/layer.imgfs"]);
       const names = [...walkTree(image)].map(({ path, row }) => displayName(path) + " " + image.nlink(row));
       const text = readContent(image, resolvePath(image, Buffer.from("/one"), true)).toString();
       image.close();
       const layer = Image.open(folder + "/layer.imgfs");
       const index = mergeLayers([layer]).length;
       layer.close();
       const { findings } = checkImage(folder + "/layer.imgfs", { data: true });
       writeFileSync(folder + "/damaged", "no image");
       let damage;
       try { Image.open(folder + "/damaged"); } catch (cause) { damage = cause instanceof Corrupt; }
       console.log(JSON.stringify({ members, names, text, index, findings, damage }));`,
    );
    expect(JSON.parse(await node(file, tar, scratchDirectory("format")))).toEqual({
      members: ["directory etc", "file etc/motd", "symlink etc/issue"],
      names: ["/ 2", "/one 2", "/two 2"],
      text: "written by hand",
      index: expect.any(Number),
      findings: [],
      damage: true,
    });
  });

  it.skipIf(cannotMount !== undefined)(
    titleOf("builds and mounts from a program, which a mount outlives", cannotMount),
    async () => {
      const mountpoint = scratchDirectory("mnt");
      const pidFile = scratch("pid");
      cleanLater(mountpoint, pidFile);
      const file = script(
        "mount.js",
        `import { readFileSync, writeFileSync } from "node:fs";
       import { buildImage, extractImage, Image, MountFailure, mountImage, unmount } from "imgfs";
       import { flatten } from "imgfs/builder";
       const [tar, folder, mountpoint, pidFile] = process.argv.slice(2);
       const { layers, index } = await buildImage("tar:" + tar, folder + "/image");
       const image = Image.open(index);
       const inodes = image.inodeCount;
       await extractImage(image, folder + "/tree", { path: "/etc" });
       image.close();
       const extracted = readFileSync(folder + "/tree/issue", "utf8");
       await flatten(index, folder + "/flat.imgfs");
       const mounted = await mountImage(folder + "/flat.imgfs", mountpoint, { pidFile });
       const text = readFileSync(mountpoint + "/etc/issue", "utf8");
       await mounted.unmount();
       const failure = await unmount(mountpoint).catch((cause) => [cause instanceof MountFailure, cause.message]);
       await mountImage(folder + "/image", mountpoint, { upper: folder + "/upper", pidFile });
       writeFileSync(mountpoint + "/new", "new");
       console.log(JSON.stringify({ layers: layers.length, inodes, extracted, text, failure }));`,
      );
      const folder = scratchDirectory("program");
      expect(JSON.parse(await node(file, tar, folder, mountpoint, pidFile))).toEqual({
        layers: 1,
        inodes: 4,
        extracted: "hello from a tarball\n",
        text: "hello from a tarball\n",
        failure: [true, `umount: ${mountpoint}: not an imgfs mount`],
      });
      expect(await shell(`cat ${mountpoint}/new`)).toBe("new");
      await clean("imgfs", ["umount", mountpoint], { path: installed.path });
      expect(existsSync(pidFile)).toBe(false);
    },
  );
});

describe("types and examples", () => {
  const compile = (name: string, options: object): Promise<string> => {
    const file = join(project, `tsconfig.${name}.json`);
    const compilerOptions = {
      target: "ES2023",
      lib: ["ES2023"],
      types: ["node"],
      strict: true,
      exactOptionalPropertyTypes: true,
      verbatimModuleSyntax: true,
      // Our declarations are looked at, too.
      skipLibCheck: false,
      ...options,
    };
    writeFileSync(file, JSON.stringify({ compilerOptions, include: ["src"] }));
    const tsc = join(repository, "node_modules/typescript/bin/tsc");
    return clean(process.execPath, [tsc, "-p", file], { path: installed.path, cwd: project });
  };

  beforeAll(async () => {
    cpSync(join(installed.folder, "examples"), join(project, "src"), { recursive: true });
    const guide = readFileSync(join(installed.folder, "docs/library.md"), "utf8");
    const snippets = [...guide.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => match[1] as string);
    expect(snippets.length).toBeGreaterThan(2);
    snippets.forEach((text, i) => {
      writeFileSync(join(project, `src/snippet-${i + 1}.ts`), text);
    });
    await Promise.all([
      compile("nodenext", {
        module: "NodeNext",
        moduleResolution: "NodeNext",
        outDir: "out",
        rootDir: "src",
      }),
      compile("bundler", { module: "ESNext", moduleResolution: "bundler", noEmit: true }),
    ]);
  });

  it("hold without `any`, and bring in nobody else's declarations", () => {
    const reached = new Set(
      Object.values(manifest.exports).flatMap((target) =>
        typeof target === "string" ? [] : [join(installed.folder, target.types)],
      ),
    );
    const wrong: string[] = [];
    for (const path of reached) {
      const text = readFileSync(path, "utf8").replace(/\/\*.*?\*\//gs, "");
      if (/\bany\b/.test(text)) wrong.push(`${path}: any`);
      for (const [, from = ""] of text.matchAll(/(?:from |import\()"([^"]+)"/g)) {
        if (from.startsWith(".")) reached.add(resolve(dirname(path), from.replace(/\.js$/, ".d.ts")));
        else if (!from.startsWith("node:")) wrong.push(`${path}: ${from}`);
      }
    }
    expect(reached.size).toBeGreaterThan(20);
    expect(wrong).toEqual([]);
  });

  it.skipIf(cannotMount !== undefined)(
    titleOf("the hello filesystem serves in the foreground until it is told to stop", cannotMount),
    async () => {
      const mountpoint = scratchDirectory("mnt");
      const child = spawn(process.execPath, [join(project, "out/hello.js"), mountpoint, "good morning"], {
        stdio: ["ignore", "pipe", "pipe"],
      });
      cleanLater(mountpoint, scratch("pid"));
      let said = "";
      child.stderr.on("data", (data) => {
        said += String(data);
      });
      const exit = new Promise((done) => child.on("close", (code, signal) => done({ code, signal, said })));
      await until("hello is mounted", () => isMounted(mountpoint) || child.exitCode !== null);
      const seen = await shell(
        `cd ${mountpoint}; cat hello.txt; stat -c '%F %s %h' hello.txt; ls -a; cat none 2>&1 || :; touch new 2>&1 || :`,
      );
      child.kill("SIGINT");
      expect(await exit).toEqual({ code: 0, signal: null, said: "" });
      expect(seen).toBe(
        [
          "good morning",
          "regular file 13 1",
          ".",
          "..",
          "hello.txt",
          "cat: none: No such file or directory",
          "touch: cannot touch 'new': Read-only file system",
          "",
        ].join("\n"),
      );
    },
  );

  it.skipIf(cannotMount !== undefined)(
    titleOf("and in the background, and ends when it is unmounted", cannotMount),
    async () => {
      const mountpoint = scratchDirectory("mnt");
      cleanLater(mountpoint, scratch("pid"));
      const file = join(project, "background.js");
      writeFileSync(
        file,
        `import { existsSync, readFileSync } from "node:fs";
       import { mountFileSystem } from "imgfs/fuse";
       const module = new URL("./out/hello-filesystem.js", import.meta.url);
       const hello = await mountFileSystem(module, process.argv[2]);
       const text = readFileSync(process.argv[2] + "/hello.txt", "utf8");
       let code;
       try { readFileSync(process.argv[2]); } catch (cause) { code = cause.code; }
       await hello.unmount();
       console.log(JSON.stringify({ text, code, lives: existsSync("/proc/" + hello.pid + "/exe") }));`,
      );
      const said = await clean(process.execPath, [file, mountpoint], { path: installed.path, cwd: project });
      expect(JSON.parse(said)).toEqual({ text: "hello, world\n", code: "EISDIR", lives: false });
    },
  );
});
