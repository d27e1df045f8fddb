// How a build shows what it does: a bar per layer on a terminal, a line per finished layer in a pipe, or nothing.
import type { WriteStream } from "node:tty";
import type { BuildEvent, BuiltLayer } from "../builder/image.js";
import { formatBytes, printError } from "./output.js";

export type ProgressKind = "auto" | "tty" | "plain" | "none";

export interface Progress {
  readonly update: (event: BuildEvent) => void;
  /** Takes what is drawn away, so that ordinary lines can follow. */
  readonly end: () => void;
}

/** Redraws a second. */
const RATE = 10;
const BAR = 24;

/** Progress to `stream`; `auto` draws bars where a person sees them (a terminal, not dumb, not CI). */
export function createProgress(kind: ProgressKind, stream: WriteStream): Progress {
  const drawable = stream.isTTY === true && process.env["TERM"] !== "dumb" && process.env["CI"] === undefined;
  const chosen = kind === "auto" ? (drawable ? "tty" : "plain") : kind;
  if (chosen === "tty") return bars(stream);
  if (chosen === "plain") return lines();
  return { update: warnings, end: () => {} };
}

function warnings(event: BuildEvent): void {
  if (event.type === "warning" || event.type === "retry") printError(`${lineOf(event)}\n`);
}

function lineOf({ type, message }: Extract<BuildEvent, { readonly message: string }>): string {
  return type === "warning" ? `imgfs: warning: ${message}` : `imgfs: ${message}`;
}

/** `sha256:` is left out: what tells layers apart are the first digits. */
function shortDigest(layer: BuiltLayer): string {
  return layer.diffId.slice("sha256:".length, "sha256:".length + 12);
}

function doneText(layer: BuiltLayer): string {
  const blob = `${shortDigest(layer)}  ${formatBytes(layer.summary.fileSize)}`;
  if (layer.reused) return `${blob}  already there`;
  const seconds = (layer.milliseconds / 1000).toFixed(1);
  return `${blob}  from ${formatBytes(layer.size)} in ${seconds} s`;
}

function lines(): Progress {
  let total = 0;
  return {
    update(event) {
      warnings(event);
      if (event.type === "start") total = event.layers.length;
      if (event.type === "layer-done") {
        printError(`layer ${event.layer + 1}/${total}  ${doneText(event.result)}\n`);
      }
    },
    end: () => {},
  };
}

interface Row {
  readonly done: number;
  readonly size: number;
}

/** One line a layer that is being converted, under the lines of those that are done. */
function bars(stream: WriteStream): Progress {
  const rows = new Map<number, Row>();
  const finished: string[] = [];
  let total = 0;
  let drawn = 0;
  let last = 0;

  const draw = (final: boolean): void => {
    const now = performance.now();
    if (!final && now - last < 1000 / RATE) return;
    last = now;
    const width = stream.columns > 0 ? stream.columns : 80;
    const active = [...rows].map(([layer, row]) => `layer ${layer + 1}/${total}  ${bar(row)}`);
    const up = drawn === 0 ? "" : `\x1b[${drawn}A`;
    const text = [...finished.splice(0), ...(final ? [] : active)];
    printError(`${up}\r\x1b[J${text.map((line) => `${line.slice(0, width - 1)}\n`).join("")}`);
    drawn = final ? 0 : active.length;
  };

  return {
    update(event) {
      if (event.type === "start") total = event.layers.length;
      else if (event.type === "layer-start") rows.set(event.layer, { done: 0, size: event.size });
      else if (event.type === "layer-progress") {
        rows.set(event.layer, { done: event.done, size: event.size });
      } else if (event.type === "warning" || event.type === "retry") {
        finished.push(lineOf(event));
      } else if (event.type === "layer-done") {
        rows.delete(event.layer);
        finished.push(`layer ${event.layer + 1}/${total}  ${doneText(event.result)}`);
      }
      draw(false);
    },
    end: () => draw(true),
  };
}

function bar({ done, size }: Row): string {
  if (size === 0) return formatBytes(done);
  const share = Math.min(1, done / size);
  const full = Math.round(share * BAR);
  const percent = String(Math.floor(share * 100)).padStart(3);
  return `[${"=".repeat(full)}${" ".repeat(BAR - full)}] ${percent}%  ${formatBytes(done)} of ${formatBytes(size)}`;
}
