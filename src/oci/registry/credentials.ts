// Logins of registries, where docker and podman keep them: containers-auth.json(5) and docker's config.json. The first
// file that has one for the repository or its registry decides; inside a file a helper comes before what stands there.
// Never: a login in a message, or in anything that is kept.
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { errnoText } from "../../base/errno.js";
import { RegistryError } from "./errors.js";
import { askHelper } from "./helper.js";
import { hub, type ImageName } from "./name.js";
import type { RegistryOptions } from "./options.js";

/** A user and a password, or the token that stands for them at a token server. */
export type Login =
  | { readonly kind: "password"; readonly username: string; readonly password: string }
  | { readonly kind: "identity"; readonly username: string; readonly token: string }
  /** A bearer token for the registry itself. */
  | { readonly kind: "bearer"; readonly token: string };

const Entry = v.object({
  auth: v.nullish(v.string()),
  username: v.nullish(v.string()),
  password: v.nullish(v.string()),
  identitytoken: v.nullish(v.string()),
  registrytoken: v.nullish(v.string()),
});
type Entry = v.InferOutput<typeof Entry>;

const AuthFile = v.object({
  auths: v.nullish(v.record(v.string(), Entry)),
  credHelpers: v.nullish(v.record(v.string(), v.string())),
  credsStore: v.nullish(v.string()),
});
type AuthFile = v.InferOutput<typeof AuthFile>;

/** What docker calls its hub in files and to helpers. */
const hubServer = "https://index.docker.io/v1/";

/** A file with logins. */
interface Place {
  readonly path: string;
  /** Named by the user, so it has to be there. */
  readonly isRequired?: boolean;
  /** ~/.dockercfg: the logins alone. */
  readonly isLegacy?: boolean;
}

/** The files that may have logins, in order. */
export function authFiles({ authFile, environment = process.env }: RegistryOptions): Place[] {
  const named = authFile ?? environment["REGISTRY_AUTH_FILE"];
  if (named) return [{ path: named, isRequired: true }];
  const home = environment["HOME"] || homedir();
  const runtime = environment["XDG_RUNTIME_DIR"];
  return [
    {
      path: runtime
        ? join(runtime, "containers/auth.json")
        : `/run/containers/${process.getuid?.()}/auth.json`,
    },
    { path: join(environment["XDG_CONFIG_HOME"] || join(home, ".config"), "containers/auth.json") },
    { path: join(environment["DOCKER_CONFIG"] || join(home, ".docker"), "config.json") },
    { path: join(home, ".dockercfg"), isLegacy: true },
  ];
}

/**
 * The login for a repository, undefined where there is none. Throws a RegistryError that names the file or helper when
 * one of those that would decide cannot be read.
 */
export async function findLogin(
  name: Pick<ImageName, "registry" | "repository">,
  options: RegistryOptions,
): Promise<Login | undefined> {
  const environment = options.environment ?? process.env;
  for (const place of authFiles(options)) {
    const file = await readAuthFile(place);
    const login = file && (await loginIn(file, place, name, environment));
    if (login !== undefined) return login;
  }
  return undefined;
}

async function readAuthFile({ path, isRequired, isLegacy }: Place): Promise<AuthFile | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? "EIO";
    // One that somebody else owns, /run/containers/0 say, has no login of ours.
    if (!isRequired && ["ENOENT", "ENOTDIR", "EACCES"].includes(code)) return undefined;
    throw new RegistryError("configuration", `${path}: ${errnoText(code)}`);
  }
  if (text.trim() === "") return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new RegistryError("configuration", `${path}: not valid JSON`);
  }
  const parsed = v.safeParse(AuthFile, isLegacy ? { auths: value } : value);
  if (parsed.success) return parsed.output;
  const where = v.getDotPath(parsed.issues[0]);
  // What stands there is not quoted: it may be a secret.
  throw new RegistryError("configuration", `${path}: ${where ?? "the file"}: not what it should be`);
}

async function loginIn(
  { auths, credHelpers, credsStore }: AuthFile,
  place: Place,
  name: Pick<ImageName, "registry" | "repository">,
  environment: NodeJS.ProcessEnv,
): Promise<Login | undefined> {
  const { registry } = name;
  const hosts = registry === hub ? [hub, "index.docker.io", hubServer, "registry-1.docker.io"] : [registry];
  for (const host of hosts) {
    const helper = credHelpers?.[host];
    if (helper) return ofHelper(await askHelper(helper, host, environment));
  }
  if (credsStore) {
    const login = ofHelper(await askHelper(credsStore, registry === hub ? hubServer : registry, environment));
    if (login !== undefined) return login;
  }
  if (!auths) return undefined;
  for (const key of keysOf(name)) {
    for (const [written, entry] of Object.entries(auths)) {
      if (written !== key && hostOf(written) !== key) continue;
      const login = ofEntry(entry, place.path, written);
      if (login !== undefined) return login;
    }
  }
  return undefined;
}

/** `host/namespace/repository`, `host/namespace`, `host`: the most specific first. */
function keysOf({ registry, repository }: Pick<ImageName, "registry" | "repository">): string[] {
  const keys: string[] = [];
  for (let key = `${registry}/${repository}`; key !== "."; ) {
    keys.push(key);
    const slash = key.lastIndexOf("/");
    if (slash < 0) break;
    key = key.slice(0, slash);
  }
  return keys;
}

/** The host of a key that is an old URL of a registry's API, as docker login writes it. */
function hostOf(key: string): string | undefined {
  const match = /^(?:https?:\/\/)([^/]+)(?:\/.*)?$/.exec(key);
  const host = match?.[1] ?? (/^[^/]+$/.test(key) ? key : undefined);
  return host === "index.docker.io" || host === "registry-1.docker.io" ? hub : host;
}

function ofHelper(
  answer: { readonly username: string; readonly secret: string } | undefined,
): Login | undefined {
  if (answer === undefined) return undefined;
  const { username, secret } = answer;
  // docker's word for a helper that holds a token.
  if (username === "<token>") return { kind: "identity", username: "", token: secret };
  return { kind: "password", username, password: secret };
}

function ofEntry(entry: Entry, path: string, key: string): Login | undefined {
  const { auth, identitytoken, registrytoken } = entry;
  if (registrytoken) return { kind: "bearer", token: registrytoken };
  let username = entry.username ?? "";
  let password = entry.password ?? "";
  if (auth) {
    // docker has padded the password with NUL bytes.
    const text = Buffer.from(auth, "base64").toString("utf8").replace(/\0+$/, "");
    const colon = text.indexOf(":");
    if (colon < 0) {
      throw new RegistryError(
        "configuration",
        `${path}: auths ${JSON.stringify(key)}: auth is not base64 of USER:PASSWORD`,
      );
    }
    username = text.slice(0, colon);
    password = text.slice(colon + 1);
  }
  if (identitytoken) return { kind: "identity", username, token: identitytoken };
  return username !== "" && password !== "" ? { kind: "password", username, password } : undefined;
}

/** Every text that would give a login away. */
export function secretsOf(login: Login | undefined): string[] {
  if (login === undefined) return [];
  if (login.kind !== "password") return [login.token];
  return [login.password, basicOf(login)].filter((text) => text !== "");
}

/** The value of a basic Authorization, without its scheme. */
export function basicOf({
  username,
  password,
}: {
  readonly username: string;
  readonly password: string;
}): string {
  return Buffer.from(`${username}:${password}`).toString("base64");
}
