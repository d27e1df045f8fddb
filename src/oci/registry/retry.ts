// Whether a failure is worth another try, and when. Backoff doubles, with jitter, so that many clients of a registry that
// was away do not come back at once; what Retry-After says counts more.
import { setTimeout as sleep } from "node:timers/promises";
import type { Limits } from "./options.js";

/** Errors of connections that another try may not have: node's, undici's and the resolver's names. */
const passing: ReadonlySet<string> = new Set([
  "ECONNRESET",
  "ECONNREFUSED",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENETDOWN",
  "EAI_AGAIN",
  "UND_ERR_CONNECT_TIMEOUT",
  "UND_ERR_HEADERS_TIMEOUT",
  "UND_ERR_BODY_TIMEOUT",
  "UND_ERR_SOCKET",
  "TLS_CLOSED_UNREAD",
  "UND_ERR_RES_CONTENT_LENGTH_MISMATCH",
]);

/** The code of an error, its causes and its parts, where it has one. */
export function codeOf(cause: unknown): string | undefined {
  if (!(cause instanceof Error)) return undefined;
  const { code } = cause as NodeJS.ErrnoException;
  if (typeof code === "string" && code !== "UND_ERR") return code;
  const inner = cause instanceof AggregateError ? (cause.errors[0] as unknown) : cause.cause;
  return inner === undefined ? undefined : codeOf(inner);
}

export function isPassing(cause: unknown): boolean {
  const code = codeOf(cause);
  return code !== undefined && passing.has(code);
}

/** Statuses of which another try may be spared: the server has trouble, or asks to wait. */
export function isPassingStatus(status: number): boolean {
  return status === 408 || status === 429 || (status >= 500 && status !== 501 && status !== 505);
}

/** Milliseconds that Retry-After asks for, seconds or a date; undefined where it says nothing that can be read. */
export function retryAfter(header: string | readonly string[] | undefined, now: number): number | undefined {
  const text = typeof header === "string" ? header : header?.[0];
  if (text === undefined) return undefined;
  if (/^\s*[0-9]{1,9}\s*$/.test(text)) return 1000 * Number(text);
  const date = Date.parse(text);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** Milliseconds before try number `next`, which is 1 for the second one. */
export function backoff(limits: Limits, next: number, random: () => number = Math.random): number {
  const full = limits.delay * 2 ** (next - 1);
  return Math.min(limits.maxDelay, full * (0.5 + random()));
}

/** Waits; rejects with the signal's reason when it is given meanwhile. */
export async function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  signal?.throwIfAborted();
  try {
    await sleep(milliseconds, undefined, { signal });
  } catch (cause) {
    signal?.throwIfAborted();
    throw cause;
  }
}
