// What one run is told, as plain data: it travels as JSON from the command to the process that serves the mount, and
// from there to the first process of the command's own namespaces.
import type { MountOptions } from "../daemon/options.js";

/** A path of the host that shows inside. */
export interface Bind {
  /** Absolute. */
  readonly host: string;
  /** Absolute, inside. */
  readonly inside: string;
  readonly readOnly: boolean;
}

/** The process that is to run. */
export interface CommandRequest {
  /** The words of the command; empty for a shell of the image. */
  readonly words: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Where it starts; made when it is missing. */
  readonly workdir: string;
  /** `USER[:GROUP]`, names or numbers of the image; empty for root. */
  readonly user: string;
}

/** What the command finds around it. */
export interface Surroundings {
  readonly binds: readonly Bind[];
  readonly readOnly: boolean;
  readonly network: "host" | "none";
  readonly hostname?: string;
}

export interface RunRequest {
  /** How the image is mounted, without a place: that is this room's. */
  readonly mount: Omit<MountOptions, "mountpoint" | "sources"> & { readonly source: string };
  readonly command: CommandRequest;
  readonly surroundings: Surroundings;
  readonly by: "auto" | Way;
}

/** What makes the namespaces. */
export type Way = "unshare" | "bwrap";

/** What the process that serves the mount is told. */
export interface ServerRequest {
  readonly mount: MountOptions;
  /** What it is to start on the mount; without it somebody else does. */
  readonly inside?: Inside;
  /** The id maps of the user namespace that the command gets of its own; without them it has that of the server. */
  readonly maps?: NamespaceMaps;
  /** Removed at the end, with all that is in it. */
  readonly folder: string;
}

/** What runs in the namespaces of the command. */
export interface Inside {
  readonly command: CommandRequest;
  readonly surroundings: Surroundings;
  /** The command would have the rights of the host's own root: what acts on the whole machine is closed to it. */
  readonly hostRoot: boolean;
}

/** What the first process of the command's namespaces is told; `rootfs` is where the image is mounted. */
export interface InitRequest extends Inside {
  readonly rootfs: string;
}

/** Lines of /proc/PID/uid_map and gid_map: the first id inside, the first outside, how many. */
export type MapLine = readonly [inside: number, outside: number, count: number];
export interface NamespaceMaps {
  readonly uids: readonly MapLine[];
  readonly gids: readonly MapLine[];
}

/** Exit codes as docker and podman have them. */
export const RunCode = { failure: 125, notExecutable: 126, notFound: 127 } as const;

/** Why a command did not start, in one line. */
export class RunFailure extends Error {
  readonly exitCode: number;
  readonly hint: string | undefined;

  constructor(message: string, exitCode: number = RunCode.failure, hint?: string) {
    super(message);
    this.name = "RunFailure";
    this.exitCode = exitCode;
    this.hint = hint;
  }
}
