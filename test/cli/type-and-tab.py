"""Types lines into an interactive shell, each followed by Tab, and prints what stands on the line then, one a line.

usage: type-and-tab.py bash|zsh SCRIPT FOLDER LINE...    (LINE... in FOLDER; SCRIPT is the completion to load)
"""

import os
import pty
import select
import sys
import tempfile
import time

SETUP = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        """show() { printf '%s\\n' "$READLINE_LINE" >> "$OUT"; }
bind -x '"\\C-x\\C-t": show'
bind 'set bell-style none'; bind 'set enable-bracketed-paste off'; bind 'set completion-query-items 1000'
. "$SCRIPT"
""",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        """autoload -U compinit && compinit -u -D
show() { print -r -- "$BUFFER" >> "$OUT" }
zle -N show; bindkey -e; bindkey '^X^T' show; setopt no_beep no_always_last_prompt; LISTMAX=1000
. "$SCRIPT"
""",
    ),
}
LIMIT = 30


class Shell:
    def __init__(self, kind, script, folder, out):
        arguments, setup = SETUP[kind]
        self.out = out
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            env = {"PATH": os.environ["PATH"], "TERM": "xterm", "LC_ALL": "C.UTF-8", "HOME": folder}
            os.execvpe(arguments[0], arguments, {**env, "OUT": out, "SCRIPT": script, "PS1": "$ "})
        self.said = b""
        self.send(setup + "echo is ready >> $OUT\n")
        self.wait(1)

    def send(self, text):
        os.write(self.fd, text.encode())

    def wait(self, lines):
        """Reads what the shell draws until that many lines have been shown."""
        deadline = time.monotonic() + LIMIT
        while True:
            if select.select([self.fd], [], [], 0.02)[0]:
                self.said += os.read(self.fd, 65536)
            with open(self.out, encoding="utf8") as file:
                shown = file.read().splitlines()
            if len(shown) >= lines:
                return shown
            if time.monotonic() > deadline:
                sys.exit(f"no answer; the shell drew {self.said[-2000:]!r}")

    def complete(self, line, number):
        self.send(line + "\t\x18\x14")
        shown = self.wait(number + 1)[number]
        self.send("\x05\x15")
        return shown


def main():
    kind, script, folder, *lines = sys.argv[1:]
    with tempfile.NamedTemporaryFile() as out:
        shell = Shell(kind, script, folder, out.name)
        for number, line in enumerate(lines, 1):
            print(shell.complete(line, number))
        os.close(shell.fd)
        os.waitpid(shell.pid, 0)


main()
