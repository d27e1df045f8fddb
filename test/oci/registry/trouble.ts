// A proxy in front of a real registry that does to answers what networks, caches and servers under load do.
import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import { closeLater } from "./serve.js";

export interface Asked {
  /** Path with query. */
  readonly path: string;
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
  /** How often this path was asked for before. */
  readonly before: number;
}

export type Trouble =
  /** The connection ends after so many bytes of the body. */
  | { readonly cutAfter: number }
  /** Nothing comes any more after so many bytes. */
  | { readonly silentAfter: number }
  /** The body comes in pieces of so many bytes, each after `pause` ms. */
  | { readonly piece: number; readonly pause: number }
  /** Without a Content-Length; a cut is then an early end. */
  | { readonly chunked: true; readonly cutAfter?: number }
  /** Range is not understood: the whole comes, each time. */
  | { readonly whole: true; readonly cutAfter?: number }
  /** Another answer. */
  | { readonly status: number; readonly headers?: Record<string, string>; readonly body?: string | Buffer }
  /** The same answer with other bytes. */
  | { readonly change: (bytes: Buffer) => Buffer; readonly headers?: Record<string, string> }
  /** The connection ends without an answer. */
  | { readonly hangUp: true };

export interface Troubled {
  readonly host: string;
  readonly asked: Asked[];
}

/** Serves `behind` (host:port); `trouble` says what happens to an answer, undefined for nothing. */
export async function troubled(
  behind: string,
  trouble: (asked: Asked) => Trouble | undefined,
): Promise<Troubled> {
  const asked: Asked[] = [];
  const server = createServer((incoming, outgoing) => {
    const path = incoming.url as string;
    const { method = "GET", headers } = incoming;
    const before = asked.filter((one) => one.path === path).length;
    const one: Asked = { path, method, headers, before };
    asked.push(one);
    answer(behind, one, trouble(one), outgoing).catch(() => outgoing.destroy());
  });
  server.listen(0, "127.0.0.1");
  await new Promise((listening) => server.once("listening", listening));
  closeLater(() => {
    server.closeAllConnections();
    return new Promise((closed) => server.close(closed));
  });
  return { host: `127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

async function answer(
  behind: string,
  { path, method, headers }: Asked,
  trouble: Trouble | undefined,
  outgoing: ServerResponse,
): Promise<void> {
  if (trouble !== undefined && "hangUp" in trouble) return void outgoing.destroy();
  if (trouble !== undefined && "status" in trouble) {
    outgoing.writeHead(trouble.status, trouble.headers);
    return void outgoing.end(trouble.body ?? "");
  }
  const { host: _, connection: __, ...kept } = headers;
  if (trouble !== undefined && "whole" in trouble) delete kept.range;
  const given = await request(`http://${behind}${path}`, { method: method as "GET", headers: kept });
  let bytes: Buffer = Buffer.from(await given.body.arrayBuffer());
  const told = { ...given.headers };
  if (trouble !== undefined && "change" in trouble) {
    bytes = trouble.change(bytes);
    told["content-length"] = String(bytes.length);
    Object.assign(told, trouble.headers);
  }
  if (trouble !== undefined && "chunked" in trouble) delete told["content-length"];
  outgoing.writeHead(given.statusCode, told);
  outgoing.on("error", () => {});
  if (trouble === undefined || "change" in trouble) return void outgoing.end(bytes);
  if ("pause" in trouble) {
    for (let at = 0; at < bytes.length; at += trouble.piece) {
      outgoing.write(bytes.subarray(at, at + trouble.piece));
      await sleep(trouble.pause);
    }
    return void outgoing.end();
  }
  if ("silentAfter" in trouble) return void outgoing.write(bytes.subarray(0, trouble.silentAfter));
  const cut = trouble.cutAfter;
  if (cut === undefined || cut >= bytes.length) return void outgoing.end(bytes);
  if ("chunked" in trouble) return void outgoing.end(bytes.subarray(0, cut));
  // The headers first, then the bytes, then the end of the connection.
  outgoing.write(bytes.subarray(0, cut), () => setImmediate(() => outgoing.destroy()));
}
