// What the commands that ask a running mount have in common.
import { openControl } from "../daemon/control-client.js";
import { type ControlConnection, ControlRefused } from "../daemon/control-connection.js";
import { MountFailure } from "../daemon/options.js";
import { ExitCode, Failure } from "./failure.js";
import { visible } from "./output.js";

/** Runs `call` with a connection to the mount's process, and puts what is refused into one line. */
export async function withControl<T>(
  name: string,
  mountpoint: string,
  call: (control: ControlConnection) => Promise<T>,
): Promise<T> {
  let control: ControlConnection | undefined;
  try {
    control = await openControl(mountpoint);
    return await call(control);
  } catch (cause) {
    if (cause instanceof MountFailure) throw new Failure(cause.exitCode, `${name}: ${cause.message}`);
    if (cause instanceof ControlRefused) {
      throw new Failure(
        ExitCode.failure,
        `${name}: ${visible(`${control?.hello.mountpoint ?? mountpoint}: ${cause.message}`)}`,
      );
    }
    throw cause;
  } finally {
    control?.close();
  }
}

/** The failure of a command whose mount has gone while it was asked. */
export function mountEnded(name: string, mountpoint: string): Failure {
  return new Failure(ExitCode.failure, `${name}: ${mountpoint}: the mount has ended`);
}
