// Completion for bash, with or without the package bash-completion.
import type { OptionInfo, Tree, Value } from "./tree.js";

/** What a kind of value is called in the script: words stand for themselves. */
function kindOf(value: Value): string {
  if (value.kind === "words") return value.words.join(" ");
  return value.kind === "source" ? `@source ${value.words.join(" ")}` : `@${value.kind}`;
}

const quote = (words: string): string => `'${words.replaceAll("'", "'\\''")}'`;

function optionCases(command: string, options: readonly OptionInfo[]): string[] {
  return options
    .filter(({ takes }) => takes === "a value")
    .map(({ names, value }) => {
      const patterns = names.map((name) => `${command}" ${name}"`);
      return `  ${patterns.join(" | ")}) kind=${quote(kindOf(value))} ;;`;
    });
}

/** The script. */
export function bashCompletion({ name, options, commands }: Tree): string {
  const flags = (list: readonly OptionInfo[]): string => list.flatMap(({ names }) => names).join(" ");
  const argumentCases = commands.flatMap((command) =>
    command.arguments.flatMap(({ values, variadic }, i) =>
      values.map((value, j) => {
        const isRest = variadic && j === values.length - 1;
        const position = isRest ? `${command.name} "*` : `${command.name} ${i + j + 1}"`;
        return `  "${position}) kind=${quote(kindOf(value))} ;;`;
      }),
    ),
  );
  return `# bash completion for ${name}, written by \`${name} completion bash\`.
# To have it in this shell:  source <(${name} completion bash)

# What the value of option $2 of command $1 is; empty when it takes none.
__${name}_option() {
  kind=
  case "$1 $2" in
${optionCases("*", options).join("\n")}
${commands.flatMap((command) => optionCases(command.name, command.options)).join("\n")}
  esac
}

# What argument number $2 of command $1 is.
__${name}_argument() {
  kind=
  case "$1 $2" in
${argumentCases.join("\n")}
  esac
}

__${name}_flags() {
  kind=${quote(flags(options))}
  case $1 in
${commands
  .filter((command) => command.options.length > 0)
  .map((command) => `  ${command.name}) kind+=${quote(` ${flags(command.options)}`)} ;;`)
  .join("\n")}
  esac
}

_${name}() {
  local piece=\${COMP_WORDS[COMP_CWORD]} command='' kind='' option='' ended='' word last='' i position=0 current value
  local -a words=()
  COMPREPLY=()
  # readline splits words at = and at :, here they are one again.
  for ((i = 1; i <= COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if ((\${#words[@]})) && [[ $word == [=:]* || $last == *[=:] ]]; then
      words[-1]+=$word
    else
      words+=("$word")
    fi
    last=$word
  done
  current=\${words[-1]}
  unset 'words[-1]'
  for word in "\${words[@]}"; do
    if [[ -n $option ]]; then
      option=
    elif [[ -z $ended && $word == -- ]]; then
      ended=1
    elif [[ -z $ended && $word == -* ]]; then
      __${name}_option "$command" "$word"
      if [[ -n $kind ]]; then option=$word; fi
    elif [[ -z $command ]]; then
      command=$word
    else
      ((++position))
    fi
  done

  value=$current
  if [[ -n $option ]]; then
    __${name}_option "$command" "$option"
  elif [[ -z $ended && $current == --*=* ]]; then
    __${name}_option "$command" "\${current%%=*}"
    value=\${current#*=}
  elif [[ -z $ended && $current == -* ]]; then
    __${name}_flags "$command"
  elif [[ -z $command ]]; then
    kind=${quote(commands.map((command) => command.name).join(" "))}
  else
    __${name}_argument "$command" $((position + 1))
  fi
  if [[ $kind == @source* && $value == *:* ]]; then
    kind=@path
    value=\${value#*:}
  fi

  case $kind in
  @directory)
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -d -- "$value")
    ;;
  @path)
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$value")
    ;;
  @place)
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -d -- "$value"; compgen -f -X '!*.imgfs' -- "$value")
    ;;
  @source*)
    mapfile -t COMPREPLY < <(compgen -f -- "$value")
    # A colon in a file name would be quoted, one after a transport must not be.
    if ((\${#COMPREPLY[@]})); then compopt -o filenames 2>/dev/null; else compopt -o nospace 2>/dev/null; fi
    mapfile -t -O \${#COMPREPLY[@]} COMPREPLY < <(compgen -W "\${kind#@source}" -- "$value")
    ;;
  @* | '') ;;
  *) mapfile -t COMPREPLY < <(compgen -W "$kind" -- "$value") ;;
  esac

  # Where readline does not split at = or :, what stands before the value belongs to the reply.
  if [[ $piece == *"$value" && $piece != [=:] ]]; then
    COMPREPLY=("\${COMPREPLY[@]/#/\${piece%"$value"}}")
  fi
}

complete -F _${name} ${name}
`;
}
