// One repository at one server: requests of the distribution API, with login and tries. Errors are RegistryErrors that
// say what the server did; whoever asked puts the object in front.
import { Authorizer } from "./authorizer.js";
import type { Login } from "./credentials.js";
import { RegistryError, serverWords, wordsOf } from "./errors.js";
import { apiHost } from "./name.js";
import { defaultLimits, type Limits, type RegistryOptions } from "./options.js";
import { backoff, codeOf, isPassing, isPassingStatus, pause, retryAfter } from "./retry.js";
import {
  closedUnread,
  discard,
  type Headers,
  type HttpRequest,
  type HttpResponse,
  readText,
  Transport,
} from "./transport.js";

export interface EndpointOptions extends RegistryOptions {
  readonly registry: string;
  readonly repository: string;
  readonly isInsecure: boolean;
  readonly findLogin: () => Promise<Login | undefined>;
  readonly userAgent: string;
}

/** How a request is made. */
export interface Way {
  readonly signal?: AbortSignal | undefined;
  /** In place of the limits'. */
  readonly tries?: number;
}

const maxErrorBody = 64 << 10;
/** Answers to challenges in one request: the first one, and the renewal of a token that has ended. */
const maxChallenges = 2;

export class Endpoint {
  /** `host[:port]/repository`, for messages. */
  readonly place: string;
  readonly limits: Limits;
  private readonly options: EndpointOptions;
  private readonly transport: Transport;
  private readonly authorizer: Authorizer;
  private base: Promise<URL> | undefined;

  constructor(options: EndpointOptions) {
    const { registry, repository, isInsecure, userAgent, findLogin, limits } = options;
    this.options = options;
    this.place = `${registry}/${repository}`;
    this.limits = { ...defaultLimits, ...limits };
    const host = new URL(`https://${apiHost(registry)}`).host;
    this.transport = new Transport({
      ...options,
      isInsecure,
      times: this.limits,
      userAgent,
      host,
      registry,
    });
    this.authorizer = new Authorizer({
      repository,
      findLogin,
      isInsecure,
      send: ({ signal, ...request }) => this.sendWithTries(request, { signal }),
    });
  }

  /** The manifest that a tag or digest names. The body is the caller's to read or discard. */
  manifest(reference: string, accept: string, way: Way = {}): Promise<HttpResponse> {
    return this.get(`manifests/${reference}`, { accept }, way);
  }

  /** A blob from its byte `from` on. The response may be the whole of it all the same (status 200). */
  blob(digest: string, from: number, way: Way = {}): Promise<HttpResponse> {
    return this.get(`blobs/${digest}`, from === 0 ? {} : { range: `bytes=${from}-` }, way);
  }

  /** Any URL, without a login: where a foreign layer lies. */
  async foreign(url: URL, from: number, way: Way = {}): Promise<HttpResponse> {
    const headers: Headers = from === 0 ? {} : { range: `bytes=${from}-` };
    const response = await this.sendWithTries({ url, headers }, way);
    return isGood(response.status) ? response : this.refuse(response);
  }

  /** A failure of a connection, in words, as a RegistryError; anything else as it is. */
  explain(cause: unknown): unknown {
    if (cause instanceof RegistryError || !(cause instanceof Error)) return cause;
    const code = codeOf(cause);
    if (code === undefined) return cause;
    return new RegistryError("unreachable", connectionWords(code, this.limits));
  }

  async close(): Promise<void> {
    await this.transport.close();
  }

  private async get(path: string, headers: Headers, way: Way): Promise<HttpResponse> {
    this.base ??= this.findBase(way);
    const base = await this.base.catch((cause: unknown) => {
      this.base = undefined;
      throw cause;
    });
    const url = new URL(`${this.options.repository}/${path}`, base);
    for (let challenges = 0; ; challenges++) {
      const authorization = this.authorizer.value;
      const response = await this.sendWithTries({ url, headers, authorization }, way);
      if (isGood(response.status)) return response;
      // A 401 of another host, after a redirect, is no challenge for this login.
      if (response.status !== 401 || challenges === maxChallenges || response.url.origin !== url.origin) {
        return this.refuse(response);
      }
      const header = response.headers["www-authenticate"] ?? (await this.challengeOf(base, way));
      if (!(await this.authorizer.answer(header, authorization, way.signal))) return this.refuse(response);
      discard(response);
    }
  }

  /** Some registries give their challenge only here. */
  private async challengeOf(base: URL, way: Way): Promise<string | string[] | undefined> {
    const response = await this.sendWithTries({ url: base, headers: {} }, way);
    discard(response);
    return response.headers["www-authenticate"];
  }

  /** TLS; where the registry is declared insecure plain HTTP, if it does not speak TLS. */
  private async findBase(way: Way): Promise<URL> {
    const host = apiHost(this.options.registry);
    const secure = new URL(`https://${host}/v2/`);
    if (!this.options.isInsecure) return secure;
    return this.withTries(async () => {
      let failure: unknown;
      for (const base of [secure, new URL(`http://${host}/v2/`)]) {
        try {
          discard(await this.transport.send({ url: base, headers: {}, signal: way.signal }));
          return base;
        } catch (cause) {
          way.signal?.throwIfAborted();
          if (cause instanceof RegistryError && cause.kind !== "insecure") throw cause;
          failure = cause;
        }
      }
      throw failure;
    }, way);
  }

  /** Sends until there is an answer that another try would not change. */
  private sendWithTries(request: HttpRequest, way: Way): Promise<HttpResponse> {
    return this.withTries(async (isLast) => {
      const last = await this.transport.send({ ...request, signal: way.signal });
      if (!isPassingStatus(last.status) || isLast) return last;
      const wait = retryAfter(last.headers["retry-after"], Date.now());
      if (wait !== undefined && wait > this.limits.maxDelay) return last;
      discard(last);
      throw new TryAgain(`status ${last.status}`, wait);
    }, way);
  }

  private async withTries<T>(
    attempt: (isLast: boolean) => Promise<T>,
    { signal, tries: most = this.limits.tries }: Way,
  ): Promise<T> {
    for (let tries = 1; ; tries++) {
      signal?.throwIfAborted();
      const isLast = tries >= most;
      try {
        return await attempt(isLast);
      } catch (cause) {
        signal?.throwIfAborted();
        const again = cause instanceof TryAgain;
        if (isLast || !(again || isPassing(cause))) throw this.explain(cause);
        await this.waitFor(tries, this.explain(cause) as Error, again ? cause.wait : undefined, signal);
      }
    }
  }

  /** Says that there will be another try, and waits for it. `tries` are those that have failed so far. */
  async waitFor(
    tries: number,
    cause: Error,
    wait: number | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const delay = Math.max(wait ?? 0, backoff(this.limits, tries));
    const seconds = (delay / 1000).toFixed(1);
    this.options.onRetry?.(
      `${this.place}: ${this.authorizer.clean(cause.message)}; trying again in ${seconds} s`,
    );
    await pause(delay, signal);
  }

  /** Throws what a response that is no success means. */
  private async refuse(response: HttpResponse): Promise<never> {
    const { status, headers, url } = response;
    const text = await readText(response, maxErrorBody).catch(() => undefined);
    const said = serverWords(text ?? "");
    const words = said === undefined ? "" : ` (${this.authorizer.clean(said)})`;
    const from = url.host === apiHost(this.options.registry) ? "" : ` by ${wordsOf(url.host)}`;
    const fail = (kind: RegistryError["kind"], why: string): RegistryError =>
      new RegistryError(kind, `${why}${from}${words}`);
    if (status === 404) throw fail("absent", "not found");
    if (status === 401) {
      if (this.authorizer.hasLogin) throw fail("refused", "the login is not accepted");
      throw fail("unauthorized", "it does not exist, or needs a login");
    }
    if (status === 403) throw fail("denied", "access is denied");
    if (status === 429) {
      const wait = retryAfter(headers["retry-after"], Date.now());
      const until = wait === undefined ? "" : `, to wait ${Math.ceil(wait / 1000)} s`;
      throw fail("limited", `too many requests, it says${until}`);
    }
    if (status >= 500 || status === 408) throw fail("unreachable", `status ${status}`);
    throw fail("damaged", `status ${status}`);
  }
}

/** Another try is worth it, after `wait` ms where the server has said so. */
class TryAgain extends Error {
  readonly wait: number | undefined;

  constructor(message: string, wait: number | undefined) {
    super(message);
    this.wait = wait;
  }
}

function isGood(status: number): boolean {
  return status === 200 || status === 206;
}

const words: Readonly<Record<string, string>> = {
  ENOTFOUND: "no such host",
  EAI_AGAIN: "the name of the host cannot be resolved now",
  ECONNREFUSED: "connection refused",
  ECONNRESET: "connection reset",
  EPIPE: "connection reset",
  EHOSTUNREACH: "no route to the host",
  ENETUNREACH: "the network cannot be reached",
  [closedUnread]: "the connection was closed without an answer; the server may want a certificate of ours",
  UND_ERR_SOCKET: "the connection was closed",
  UND_ERR_ABORTED: "the proxy refuses the connection",
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: "the answer was cut",
};

function connectionWords(code: string, { connect, silence }: Limits): string {
  if (code === "UND_ERR_CONNECT_TIMEOUT" || code === "ETIMEDOUT")
    return `no connection within ${connect / 1000} s`;
  if (code === "UND_ERR_HEADERS_TIMEOUT") return `no answer within ${silence / 1000} s`;
  if (code === "UND_ERR_BODY_TIMEOUT") return `nothing came for ${silence / 1000} s`;
  return words[code] ?? code;
}
