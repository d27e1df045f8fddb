// The parts of undici that are used, loaded by themselves: the whole takes 40 ms longer, which is what a pull of few or
// known layers would mostly wait for. This is what undici's own index does with them; its version is pinned, and every
// test of a pull fails where the parts have moved.
import { createRequire } from "node:module";
import type * as undici from "undici";

export type { Dispatcher } from "undici";

const load = createRequire(import.meta.url);

export const Agent: typeof undici.Agent = load("undici/lib/dispatcher/agent.js");
export const { SocketError }: typeof undici.errors = load("undici/lib/core/errors.js");

/** ProxyAgent, and what it takes of the methods of dispatchers, for where there is a proxy. */
export function loadProxyAgent(): typeof undici.ProxyAgent {
  const { prototype } = load("undici/lib/dispatcher/dispatcher.js") as typeof undici.Dispatcher;
  Object.assign(prototype, load("undici/lib/api/index.js"));
  return load("undici/lib/dispatcher/proxy-agent.js");
}
