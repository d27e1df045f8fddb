// Completion for zsh, by its own _arguments.
import type { ArgumentInfo, OptionInfo, Tree, Value } from "./tree.js";

/** A word in single quotes. */
const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

/** Text inside a spec of _arguments, where brackets and colons have a meaning. */
const plain = (text: string): string => text.replace(/[\\[\]:]/g, "\\$&");

/** What _arguments does to offer such values; a lone space offers nothing and says what is wanted. */
function actionOf(program: string, value: Value): string {
  switch (value.kind) {
    case "words":
      return `(${value.words.join(" ")})`;
    case "directory":
      return "_files -/";
    case "path":
      return "_files";
    case "place":
      return `_files -g "*.imgfs(-.)"`;
    case "source":
      return `_${program}_source ${value.words.join(" ")}`;
    case "text":
      return " ";
  }
}

function optionSpecs(program: string, options: readonly OptionInfo[]): string[] {
  return options.flatMap(({ names, takes, value, valueName, description }) => {
    const action = `:${plain(valueName ?? "")}:${actionOf(program, value)}`;
    return names.map((name) => {
      const isLong = name.startsWith("--");
      const spec = {
        nothing: `(${names.join(" ")})${name}[${plain(description)}]`,
        // Those that take a value may come again.
        "a value": `*${name}${isLong ? "=" : "+"}[${plain(description)}]${action}`,
        "perhaps a value": `*${name}${isLong ? "=-" : "-"}[${plain(description)}]:${action}`,
      }[takes];
      return quote(spec);
    });
  });
}

function argumentSpecs(program: string, list: readonly ArgumentInfo[]): string[] {
  return list.flatMap(({ name, required, variadic, values }, i) =>
    values.map((value, j) => {
      const isRest = variadic && j === values.length - 1;
      const where = isRest ? "*" : `${i + j + 1}`;
      const optional = required || isRest ? ":" : "::";
      return quote(`${where}${optional}${plain(name)}:${actionOf(program, value)}`);
    }),
  );
}

/** The script. */
export function zshCompletion({ name, options, commands }: Tree): string {
  const list = (specs: readonly string[]): string => specs.map((spec) => `      ${spec} \\\n`).join("");
  const cases = commands.map(
    (command) => `    ${command.name})
      _arguments -S -s \\
${list([...optionSpecs(name, command.options), ...argumentSpecs(name, command.arguments)])}      $global && ret=0
      ;;`,
  );
  const names = commands.map((command) => `      ${quote(`${command.name}:${command.description}`)}`);
  return `#compdef ${name}
# zsh completion for ${name}, written by \`${name} completion zsh\`.
# To have it in every shell, put it into a folder of $fpath under the name _${name}; in this one, after compinit:
#   source <(${name} completion zsh)

_${name}_source() {
  if compset -P '*:'; then
    _files
  else
    _alternative "transports:transport:compadd -S '' - $*" 'files:file:_files'
  fi
}

_${name}() {
  local curcontext=$curcontext context state state_descr line ret=1
  typeset -A opt_args
  local -a global=(
${list(optionSpecs(name, options)).replaceAll(" \\\n", "\n")}  )
  local -a commands=(
${names.join("\n")}
  )
  _arguments -C -S -s $global '1: :->command' '*:: :->rest' && ret=0
  case $state in
  command) _describe -t commands command commands && ret=0 ;;
  rest)
    curcontext=\${curcontext%:*:*}:${name}-$words[1]:
    case $words[1] in
${cases.join("\n")}
    esac
    ;;
  esac
  return ret
}

if [[ $funcstack[1] == _${name} ]]; then
  _${name} "$@"
else
  compdef _${name} ${name}
fi
`;
}
