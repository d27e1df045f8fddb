// Completion for fish.
import type { OptionInfo, Tree, Value } from "./tree.js";

const quote = (text: string): string => `'${text.replace(/[\\']/g, "\\$&")}'`;

/** The options of complete(1) that offer such values, and nothing else. */
function offerOf(value: Value): string {
  switch (value.kind) {
    case "words":
      return `-x -a ${quote(value.words.join(" "))}`;
    case "directory":
      return `-x -a '(__fish_complete_directories (commandline -ct))'`;
    case "path":
      return "-r -F";
    case "place":
      return String.raw`-x -a '(__fish_complete_suffix .imgfs | string match -r ".*(?:/|\.imgfs)(?:\t.*)?\$")'`;
    case "source":
      return `-r -F -a ${quote(value.words.join(" "))}`;
    case "text":
      return "-x";
  }
}

/** The script. */
export function fishCompletion({ name, options, commands }: Tree): string {
  const complete = `complete -c ${name}`;
  const optionLines = (condition: string, list: readonly OptionInfo[]): string[] =>
    list.map(({ names, takes, value, description }) => {
      const flags = names.map((flag) =>
        flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`,
      );
      const offer = takes === "a value" ? ` ${offerOf(value)}` : "";
      return `${complete}${condition} ${flags.join(" ")}${offer} -d ${quote(description)}`;
    });
  const argumentLines = commands.flatMap((command) =>
    command.arguments.flatMap(({ values, variadic }, i) =>
      values.map((value, j) => {
        const isRest = variadic && j === values.length - 1;
        const at = `${command.name} ${i + j + 1}${isRest ? " -" : ""}`;
        return `${complete} -n '__${name}_at ${at}' ${offerOf(value)}`;
      }),
    ),
  );
  const takers = [...options, ...commands.flatMap((command) => command.options)]
    .filter(({ takes }) => takes === "a value")
    .flatMap(({ names }) => names);
  return `# fish completion for ${name}, written by \`${name} completion fish\`.
# To have it in every shell:  ${name} completion fish > ~/.config/fish/completions/${name}.fish

function __${name}_words -d 'the command and its arguments before the cursor, without options and their values'
    set -l takers ${[...new Set(takers)].join(" ")}
    set -l skip no
    for word in (commandline -opc)[2..-1]
        if test $skip = yes
            set skip no
        else if contains -- $word $takers
            set skip yes
        else if not string match -q -- '-*' $word
            echo $word
        end
    end
end

function __${name}_in -a command -d 'whether it is this command'
    set -l words (__${name}_words)
    test "$words[1]" = "$command"
end

function __${name}_at -a command position more -d 'whether its argument of that number, or a later one, is next'
    set -l words (__${name}_words)
    test "$words[1]" = "$command"; or return
    set -l count (count $words)
    test $count -eq $position; or test -n "$more" -a $count -gt $position
end

${complete} -f
${optionLines("", options).join("\n")}
${commands.map((command) => `${complete} -n '__${name}_in ""' -a ${command.name} -d ${quote(command.description)}`).join("\n")}
${commands.flatMap((command) => optionLines(` -n '__${name}_in ${command.name}'`, command.options)).join("\n")}
${argumentLines.join("\n")}
`;
}
