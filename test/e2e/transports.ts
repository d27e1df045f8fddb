// Both transports, for tests that say the same of each: what one lacks is subtracted by its name, and asserted to be
// missing where the test can.
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { type Lack, lacks } from "../../src/fuse/native/lacks.js";
import { type Foreground, mountForeground } from "./foreground.js";
import { type Mounted, mount, mountAt } from "./mounted.js";

export interface TransportUnderTest {
  readonly name: "direct" | "fuse-native";
  /** Options of the mount command. */
  readonly options: readonly string[];
  lacks(lack: Lack): boolean;
  mount(sources: string | readonly string[], ...options: string[]): Promise<Mounted>;
  mountAt(path: string, sources: string | readonly string[], ...options: string[]): Promise<Mounted>;
  mountForeground(image: string, ...options: string[]): Promise<Foreground>;
}

function transport(
  name: TransportUnderTest["name"],
  options: readonly string[],
  missing: ReadonlySet<string>,
): TransportUnderTest {
  return {
    name,
    options,
    lacks: (lack) => missing.has(lack),
    mount: (sources, ...more) => mount(sources, ...options, ...more),
    mountAt: (path, sources, ...more) => mountAt(path, sources, ...options, ...more),
    mountForeground: (image, ...more) => mountForeground(image, ...options, ...more),
  };
}

const packageFolder = resolve(import.meta.dirname, "../../node_modules/fuse-native");

/**
 * Why fuse-native cannot be tested, or undefined: only on machines that its package has nothing built for. Where it
 * should work and is not installed the tests fail.
 */
export const noNative: string | undefined =
  process.arch === "x64" || existsSync(join(packageFolder, `prebuilds/linux-${process.arch}`))
    ? undefined
    : `the package fuse-native has nothing built for ${process.arch}`;

export const direct: TransportUnderTest = transport("direct", [], new Set());
export const native: TransportUnderTest = transport(
  "fuse-native",
  ["--transport", "fuse-native"],
  new Set(Object.keys(lacks)),
);

/** What runs here. That fuse-native does not is told by the titles of native.test.ts. */
export const transports: readonly TransportUnderTest[] = noNative === undefined ? [direct, native] : [direct];
