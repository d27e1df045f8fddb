"""Runs a command on a terminal of its own and drives it: terminal.py STEPS COMMAND...

STEPS is JSON, a list of steps: {"expect": TEXT} waits for it, {"send": TEXT} types it, {"size": [ROWS, COLUMNS]}
changes the window, {"group": NAME} waits until a process of that name is in the foreground. What was shown goes to
stdout, the command's exit code is ours.
"""
import fcntl, json, os, pty, select, struct, sys, termios, time

steps, command = json.loads(sys.argv[1]), sys.argv[2:]
PATIENCE = 60
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

shown = b""
looked = 0


def fail(what):
    sys.stdout.write(shown.decode("utf8", "replace"))
    sys.stdout.flush()
    os.kill(pid, 9)
    sys.exit(f"{what}, after {shown[looked:]!r}")


def listen(seconds):
    """Takes what is shown; false when nothing more can come."""
    global shown
    if not select.select([terminal], [], [], seconds)[0]:
        return True
    try:
        data = os.read(terminal, 65536)
    except OSError:
        data = b""
    shown += data
    return data != b""


def expect(text):
    global looked
    deadline = time.monotonic() + PATIENCE
    while text not in shown[looked:]:
        if time.monotonic() > deadline or not listen(0.1):
            fail(f"waited in vain for {text!r}")
    looked = shown.index(text, looked) + len(text)


def foreground(name):
    deadline = time.monotonic() + PATIENCE
    while True:
        listen(0.02)
        try:
            with open(f"/proc/{os.tcgetpgrp(terminal)}/comm") as file:
                if file.read().strip() == name:
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            fail(f"{name} never came to the foreground")


for step in steps:
    [(kind, value)] = step.items()
    if kind == "expect":
        expect(value.encode())
    elif kind == "send":
        os.write(terminal, value.encode())
    elif kind == "size":
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *value, 0, 0))
    elif kind == "group":
        foreground(value)
while listen(PATIENCE):
    pass
sys.stdout.write(shown.decode("utf8", "replace"))
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
