// Entry of the process that serves the mount of a run, in a mount namespace of its own, and for an ordinary user in a
// user namespace of its own. It starts the command's first process there, unless somebody else runs the command, and takes
// mount and temporary folder away when that has ended, or whoever asked for the run has.
// Descriptor 3 gives `go`, a ServerRequest as one line of JSON, then lines with numbers of signals for the command; at its
// end, whoever asked for the run is gone. Descriptor 4 takes `live`, or `refused` with the reason, and on a third line
// perhaps a hint. Descriptor 5 is the folder's lock.
import { closeSync, read, writeSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { MountFailure, oneLine } from "../daemon/options.js";
import { runMount } from "../daemon/process.js";
import { ServingThread } from "../daemon/thread.js";
import { closeOnExec } from "../sys/files.js";
import { exitNow } from "../sys/process.js";
import { createSocketPair } from "../sys/socket.js";
import { waitForChild } from "../sys/spawn.js";
import { startInNamespaces } from "./namespaces.js";
import { removePlace } from "./place.js";
import { ownEnvironment } from "./programs.js";
import { type InitRequest, type Inside, RunCode, RunFailure, type ServerRequest } from "./request.js";
import { readLine, releaseStreams, tellFailure } from "./streams.js";

const CONTROL_FD = 3;
const STATUS_FD = 4;
const LOCK_FD = 5;

// What a terminal sends is for the command, and so is what others send: it comes through descriptor 3.
const ignored = ["SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP", "SIGTSTP", "SIGTTOU"] as const;
for (const signal of ignored) process.on(signal, () => {});
for (const fd of [CONTROL_FD, STATUS_FD, LOCK_FD]) closeOnExec(fd);

const thread = new ServingThread();

function report(...lines: readonly string[]): void {
  try {
    writeSync(STATUS_FD, lines.map((line) => `${line}\n`).join(""));
    closeSync(STATUS_FD);
  } catch {
    // Whoever waited has gone.
  }
}

/** Whoever asked may try another way, in the same folder. */
function refuse(cause: unknown): void {
  const { hint } = cause instanceof MountFailure || cause instanceof RunFailure ? cause : { hint: undefined };
  report("refused", oneLine(cause), ...(hint === undefined ? [] : [hint]));
}

/** Starts the first process; the descriptor that it listens to, and its pid. */
async function startInit(
  { mount, maps }: ServerRequest,
  inside: Inside,
): Promise<{ readonly control: number; readonly pid: number }> {
  const [control, theirs] = createSocketPair();
  const isolated = ["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"];
  const namespaces = inside.surroundings.network === "none" ? [...isolated, "--net"] : isolated;
  const words = [process.execPath, fileURLToPath(new URL("./init.js", import.meta.url))];
  const env = ownEnvironment();
  const pid = await startInNamespaces({ namespaces, maps, words, env, fds: [theirs] });
  closeSync(theirs);
  const line: InitRequest = { rootfs: mount.mountpoint, ...inside };
  writeSync(control, `${JSON.stringify(line)}\n`);
  return { control, pid };
}

async function main(): Promise<number> {
  const text = readLine(CONTROL_FD);
  if (text === "") return RunCode.failure;
  const request = JSON.parse(text) as ServerRequest;
  const stop = new AbortController();
  let control: number | undefined;
  let code: number = RunCode.failure;

  const listen = (): void => {
    const bytes = Buffer.alloc(256);
    read(CONTROL_FD, bytes, 0, bytes.length, null, (error, length) => {
      if (error !== null || length === 0) {
        // Whoever asked is gone: the command goes with the descriptor it listens to.
        if (control === undefined) stop.abort();
        else closeSync(control);
        control = undefined;
        return;
      }
      if (control !== undefined) writeSync(control, bytes, 0, length);
      listen();
    });
  };

  const runInside = async (inside: Inside): Promise<void> => {
    try {
      const started = await startInit(request, inside);
      control = started.control;
      report("live");
      releaseStreams();
      const ended = await waitForChild(started.pid);
      code = ended?.code ?? RunCode.failure;
    } catch (cause) {
      refuse(cause);
    } finally {
      stop.abort();
    }
  };

  const onReady = (): void => {
    if (request.inside === undefined) report("live");
    else void runInside(request.inside);
  };

  listen();
  try {
    await runMount(request.mount, { onReady, onAbandon: exitNow, stop: stop.signal }, thread);
  } catch (cause) {
    refuse(cause);
    return code;
  }
  removePlace(request.folder);
  return code;
}

void main().catch(tellFailure).then(exitNow);
