// Writes the man pages of man/ to dist/man/, with what only the command tree knows filled in: a line
//   .\" @globals            the options that every command takes
//   .\" @options COMMAND    the options of one command
//   .\" @commands           every command with its options
//   .\" @store              the commands of the store with theirs
//   .\" @storeglobals       the options that all of those have
// Run by `npm run build`, after the compiler.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { grootUsage } from "../dist/cli/groot/declare.js";
import { program } from "../dist/cli/program.js";
import { treeOf } from "../dist/cli/tree.js";

const from = new URL("../man/", import.meta.url);
const to = new URL("../dist/man/", import.meta.url);
const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
const tree = treeOf(program(async () => 0));

/** Commands that have a page of their own. */
const pages = readdirSync(from);
const isOfStore = ({ name }) => Object.hasOwn(grootUsage, name);
const pageOf = (name) => (isOfStore({ name }) ? "imgfs-store" : `imgfs-${name}`);
const hasPage = (name) => pages.includes(`${pageOf(name)}.1`);

/** Text as one line of mdoc that no macro is read into. */
const plain = (text) =>
  text
    .replaceAll("\\", "\\e")
    .replace(/(?<![\w-])--?(?=\w)/g, (dashes) => dashes.replaceAll("-", "\\-"))
    .replace(/^[.']/, "\\&$&");
/** An argument of a macro: quoted, so that spaces and names of macros are text. */
const word = (text) => `"${text.replaceAll("\\", "\\e").replaceAll('"', '""')}"`;
/** What starts with a form to be written as it is keeps its case. */
const capital = (text) => (/^[a-z-]+:\S/.test(text) ? text : text[0].toUpperCase() + text.slice(1));
const sentence = (text) => `${plain(capital(text))}${/[.!?]$/.test(text) ? "" : "."}`;

function optionLines(options) {
  if (options.length === 0) return [];
  return [
    ".Bl -tag -width Ds",
    ...options.flatMap(({ names, valueName, value, description, defaultValue, env }) => {
      const argument = valueName === undefined ? "" : ` Ar ${word(valueName)}`;
      const flags = names.map((name) => `Fl ${name.slice(1).replaceAll("-", "\\-")}${argument}`);
      const choices =
        value.kind === "words" && valueName !== value.words.join("|")
          ? [sentence(`one of ${value.words.join(", ")}`)]
          : [];
      return [
        `.It ${flags.join(" , ")}`,
        sentence(description),
        ...choices,
        ...(defaultValue === undefined ? [] : [sentence(`the default is ${defaultValue}`)]),
        ...(env === undefined ? [] : [`When it is not given, it is taken from`, `.Ev ${env} .`]),
      ];
    }),
    ".El",
  ];
}

function argumentLines(list) {
  if (list.length === 0) return [];
  const items = list.flatMap(({ name, description }) => [
    `.It Ar ${word(name.toUpperCase())}`,
    sentence(description),
  ]);
  return [".Bl -tag -width Ds", ...items, ".El"];
}

/** The command without arguments has nothing but what all have. */
const optionsOfAll = tree.commands.find(({ name }) => name === "list").options;
const isOfAll = ({ names }) => optionsOfAll.some((option) => option.names[0] === names[0]);

function commandLines({ name, usage, description, options, arguments: args }, inFull = !hasPage(name)) {
  return [
    `.Ss imgfs ${name}`,
    ...usage.flatMap((form) => [`.D1 Nm imgfs Cm ${form.split(" ").map(word).join(" Ar ")}`]),
    ".Pp",
    sentence(description),
    ...(inFull
      ? argumentLines(args).concat(optionLines(options))
      : [".Pp", "More is in", `.Xr ${pageOf(name)} 1 .`]),
  ];
}

const fillers = {
  globals: () => optionLines(tree.options),
  options: (name) => optionLines(tree.commands.find((command) => command.name === name).options),
  commands: () => tree.commands.flatMap((command) => commandLines(command)),
  store: () =>
    tree.commands
      .filter(isOfStore)
      .map((command) => ({ ...command, options: command.options.filter((option) => !isOfAll(option)) }))
      .flatMap((command) => commandLines(command, true)),
  storeglobals: () => optionLines(optionsOfAll),
};

rmSync(to, { recursive: true, force: true });
mkdirSync(to, { recursive: true });
for (const page of pages) {
  const text = readFileSync(new URL(page, from), "utf8")
    .replace(/^\.\\" Lines that begin.*\n/m, "")
    .replace(/^\.Os imgfs$/m, `.Os imgfs ${version}`)
    .replace(/^\.\\" @(\w+) ?(\w*)$/gm, (_, what, name) => fillers[what](name).join("\n"));
  writeFileSync(new URL(page, to), text);
}
