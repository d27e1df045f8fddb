// The control socket's protocol: one JSON object a line, each way. docs/control-socket.md is its description.
// Whatever a line holds, the answer is one object: a result or an error, never an exception.
import { type Ledger, LimitBelowImage, type QuotaReport } from "../quota/ledger.js";
import type { QuotaMode } from "../quota/settings.js";
import type { MountStatus } from "./status.js";

export const VERSION = 1;
/** Bytes of a request, its newline left out. */
export const LINE_LIMIT = 16_384;

/** The first line that a server sends. */
export interface Hello {
  readonly version: number;
  readonly hello: {
    readonly pid: number;
    readonly mountpoint: string;
    /** `major:minor` of the mount; null where this process has not mounted it itself. */
    readonly device: string | null;
  };
}

export type ErrorCode =
  | "malformed"
  | "too-long"
  | "unsupported-version"
  | "unknown-command"
  | "invalid-argument"
  | "no-quota"
  | "limit-below-image"
  | "internal";

export interface Reply<T = unknown> {
  readonly version: number;
  /** That of the request, where it had one. */
  readonly id?: string | number;
  readonly result?: T;
  readonly error?: { readonly code: ErrorCode; readonly message: string };
}

/** A quota as JSON has it: null where there is no limit. */
export interface QuotaFigures {
  readonly mode: QuotaMode;
  readonly bytes: number;
  readonly byteLimit: number | null;
  readonly bytesLeft: number | null;
  readonly imageBytes: number;
  readonly inodes: number;
  readonly inodeLimit: number | null;
  readonly inodesLeft: number | null;
}

/** What a request may ask about. */
export interface Controlled {
  readonly ledger: Ledger;
  status(): MountStatus;
  /** Called when limits have been set. */
  limited(figures: QuotaFigures): void;
}

class Refusal extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

export function quotaFigures(report: QuotaReport): QuotaFigures {
  const finite = (value: number): number | null => (Number.isFinite(value) ? value : null);
  return {
    mode: report.mode,
    bytes: report.bytes,
    byteLimit: finite(report.byteLimit),
    bytesLeft: finite(report.bytesLeft),
    imageBytes: report.imageBytes,
    inodes: report.inodes,
    inodeLimit: finite(report.inodeLimit),
    inodesLeft: finite(report.inodesLeft),
  };
}

/** The answer to a line that is too long, after which the connection ends. */
export function tooLong(): Reply {
  return {
    version: VERSION,
    error: { code: "too-long", message: `a request has at most ${LINE_LIMIT} bytes` },
  };
}

/** Answers one line. */
export function answer(line: Uint8Array, mount: Controlled): Reply {
  let id: string | number | undefined;
  try {
    const request = parse(line);
    const given = request["id"];
    if (typeof given === "string" || typeof given === "number") id = given;
    else if (given !== undefined) throw new Refusal("malformed", "id is neither a string nor a number");
    const result = run(request, mount);
    return { version: VERSION, ...(id === undefined ? {} : { id }), result };
  } catch (cause) {
    const error = {
      code: cause instanceof Refusal ? cause.code : "internal",
      message: cause instanceof Error ? cause.message : String(cause),
    } as const;
    return { version: VERSION, ...(id === undefined ? {} : { id }), error };
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

function parse(line: Uint8Array): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(line));
  } catch {
    throw new Refusal("malformed", "a request is one JSON object on one line");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Refusal("malformed", "a request is one JSON object on one line");
  }
  return value as Record<string, unknown>;
}

/** Keys of every request. */
const common = ["version", "id", "command"];

function run(request: Readonly<Record<string, unknown>>, mount: Controlled): unknown {
  const { version, command } = request;
  if (typeof version !== "number") throw new Refusal("malformed", "version is missing, or not a number");
  if (version !== VERSION) {
    throw new Refusal("unsupported-version", `version ${version} is not known here, only ${VERSION}`);
  }
  if (typeof command !== "string") throw new Refusal("malformed", "command is missing, or not a string");
  switch (command) {
    case "quota":
      refuseOthers(request, command, []);
      return quota(mount);
    case "set-quota":
      refuseOthers(request, command, ["bytes", "inodes"]);
      return setQuota(mount, request["bytes"], request["inodes"]);
    case "status":
      refuseOthers(request, command, []);
      return mount.status();
    default:
      throw new Refusal("unknown-command", `unknown command ${JSON.stringify(command.slice(0, 64))}`);
  }
}

function refuseOthers(
  request: Readonly<Record<string, unknown>>,
  command: string,
  known: readonly string[],
): void {
  const other = Object.keys(request).find((key) => !common.includes(key) && !known.includes(key));
  if (other !== undefined) {
    throw new Refusal("invalid-argument", `${command} takes no ${JSON.stringify(other.slice(0, 64))}`);
  }
}

function quota({ ledger }: Controlled): QuotaFigures {
  const report = ledger.report();
  if (report === undefined) throw new Refusal("no-quota", "the mount has no quota");
  return quotaFigures(report);
}

function setQuota(mount: Controlled, bytes: unknown, inodes: unknown): QuotaFigures {
  quota(mount);
  if (bytes === undefined && inodes === undefined) {
    throw new Refusal("invalid-argument", "set-quota needs bytes or inodes");
  }
  const limits = [limitOf("bytes", bytes), limitOf("inodes", inodes)] as const;
  try {
    mount.ledger.limit(...limits);
  } catch (cause) {
    throw cause instanceof LimitBelowImage ? new Refusal("limit-below-image", cause.message) : cause;
  }
  const figures = quota(mount);
  mount.limited(figures);
  return figures;
}

/** A limit from a request: undefined leaves it as it is, null takes it away. */
function limitOf(name: string, value: unknown): number | undefined {
  if (value === undefined) return undefined;
  if (value === null) return Number.POSITIVE_INFINITY;
  if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
  throw new Refusal("invalid-argument", `${name} is neither a whole number above 0 nor null`);
}
