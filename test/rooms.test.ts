// Who may import whom. The table is the architecture; an import outside it fails here.
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, it } from "vitest";

const src = resolve(import.meta.dirname, "../src");

/** Room to the rooms it may import, beside itself. */
const may: Readonly<Record<string, readonly string[]>> = {
  base: [],
  sys: ["base"],
  fuse: ["base", "sys"],
  zstd: ["base", "sys"],
  quota: ["base"],
  imgfs: ["base", "sys", "zstd"],
  overlay: ["base", "sys", "imgfs", "fuse", "quota"],
  oci: ["base"],
  builder: ["base", "sys", "zstd", "imgfs", "oci"],
  extract: ["base", "sys", "imgfs", "builder"],
  daemon: ["base", "sys", "imgfs", "fuse", "quota", "overlay"],
  run: ["base", "sys", "quota", "daemon"],
  store: ["base", "sys", "imgfs", "quota", "overlay", "oci", "builder", "daemon"],
  // What the package exports; nothing of ours imports it.
  api: ["base", "sys", "imgfs", "fuse", "quota", "builder", "extract", "daemon"],
  cli: [
    "base",
    "sys",
    "zstd",
    "imgfs",
    "fuse",
    "quota",
    "overlay",
    "oci",
    "builder",
    "extract",
    "daemon",
    "store",
    "run",
  ],
};

/** External packages and the rooms that may import them; one that is not listed may be used anywhere. */
const packages: Readonly<Record<string, readonly string[]>> = {
  koffi: ["sys"],
  commander: ["cli"],
  fzstd: ["zstd"],
  "zstd-napi/binding": ["zstd"],
  pino: ["base"],
  yaml: ["cli"],
  undici: ["oci"],
  "smol-toml": ["oci"],
};

function sourceFiles(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return sourceFiles(path);
    return name.endsWith(".ts") ? [path] : [];
  });
}

interface Import {
  readonly file: string;
  readonly room: string;
  readonly specifier: string;
  readonly typeOnly: boolean;
}

const imports: Import[] = sourceFiles(src).flatMap((path) => {
  const file = relative(src, path);
  const text = readFileSync(path, "utf8");
  const pattern =
    /(?:^|\n)\s*(import|export)\s+(type\s+)?[^;'"]*?from\s+["']([^"']+)["']|\b(?:import|require)\(\s*["']([^"']+)["']\s*\)|new URL\(\s*["'](\.[^"']+)["'],\s*import\.meta\.url|(?:^|\n)import\s+["']([^"']+)["']/g;
  return [...text.matchAll(pattern)].map((match) => ({
    file,
    room: file.split("/")[0] as string,
    specifier: (match[3] ?? match[4] ?? match[5] ?? match[6]) as string,
    typeOnly: match[2] !== undefined,
  }));
});

describe("rooms", () => {
  it("has a row for every folder under src", () => {
    expect(
      readdirSync(src)
        .filter((name) => statSync(join(src, name)).isDirectory())
        .sort(),
    ).toEqual(Object.keys(may).sort());
  });

  it("imports go one way only", () => {
    expect(imports.length).toBeGreaterThan(50);
    const wrong = imports
      .filter(({ specifier }) => specifier.startsWith("."))
      .filter(({ file, room, specifier }) => {
        const target = relative(src, resolve(src, dirname(file), specifier)).split("/")[0] as string;
        return target !== ".." && target !== room && !(may[room] ?? []).includes(target);
      });
    expect(wrong).toEqual([]);
  });

  it("overlay takes from fuse only the interface it implements", () => {
    const allowed = /^\.\.\/fuse\/(operations|abi)\.js$/;
    expect(
      imports.filter(
        ({ room, specifier }) =>
          room === "overlay" && specifier.startsWith("../fuse/") && !allowed.test(specifier),
      ),
    ).toEqual([]);
  });

  it("packages stay in the rooms that own them", () => {
    const wrong = imports.filter(({ room, specifier, typeOnly }) => {
      const owners = packages[specifier];
      return owners !== undefined && !typeOnly && !owners.includes(room);
    });
    expect(wrong).toEqual([]);
  });

  it("fuse-native is known to its folder alone, which is loaded by the one who serves by it", () => {
    const folder = "fuse/native/";
    const naming = sourceFiles(src)
      .filter((path) => /["']fuse-native\/|prebuilds/.test(readFileSync(path, "utf8")))
      .map((path) => relative(src, path));
    expect(naming).toEqual([`${folder}library.ts`]);
    const importers = imports
      .filter(({ file, specifier }) => !file.startsWith(folder) && specifier.includes("/native/"))
      .map(({ file }) => file);
    expect(importers).toEqual(["daemon/native.ts"]);
    const loaders = imports.filter(({ specifier }) => specifier === "./native.js").map(({ file }) => file);
    expect(loaders).toEqual(["daemon/process.ts"]);
  });

  it("has no cycle between files", () => {
    const edges = new Map<string, string[]>();
    for (const { file, specifier, typeOnly } of imports) {
      if (!specifier.startsWith(".") || typeOnly) continue;
      const target = relative(src, resolve(src, dirname(file), specifier)).replace(/\.js$/, ".ts");
      edges.set(file, [...(edges.get(file) ?? []), target]);
    }
    const done = new Set<string>();
    const visit = (file: string, path: readonly string[]): void => {
      if (path.includes(file)) throw new Error(`cycle: ${[...path, file].join(" -> ")}`);
      if (done.has(file)) return;
      for (const next of edges.get(file) ?? []) visit(next, [...path, file]);
      done.add(file);
    };
    for (const file of edges.keys()) visit(file, []);
    expect(done.size).toBeGreaterThan(0);
  });
});
