#!/usr/bin/env python3
"""Runs the conformance cases on a backend (backends.py) and prints one JSON line a case.

  runner.py BACKEND [-k REGEX]   {"topic", "case", "outcome", "why", "seconds"}; the outcome is passed, failed, lacking (as
                                 declared) or stale (declared to be lacking, and passed)
  runner.py --list               of all backends {"cases", "lacks"}: what runs on each, and what each is declared to lack

One process a backend; each body runs in a child of its own, which may change user, hang or crash. Exit 0: every case
passed or is lacking as declared.
"""
import importlib
import inspect
import json
import os
import pkgutil
import re
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from fnmatch import filter as filter_names
from fnmatch import fnmatch

sys.dont_write_bytecode = True

import cases
import kit
from backends import BACKENDS

for module in sorted(module.name for module in pkgutil.iter_modules(cases.__path__)):
    importlib.import_module(f"cases.{module}")

SECONDS = 60


def applies(backend, case):
    if case.root and not backend.root:
        return False
    if backend.read_only:
        return case.reads or case.read_only
    return not case.read_only


def declared(backend, case):
    """Why the backend lacks what the case is about, or None."""
    return next((why for why, lacking in backend.lacks.items() if any(fnmatch(case.name, each) for each in lacking)), None)


class Running:
    """A case whose body has not ended: a generator, or a child process that waits at a `yield`."""

    def __init__(self, case, folder):
        self.case, self.folder = case, folder
        self.generator = self.problem = self.pid = self.wants = None
        self.seconds = 0


def where_of(problem):
    """The line of the case that went wrong, and what."""
    frames = [frame for frame in traceback.extract_tb(problem.__traceback__) if "/cases/" in frame.filename]
    line = f"line {frames[-1].lineno}: {frames[-1].line}: " if frames else ""
    return f"{line}{type(problem).__name__} {problem}"[:900]


def set_up(running, backend, folder, final):
    """Runs the setup of a case in its new folder."""
    os.mkdir(folder, 0o755)
    kit.place["final"] = final
    os.chdir(folder)
    os.umask(0o022)
    if not inspect.isgeneratorfunction(running.case.run):
        return
    running.generator = running.case.run()
    try:
        next(running.generator)
    except StopIteration:
        running.problem = "the case ended before its first yield"
    except Exception as cause:
        running.problem = f"setup: {where_of(cause)}"


def as_user(backend, action, *arguments):
    if backend.user is None:
        return action(*arguments)
    with kit.user(backend.user):
        return action(*arguments)


def start_body(running, backend, final):
    """Forks the child that runs the body. It tells by a pipe how it ended, or which new mount it waits for."""
    down, up = os.pipe(), os.pipe()
    running.pid = os.fork()
    if running.pid == 0:
        os.setpgid(0, 0)
        os.close(down[1])
        os.close(up[0])
        try:
            child(running, backend, final, down[0], up[1])
        finally:
            os._exit(0)
    os.close(down[0])
    os.close(up[1])
    running.tell, running.hear = down[1], up[0]


def child(running, backend, final, hear, tell):
    if backend.user is not None:
        os.setgroups([])
        os.setresgid(backend.user, backend.user, backend.user)
        os.setresuid(backend.user, backend.user, backend.user)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    kit.place["final"] = final
    os.umask(0o022)
    while True:
        try:
            os.chdir(final)
            if running.generator is None:
                running.case.run()
                said = ""
            else:
                said = next(running.generator)
        except StopIteration:
            said = ""
        except BaseException as cause:
            said = where_of(cause) or "failed"
        os.chdir("/")
        os.write(tell, said.encode("utf8", "replace"))
        if said not in (kit.REMOUNT, kit.KILL):
            os.close(tell)
            return
        os.read(hear, 1)


def listen(running):
    """Waits until the body ends or wants a new mount."""
    began = time.monotonic()
    ready, _, _ = select.select([running.hear], [], [], SECONDS)
    running.seconds = round(running.seconds + time.monotonic() - began, 3)
    text = os.read(running.hear, 4096).decode() if ready else f"still running after {SECONDS} s"
    if text in (kit.REMOUNT, kit.KILL):
        running.wants = text
        return
    running.wants, running.problem = None, text or None
    try:
        os.killpg(running.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    _, status = os.waitpid(running.pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
        running.problem = f"signal {os.WTERMSIG(status)}"
    os.close(running.tell)
    os.close(running.hear)


def run_all(backend, chosen, scratch):
    kit.place["copies"] = backend.start != "upper"
    setup_top, final_top = backend.open(scratch)
    if backend.user is not None:
        for top in {setup_top, final_top}:
            os.chmod(top, 0o777)
    ran = []
    for case in chosen:
        running = Running(case, case.name)
        as_user(backend, set_up, running, backend, os.path.join(setup_top, case.name), os.path.join(final_top, case.name))
        os.chdir("/")
        ran.append(running)
    backend.settle()
    for running in ran:
        if running.problem is not None:
            continue
        start_body(running, backend, os.path.join(final_top, running.folder))
        listen(running)
        if running.wants is None:
            report(backend, running)
    while any(running.wants for running in ran):
        wanted = next(running.wants for running in ran if running.wants)
        backend.again(wanted == kit.KILL)
        for running in [each for each in ran if each.wants == wanted]:
            os.write(running.tell, b"g")
            listen(running)
            if running.wants is None:
                report(backend, running)
    for running in ran:
        if running.pid is None:
            report(backend, running)
    return ran


def report(backend, running):
    case, lack = running.case, declared(backend, running.case)
    if running.problem is None:
        outcome, why = ("passed", "") if lack is None else ("stale", f"passes although declared to lack: {lack}")
    else:
        outcome, why = ("failed", running.problem) if lack is None else ("lacking", f"{lack} ({running.problem})")
    running.good = outcome in ("passed", "lacking")
    line = {"topic": case.topic, "case": case.name, "outcome": outcome, "why": why, "seconds": running.seconds}
    print(json.dumps(line), flush=True)


def own_namespace():
    """Mounts made here are nobody else's, and end with this process: a mount that another process's new namespace has
    taken along would keep its daemon after it is unmounted here."""
    kit.call(kit.libc.unshare(0x20000))
    kit.call(kit.libc.mount(None, b"/", None, (1 << 19) | 16384, None))


def main(arguments):
    if arguments[0] == "--list":
        listing = {
            name: {
                "cases": [f"{case.topic}: {case.name}" for case in kit.CASES.values() if applies(backend, case)],
                "lacks": sorted(backend.lacks),
            }
            for name, backend in BACKENDS.items()
        }
        print(json.dumps(listing))
        return 0
    backend = BACKENDS[arguments[0]]
    pattern = re.compile(arguments[2] if arguments[1:2] == ["-k"] else "")
    chosen = [c for c in kit.CASES.values() if applies(backend, c) and pattern.search(f"{c.topic}: {c.name}")]
    applying = [c.name for c in kit.CASES.values() if applies(backend, c)]
    unknown = {name for lacking in backend.lacks.values() for name in lacking if not filter_names(applying, name)}
    if unknown:
        raise SystemExit(f"declared to be lacking, but no case of {backend.name}: {', '.join(sorted(unknown))}")
    if os.geteuid() == 0:
        own_namespace()
    scratch = tempfile.mkdtemp(prefix="imgfs-conformance-")
    os.chmod(scratch, 0o755)
    try:
        ran = run_all(backend, chosen, scratch)
    finally:
        os.chdir("/")
        backend.close()
        shutil.rmtree(scratch, ignore_errors=True)
    return 0 if all(running.good for running in ran) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
