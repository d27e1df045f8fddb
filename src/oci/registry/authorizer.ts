// Answers to a registry's challenges (distribution-spec; docker's token authentication): a login by basic
// authentication, or a token for one repository from a token server, kept until it is about to expire or refused.
// Invariants: a login goes to its registry and to the token server that this names, and to the latter only by TLS,
// unless the registry itself is declared insecure; requests at the same time share one token.
import * as v from "valibot";
import { parseChallenges } from "./challenge.js";
import { basicOf, type Login, secretsOf } from "./credentials.js";
import { RegistryError, serverWords, wordsOf } from "./errors.js";
import type { HttpRequest, HttpResponse } from "./transport.js";
import { readText } from "./transport.js";

const Token = v.object({
  token: v.nullish(v.string()),
  access_token: v.nullish(v.string()),
  expires_in: v.nullish(v.number()),
});

/** Seconds that a token lasts, unless it says more (docker's token specification). */
const minLifetime = 60;
/** Seconds before its end from which on a token is not used. */
const margin = 5;
const maxBody = 1 << 20;

interface Held {
  readonly value: string;
  /** performance.now() from which on it is not used; undefined: it lasts. */
  readonly until: number | undefined;
}

export interface AuthorizerOptions {
  readonly repository: string;
  /** Finds the login, at the first challenge: who is not asked asks no helper. */
  readonly findLogin: () => Promise<Login | undefined>;
  /** Whether the registry is reached without TLS, or without checks. */
  readonly isInsecure: boolean;
  /** Sends a request, with tries. */
  readonly send: (request: HttpRequest) => Promise<HttpResponse>;
}

export class Authorizer {
  private readonly options: AuthorizerOptions;
  private held: Held | undefined;
  private renewing: Promise<boolean> | undefined;
  private readonly secrets = new Set<string>();
  private finding: Promise<Login | undefined> | undefined;
  /** Whether there is a login; known after the first challenge. */
  hasLogin = false;

  constructor(options: AuthorizerOptions) {
    this.options = options;
  }

  private async login(): Promise<Login | undefined> {
    this.finding ??= this.options.findLogin();
    const login = await this.finding;
    this.hasLogin = login !== undefined;
    for (const secret of secretsOf(login)) this.secrets.add(secret);
    return login;
  }

  /** The value of Authorization that is known to be wanted, undefined for none. */
  get value(): string | undefined {
    if (this.held?.until !== undefined && performance.now() > this.held.until) this.held = undefined;
    return this.held?.value;
  }

  /** A text without anything that would give the login or a token away. */
  clean(text: string): string {
    let cleaned = text;
    for (const secret of this.secrets) cleaned = cleaned.replaceAll(secret, "[redacted]");
    return cleaned;
  }

  /**
   * After a 401: whether {@link value} is now another than `used`, so that the request is worth repeating. Throws a
   * RegistryError that names the token server when that refuses or fails.
   */
  async answer(
    header: string | readonly string[] | undefined,
    used: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    if (this.value !== undefined && this.value !== used) return true;
    this.renewing ??= this.renew(header, used, signal).finally(() => {
      this.renewing = undefined;
    });
    return this.renewing;
  }

  private async renew(
    header: string | readonly string[] | undefined,
    used: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    this.held = undefined;
    const login = await this.login();
    for (const { scheme, parameters } of parseChallenges(header)) {
      if (scheme === "bearer") {
        if (login?.kind === "bearer") this.hold(`Bearer ${login.token}`, undefined);
        else await this.fetchToken(parameters, login, signal);
        return this.value !== used;
      }
      if (scheme === "basic") {
        if (login?.kind !== "password") return false;
        this.hold(`Basic ${basicOf(login)}`, undefined);
        return this.value !== used;
      }
    }
    return false;
  }

  private hold(value: string, seconds: number | undefined): void {
    this.secrets.add(value.slice(value.indexOf(" ") + 1));
    const until = seconds === undefined ? undefined : performance.now() + 1000 * (seconds - margin);
    this.held = { value, until };
  }

  private async fetchToken(
    parameters: Readonly<Record<string, string>>,
    login: Login | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { repository } = this.options;
    const realm = this.realmOf(parameters["realm"]);
    const query = new URLSearchParams();
    const service = parameters["service"];
    if (service) query.set("service", service);
    // Several scopes may stand in one word, with spaces between them.
    for (const scope of (parameters["scope"] || `repository:${repository}:pull`).split(" ")) {
      query.append("scope", scope);
    }
    const request = this.requestOf(realm, query, login);
    const response = await this.options.send({ ...request, signal });
    const text = await readText(response, maxBody);
    const { status } = response;
    const fail = (kind: RegistryError["kind"], why: string): RegistryError =>
      new RegistryError(kind, `token server ${realm.host}: ${this.clean(why)}`);
    if (status !== 200) {
      const words = serverWords(text ?? "");
      const why = `status ${status}${words === undefined ? "" : `: ${words}`}`;
      if (status !== 401 && status !== 403) throw fail("unreachable", why);
      throw this.hasLogin ? fail("refused", `the login is not accepted: ${why}`) : fail("unauthorized", why);
    }
    let value: unknown;
    try {
      value = JSON.parse(text ?? "");
    } catch {
      throw fail("damaged", "its answer is not JSON");
    }
    const parsed = v.safeParse(Token, value);
    const token = parsed.success ? parsed.output.token || parsed.output.access_token : undefined;
    if (!parsed.success || !token || !/^[\x21-\x7e]+$/.test(token))
      throw fail("damaged", "its answer has no token");
    this.hold(`Bearer ${token}`, Math.max(minLifetime, parsed.output.expires_in ?? 0));
  }

  private realmOf(text: string | undefined): URL {
    let realm: URL;
    try {
      realm = new URL(text ?? "");
    } catch {
      throw new RegistryError("damaged", "its challenge names no token server");
    }
    if (realm.protocol === "https:" || (realm.protocol === "http:" && this.options.isInsecure)) return realm;
    throw new RegistryError("insecure", `its token server ${wordsOf(realm.origin)} is not reached by TLS`);
  }

  private requestOf(realm: URL, query: URLSearchParams, login: Login | undefined): HttpRequest {
    if (login?.kind === "identity") {
      query.set("grant_type", "refresh_token");
      query.set("refresh_token", login.token);
      query.set("client_id", "imgfs");
      return { url: realm, headers: {}, form: query.toString() };
    }
    const url = new URL(realm);
    for (const [key, value] of query) url.searchParams.append(key, value);
    if (login?.kind !== "password") return { url, headers: {} };
    url.searchParams.append("account", login.username);
    return { url, headers: {}, authorization: `Basic ${basicOf(login)}` };
  }
}
