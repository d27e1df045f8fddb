// A token server as docker's token specification has it, for a real registry that trusts its certificate.
import { createSign, randomUUID, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { ann, type Certificates, closeLater } from "./serve.js";

export interface TokenRequest {
  readonly method: string;
  readonly query: URLSearchParams;
  readonly authorization: string | undefined;
}

export interface TokenServer {
  readonly realm: string;
  readonly requests: TokenRequest[];
  /** Lines for a registry's configuration. */
  readonly auth: string;
  /** How many of the next tokens are out of date when they are given. */
  stale: number;
  /** Whether it wants ann's login, or her token. */
  wantsLogin: boolean;
}

export const identityToken = "identity-of-ann-0123456789";
const service = "registry.test";
const base64 = (value: object | Buffer): string =>
  (Buffer.isBuffer(value) ? value : Buffer.from(JSON.stringify(value))).toString("base64url");

export async function serveTokens(certificates: Certificates): Promise<TokenServer> {
  const key = readFileSync(certificates.key);
  const certificate = new X509Certificate(readFileSync(certificates.cert)).raw.toString("base64");
  const requests: TokenRequest[] = [];

  const sign = (scopes: readonly string[], stale: boolean): string => {
    const now = Math.floor(Date.now() / 1000) - (stale ? 1000 : 0);
    const access = scopes.map((scope) => {
      const [type, name, actions = ""] = scope.split(":");
      return { type, name, actions: actions.split(",") };
    });
    const claims = {
      iss: "tests",
      sub: "",
      aud: service,
      exp: now + 300,
      nbf: now - 10,
      iat: now,
      jti: randomUUID(),
      access,
    };
    const signed = `${base64({ typ: "JWT", alg: "RS256", x5c: [certificate] })}.${base64(claims)}`;
    return `${signed}.${base64(createSign("RSA-SHA256").update(signed).sign(key))}`;
  };

  const server = createServer(async (incoming, outgoing) => {
    let body = "";
    for await (const part of incoming) body += String(part);
    const url = new URL(incoming.url as string, "http://tokens");
    const method = incoming.method as string;
    const query = method === "POST" ? new URLSearchParams(body) : url.searchParams;
    const { authorization } = incoming.headers;
    requests.push({ method, query, authorization });
    const basic = `Basic ${Buffer.from(`${ann.username}:${ann.password}`).toString("base64")}`;
    const isAnn = authorization === basic || query.get("refresh_token") === identityToken;
    const refused = given.wantsLogin ? !isAnn : authorization !== undefined && !isAnn;
    if (refused || query.get("service") !== service) {
      outgoing.writeHead(401, { "content-type": "application/json" });
      return void outgoing.end(JSON.stringify({ details: `incorrect login ${authorization}` }));
    }
    const token = sign(query.getAll("scope"), given.stale > 0);
    given.stale = Math.max(0, given.stale - 1);
    outgoing.writeHead(200, { "content-type": "application/json" });
    outgoing.end(JSON.stringify(method === "POST" ? { access_token: token } : { token, expires_in: 300 }));
  });
  server.listen(0, "127.0.0.1");
  await new Promise((listening) => server.once("listening", listening));
  closeLater(() => {
    server.closeAllConnections();
    return new Promise((closed) => server.close(closed));
  });
  const realm = `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`;
  const auth = `auth: {token: {realm: "${realm}", service: ${service}, issuer: tests, rootcertbundle: ${certificates.caFolder}/ca.crt}}`;
  const given: TokenServer = { realm, requests, auth, stale: 0, wantsLogin: false };
  return given;
}
