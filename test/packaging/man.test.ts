// The man pages that the build makes: sound mdoc, and nothing of the command line left out.
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { describe, expect, it } from "vitest";
import { ExitCode } from "../../src/cli/failure.js";
import { grootUsage } from "../../src/cli/groot/declare.js";
import { program } from "../../src/cli/program.js";
import { treeOf } from "../../src/cli/tree.js";
import { sourceForms } from "../../src/oci/reference.js";
import { mountFlagNames } from "../../src/sys/mount-flags.js";
import { hasCommand, run, succeed, titleOf } from "../e2e/mounted.js";
import { manifest, repository } from "./installed.js";

const tree = treeOf(program(async () => 0));
const pages = (manifest.man ?? []).map((path) => join(repository, path));
const pageOf = (name: string): string => pages.find((path) => basename(path) === name) as string;
const missing = hasCommand("mandoc") ? undefined : "mandoc is missing";

/** A page as a reader sees it, without line breaks. */
async function shown(name: string): Promise<string> {
  const text = await succeed("mandoc", ["-Tascii", "-Owidth=1000", pageOf(name)]);
  return text.replace(/.[\b]/g, "").replace(/\s+/g, " ");
}

it("package.json names the pages that there are", () => {
  expect(pages.map((path) => basename(path)).sort()).toEqual(readdirSync(join(repository, "man")).sort());
});

describe.skipIf(missing !== undefined)(titleOf("man pages", missing), () => {
  it.each(pages.map((path) => basename(path)))("%s is sound mdoc", async (name) => {
    expect(readFileSync(pageOf(name), "utf8")).not.toMatch(/^\.\\" @/m);
    const { stdout } = await run("mandoc", ["-Tlint", "-Wstyle", pageOf(name)]);
    // What is not installed here cannot be found, and sources may have long lines.
    const wrong = stdout
      .split("\n")
      .filter((line) => line !== "" && !/longer than 80 bytes|manual not found|mandoc\.db/.test(line));
    expect(wrong).toEqual([]);
  });

  it("tell every command, every option and every form of a source", async () => {
    const whole = await shown("imgfs.1");
    const own = new Map([
      ["build", await shown("imgfs-build.1")],
      ["du", await shown("imgfs-du.1")],
      ["mount", await shown("imgfs-mount.1")],
      ["quota", await shown("imgfs-quota.1")],
      ["run", await shown("imgfs-run.1")],
      ["status", await shown("imgfs-status.1")],
    ]);
    const store = await shown("imgfs-store.1");
    for (const name of Object.keys(grootUsage)) own.set(name, store);
    const pageWith = (name: string): string => own.get(name) ?? whole;
    const wanted = tree.commands.flatMap(({ name, usage, options }) => [
      ...usage.map((form) => ({ page: whole, text: `imgfs ${form}` })),
      ...options.flatMap((option) => option.names.map((flag) => ({ page: pageWith(name), text: flag }))),
      ...options.map(({ description }) => ({ page: pageWith(name), text: description.slice(1) })),
    ]);
    for (const { names, description, env } of tree.options) {
      for (const text of [...names, description.slice(1), env ?? ""]) wanted.push({ page: whole, text });
    }
    for (const form of sourceForms.split(", ")) wanted.push({ page: whole, text: form });
    expect(wanted.length).toBeGreaterThan(50);
    expect(wanted.filter(({ page, text }) => !page.includes(text)).map(({ text }) => text)).toEqual([]);
  });

  it("tell every exit code, environment variable and option of the mount itself", async () => {
    const whole = await shown("imgfs.1");
    const status = whole.slice(whole.indexOf("EXIT STATUS"), whole.indexOf("EXAMPLES"));
    for (const code of Object.values(ExitCode)) expect(status).toMatch(new RegExp(`\\b${code}\\b`));
    const sources = readdirSync(join(repository, "src"), { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts"))
      .map((path) => readFileSync(join(repository, "src", path), "utf8"));
    const variables = sources.flatMap((text) =>
      [...text.matchAll(/process\.env\["(\w+)"\]/g)].map((match) => match[1]),
    );
    expect(variables.length).toBeGreaterThan(0);
    expect(variables.filter((name) => !whole.includes(name as string))).toEqual([]);
    const options = await shown("imgfs-mount.1");
    const section = options.slice(options.indexOf("MOUNT OPTIONS"), options.indexOf("ID MAPS"));
    const known = new Set(section.match(/[\w-]+/g));
    const flags = [...mountFlagNames.keys()].map((name) => name.replace(/^no/, ""));
    expect(flags.filter((name) => !known.has(name))).toEqual([]);
  });
});
