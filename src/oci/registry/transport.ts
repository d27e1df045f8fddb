// One HTTP exchange: connections by host, TLS, proxies, redirects, time limits. It knows nothing of registries.
// Invariants: an Authorization goes to the origin that it was given for and nowhere else; no redirect leads from TLS to
// plain HTTP unless certificates do not matter either.
import { type Answer, exchange, ReadBuffers } from "./body.js";
import { RegistryError } from "./errors.js";
import type { Limits, RegistryOptions } from "./options.js";
import { proxyFor } from "./proxy.js";
import { codeOf } from "./retry.js";
import { hostTls } from "./tls.js";
import { Agent, type Dispatcher, loadProxyAgent, SocketError } from "./undici.js";

export type Headers = Readonly<Record<string, string>>;

export interface HttpRequest {
  readonly url: URL;
  readonly headers: Headers;
  /** Only for the origin of `url`. */
  readonly authorization?: string | undefined;
  /** Makes it a POST. */
  readonly form?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface HttpResponse extends Answer {
  /** Where the answer came from, after redirects. */
  readonly url: URL;
}

export interface TransportOptions extends RegistryOptions {
  /** Certificates are not checked, and plain HTTP may be redirected to. */
  readonly isInsecure: boolean;
  /** `host[:port]` in URLs of the registry, and what people and certs.d call it. */
  readonly host: string;
  readonly registry: string;
  readonly times: Limits;
  readonly userAgent: string;
}

const maxRedirects = 10;
const redirects: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

export class Transport {
  private readonly options: TransportOptions;
  private readonly dispatchers = new Map<string, Dispatcher>();
  private readonly buffers = new ReadBuffers();

  constructor(options: TransportOptions) {
    this.options = options;
  }

  /**
   * Sends a request and gives the response, whatever its status. Throws what Node and undici throw for connections, a
   * RegistryError for certificates that cannot be trusted and for redirects that are not followed.
   */
  async send(query: HttpRequest): Promise<HttpResponse> {
    let { url, authorization } = query;
    for (let hops = 0; ; hops++) {
      const response = await this.once(url, { ...query, authorization });
      const { location } = response.headers;
      if (!redirects.has(response.status) || typeof location !== "string" || query.form !== undefined) {
        return response;
      }
      discard(response);
      if (hops === maxRedirects) throw new RegistryError("damaged", `more than ${maxRedirects} redirects`);
      const next = redirected(url, location);
      if (url.protocol === "https:" && next.protocol === "http:" && !this.options.isInsecure) {
        throw new RegistryError("insecure", `it redirects from TLS to plain HTTP at ${next.host}`);
      }
      if (next.origin !== url.origin) authorization = undefined;
      url = next;
    }
  }

  private async once(url: URL, { headers, authorization, form, signal }: HttpRequest): Promise<HttpResponse> {
    try {
      const request: Dispatcher.DispatchOptions = {
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method: form === undefined ? "GET" : "POST",
        headers: {
          ...headers,
          "user-agent": this.options.userAgent,
          "accept-encoding": "identity",
          ...(authorization === undefined ? {} : { authorization }),
          ...(form === undefined ? {} : { "content-type": "application/x-www-form-urlencoded" }),
        },
        body: form ?? null,
      };
      return { ...(await exchange(this.dispatcher(url), request, this.buffers, signal)), url };
    } catch (cause) {
      signal?.throwIfAborted();
      if (url.protocol === "https:" && isClosedUnread(cause)) throw new ClosedUnread();
      throw tlsFailure(url, cause) ?? cause;
    }
  }

  private dispatcher(url: URL): Dispatcher {
    const known = this.dispatchers.get(url.origin);
    if (known !== undefined) return known;
    const { isInsecure, times, environment = process.env, host, registry } = this.options;
    const isOwn = url.host === host;
    const requestTls =
      url.protocol === "https:"
        ? {
            secureContext: hostTls(isOwn ? registry : url.host, isOwn, !isInsecure, this.options)
              .secureContext,
            rejectUnauthorized: !isInsecure,
          }
        : {};
    const common = {
      headersTimeout: times.silence,
      bodyTimeout: times.silence,
      allowH2: false,
      pipelining: 1,
    };
    const proxy = proxyFor(url, environment);
    const made =
      proxy === undefined
        ? new Agent({
            ...common,
            connect: { ...requestTls, timeout: times.connect, onread: this.buffers.onread },
          })
        : new (loadProxyAgent())({
            ...common,
            uri: proxy.href,
            requestTls: { ...requestTls, timeout: times.connect },
            proxyTls: {
              timeout: times.connect,
              ...(proxy.protocol === "https:"
                ? { secureContext: hostTls(proxy.host, false, true, this.options).secureContext }
                : {}),
            },
            // A tunnel only where there is something to hide: many proxies let none through to port 80.
            proxyTunnel: false,
          });
    this.dispatchers.set(url.origin, made);
    return made;
  }

  /** Ends every connection. */
  async close(): Promise<void> {
    const all = [...this.dispatchers.values()];
    this.dispatchers.clear();
    await Promise.all(all.map((dispatcher) => dispatcher.destroy()));
  }
}

/**
 * A TLS connection that the server has closed before it said anything: what is left of its wish for a certificate, which
 * comes after the handshake (RFC 8446, 4.4.2.4), or of a crash.
 */
class ClosedUnread extends Error {
  readonly code = closedUnread;
}

export const closedUnread = "TLS_CLOSED_UNREAD";

function isClosedUnread(cause: unknown): boolean {
  return cause instanceof SocketError && cause.socket?.bytesRead === 0;
}

/** Where a redirect leads; a login in it is dropped, for nobody here has asked for it. */
function redirected(from: URL, location: string): URL {
  let next: URL;
  try {
    next = new URL(location, from);
  } catch {
    throw new RegistryError("damaged", "it redirects to what is no URL");
  }
  if (next.protocol !== "https:" && next.protocol !== "http:") {
    throw new RegistryError(
      "damaged",
      `it redirects to ${JSON.stringify(next.protocol)}, which is not followed`,
    );
  }
  next.username = "";
  next.password = "";
  next.hash = "";
  return next;
}

/** Reads on in the background and forgets it, so that the connection may be used again. */
export function discard({ body }: HttpResponse): void {
  body.dump(64 << 10).catch(() => {});
}

/** The text of a response, of which `limit` bytes count; undefined for more. */
export async function readText(response: HttpResponse, limit: number): Promise<string | undefined> {
  const bytes = await readBytes(response, limit);
  return bytes && Buffer.from(bytes).toString("utf8");
}

/** The bytes of a response; undefined for more than `limit`. */
export async function readBytes({ body }: HttpResponse, limit: number): Promise<Uint8Array | undefined> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of body) {
    size += part.length;
    if (size > limit) return undefined;
    parts.push(Buffer.from(part));
  }
  return Buffer.concat(parts);
}

const untrusted: Readonly<Record<string, string>> = {
  SELF_SIGNED_CERT_IN_CHAIN: "signed by an authority that is not trusted here",
  DEPTH_ZERO_SELF_SIGNED_CERT: "signed by nobody but itself",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "signed by an authority that is not trusted here",
  UNABLE_TO_GET_ISSUER_CERT: "signed by an authority that is not trusted here",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "signed by an authority that is not trusted here",
  CERT_HAS_EXPIRED: "expired",
  CERT_NOT_YET_VALID: "not valid yet",
  CERT_REVOKED: "revoked",
  CERT_UNTRUSTED: "not trusted here",
  CERT_SIGNATURE_FAILURE: "signed wrongly",
  ERR_TLS_CERT_ALTNAME_INVALID: "for another host",
};

function tlsFailure(url: URL, cause: unknown): RegistryError | undefined {
  const code = codeOf(cause);
  if (code === undefined) return undefined;
  const why = untrusted[code];
  if (why !== undefined) {
    return new RegistryError("insecure", `the certificate of ${url.host} is ${why}`);
  }
  if (/^(ERR_SSL_WRONG_VERSION_NUMBER|ERR_SSL_PACKET_LENGTH_TOO_LONG|ERR_SSL_HTTP_REQUEST)$/.test(code)) {
    return new RegistryError("insecure", `${url.host} does not speak TLS`);
  }
  if (/^(ERR_SSL|EPROTO)/.test(code)) {
    const words = code
      .replace(/^ERR_SSL_/, "")
      .toLowerCase()
      .replaceAll("_", " ");
    return new RegistryError("insecure", `no TLS connection to ${url.host}: ${words}`);
  }
  return undefined;
}
