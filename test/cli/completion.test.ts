// `imgfs completion`: the shells themselves load the scripts and complete with them.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { program } from "../../src/cli/program.js";
import { type Tree, treeOf } from "../../src/cli/tree.js";
import { command, hasCommand, scratch, scratchDirectory, succeed, titleOf } from "../e2e/mounted.js";

const tree: Tree = treeOf(program(async () => 0));
const driver = join(import.meta.dirname, "type-and-tab.py");
const scripts = new Map<string, string>();
let folder: string;

beforeAll(async () => {
  for (const shell of ["bash", "zsh", "fish"]) {
    const file = scratch(`completion.${shell}`);
    writeFileSync(file, await succeed(command, ["completion", shell]));
    scripts.set(shell, file);
  }
  folder = scratchDirectory("place");
  for (const name of ["image", "layout dir", "mnt"]) mkdirSync(join(folder, name));
  for (const name of ["lower.imgfs", "log.txt", "monday.txt", "layer.tar"])
    writeFileSync(join(folder, name), "");
});

/** The line before Tab, and what it becomes in bash and in zsh. */
const lines: readonly (readonly [typed: string, inBash: string, inZsh: string])[] = [
  ["imgfs bui", "imgfs build ", "imgfs build "],
  ["imgfs mount --upp", "imgfs mount --upper ", "imgfs mount --upper="],
  ["imgfs mount --strict", "imgfs mount --strict-id-map ", "imgfs mount --strict-id-map "],
  // Values of an option, in both forms; a global option before and after the command.
  ["imgfs build --progress pl", "imgfs build --progress plain ", "imgfs build --progress plain "],
  ["imgfs build --progress=pl", "imgfs build --progress=plain ", "imgfs build --progress=plain "],
  ["imgfs --log-level tr", "imgfs --log-level trace ", "imgfs --log-level trace "],
  ["imgfs --log-level debug insp", "imgfs --log-level debug inspect ", "imgfs --log-level debug inspect "],
  ["imgfs ls --log-format js", "imgfs ls --log-format json ", "imgfs ls --log-format json "],
  // Directories only, where nothing else fits.
  ["imgfs umount m", "imgfs umount mnt/", "imgfs umount mnt/"],
  ["imgfs quota --set 1G m", "imgfs quota --set 1G mnt/", "imgfs quota --set 1G mnt/"],
  // A value that may be left out is never the next word.
  ["imgfs status --watch m", "imgfs status --watch mnt/", "imgfs status --watch mnt/"],
  ["imgfs status --watch=5 --j", "imgfs status --watch=5 --json ", "imgfs status --watch=5 --json "],
  ["imgfs mount --upper=m", "imgfs mount --upper=mnt/", "imgfs mount --upper=mnt/"],
  ["imgfs mount --devices image m", "imgfs mount --devices image mnt/", "imgfs mount --devices image mnt/"],
  [
    "imgfs mount lower.imgfs lo",
    "imgfs mount lower.imgfs lower.imgfs ",
    "imgfs mount lower.imgfs lower.imgfs ",
  ],
  ["imgfs du m", "imgfs du mnt/", "imgfs du mnt/"],
  ["imgfs mount --pid-file mo", "imgfs mount --pid-file monday.txt ", "imgfs mount --pid-file monday.txt "],
  // Sources: a transport, then a path.
  ["imgfs build docker-a", "imgfs build docker-archive:", "imgfs build docker-archive:"],
  ["imgfs build oci:layo", "imgfs build oci:layout\\ dir/", "imgfs build oci:layout\\ dir/"],
  ["imgfs build tar:layer.tar m", "imgfs build tar:layer.tar mnt/", "imgfs build tar:layer.tar mnt/"],
  ["imgfs completion f", "imgfs completion fish ", "imgfs completion fish "],
  // After -- nothing is an option.
  ["imgfs cat -- mo", "imgfs cat -- monday.txt ", "imgfs cat -- monday.txt "],
];

for (const [shell, column] of [
  ["bash", 1],
  ["zsh", 2],
] as const) {
  const missing = hasCommand(shell) ? undefined : `${shell} is missing`;
  describe.skipIf(missing !== undefined)(titleOf(shell, missing), () => {
    it("completes what is typed", async () => {
      const script = scripts.get(shell) as string;
      const typed = lines.map(([line]) => line);
      const shown = await succeed("python3", [driver, shell, script, folder, ...typed]);
      expect(shown.split("\n").slice(0, -1)).toEqual(lines.map((line) => line[column]));
    });
  });
}

it("in bash offers every command and every flag of each", async () => {
  const script = `source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _imgfs; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const offers = async (...words: readonly string[]): Promise<string[]> => {
    const file = scripts.get("bash") as string;
    const said = await succeed("bash", ["--norc", "-euc", script, "bash", file, "imgfs", ...words]);
    return said.trim().split("\n").sort();
  };
  const names = tree.options.flatMap((option) => option.names);
  expect(await offers("")).toEqual(tree.commands.map(({ name }) => name).sort());
  expect(await offers("-")).toEqual([...names].sort());
  for (const { name, options } of tree.commands) {
    const wanted = [...names, ...options.flatMap((each) => each.names)].sort();
    expect(await offers(name, "-"), name).toEqual(wanted);
  }
});

const noFish = hasCommand("fish") ? undefined : "fish is missing";
describe.skipIf(noFish !== undefined)(titleOf("fish", noFish), () => {
  /** What is offered for the last word of each line, without the descriptions. */
  const offers = async (...typed: readonly string[]): Promise<string[][]> => {
    const script = `source $argv[1]; cd $argv[2]; for line in $argv[3..-1]; echo "> $line"; complete -C $line; end`;
    const said = await succeed(
      "fish",
      ["--no-config", "-c", script, scripts.get("fish") as string, folder, ...typed],
      {
        env: { HOME: folder, LC_ALL: "C.UTF-8" },
      },
    );
    return said
      .split(/^> .*\n/m)
      .slice(1)
      .map((part) =>
        part.split("\n").flatMap((line) => (line === "" ? [] : [line.split("\t")[0] as string])),
      );
  };

  it("offers every command and every flag of each", async () => {
    const names = tree.options.flatMap((option) => option.names);
    const [commands = [], ...flags] = await offers(
      "imgfs ",
      ...tree.commands.map(({ name }) => `imgfs ${name} -`),
    );
    expect(commands.sort()).toEqual(tree.commands.map(({ name }) => name).sort());
    tree.commands.forEach(({ name, options }, i) => {
      const wanted = [...names, ...options.flatMap((each) => each.names)].sort();
      expect(flags[i]?.sort(), name).toEqual(wanted);
    });
  });

  it("offers values, images, directories and sources where they belong", async () => {
    expect(
      await offers(
        "imgfs build --progress pl",
        "imgfs --log-level=tr",
        "imgfs --log-level debug insp",
        "imgfs umount ",
        "imgfs mount --upper m",
        "imgfs mount image m",
        "imgfs inspect mo",
        "imgfs build oci-",
        "imgfs build tar:laye",
        "imgfs completion ",
      ),
    ).toEqual([
      ["plain"],
      ["--log-level=trace"],
      ["inspect"],
      ["image/", "layout dir/", "mnt/"],
      ["mnt/"],
      ["mnt/"],
      ["monday.txt"],
      ["oci-archive:"],
      ["tar:layer.tar"],
      ["bash", "fish", "zsh"],
    ]);
  });
});
