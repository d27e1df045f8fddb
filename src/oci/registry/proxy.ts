// Proxies from the environment, as Go's programs read it (golang.org/x/net/http/httpproxy), which all container tools
// do: HTTP_PROXY, HTTPS_PROXY, NO_PROXY, also in lower case. This machine itself is never asked for through a proxy.
import { BlockList, isIP } from "node:net";
import { RegistryError } from "./errors.js";

/** The proxy for a URL; undefined where there is none. Throws a RegistryError for one that is no URL. */
export function proxyFor(url: URL, environment: NodeJS.ProcessEnv): URL | undefined {
  const name = url.protocol === "https:" ? "HTTPS_PROXY" : "HTTP_PROXY";
  const written = variable(name, environment);
  if (written === "") return undefined;
  const host = url.hostname.replace(/^\[|\]$/g, "").toLowerCase();
  const port = url.port || (url.protocol === "https:" ? "443" : "80");
  if (isLoopback(host) || isExempt(host, port, variable("NO_PROXY", environment))) return undefined;
  try {
    const proxy = new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(written) ? written : `http://${written}`);
    if (["http:", "https:", "socks5:"].includes(proxy.protocol)) return proxy;
  } catch {
    // Told below; the value is not quoted, for it may hold a password.
  }
  throw new RegistryError("configuration", `${name}: not the URL of a proxy`);
}

function variable(name: string, environment: NodeJS.ProcessEnv): string {
  return environment[name] || environment[name.toLowerCase()] || "";
}

function isLoopback(host: string): boolean {
  return host === "localhost" || /^127\./.test(host) || host === "::1";
}

/** NO_PROXY: `*`, addresses, networks, names with all below them, `.name` for those below it only; each with a port. */
function isExempt(host: string, port: string, list: string): boolean {
  return list.split(/[\s,]+/).some((entry) => {
    if (entry === "") return false;
    if (entry === "*") return true;
    const network = /^(.*)\/([0-9]{1,3})$/.exec(entry);
    if (network !== null) return isInside(host, network[1] as string, Number(network[2]));
    const match = /^\[?(.+?)\]?(?::([0-9]+))?$/.exec(entry.toLowerCase());
    const bare = isIP(entry.replace(/^\[|\]$/g, "")) === 6;
    const name = bare ? entry.replace(/^\[|\]$/g, "").toLowerCase() : (match?.[1] ?? entry);
    const only = bare ? undefined : match?.[2];
    if (only !== undefined && only !== port) return false;
    if (isIP(name) !== 0) return name === host;
    const below = name.replace(/^\*?\./, "");
    return host.endsWith(`.${below}`) || (host === below && !/^\*?\./.test(name));
  });
}

function isInside(host: string, network: string, bits: number): boolean {
  const kind = isIP(network);
  if (kind === 0 || isIP(host) !== kind || bits > (kind === 4 ? 32 : 128)) return false;
  const list = new BlockList();
  const family = kind === 4 ? "ipv4" : "ipv6";
  list.addSubnet(network, bits, family);
  return list.check(host, family);
}
