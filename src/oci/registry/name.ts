// Names of images in registries, `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`, by the grammar of distribution/reference. What is
// left out is docker's: registry docker.io, its namespace library/, tag latest.
import { parseSourceDigest, type SourceDigest } from "../../base/digest.js";

/** An image in a registry. */
export interface ImageName {
  /** `host[:port]` as people write it: docker.io for Docker's hub. */
  readonly registry: string;
  readonly repository: string;
  /** Undefined where a digest stands in its place. */
  readonly tag: string | undefined;
  /** When there is one it decides, whatever the tag says. */
  readonly digest: SourceDigest | undefined;
}

export const hub = "docker.io";

const maxName = 255;
const host =
  /^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$/;
const component = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const path = new RegExp(`^${component}(?:/${component})*$`);
const tagForm = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;

/** Whether a text could be `host[:port]`. */
export function isHost(text: string): boolean {
  return host.test(text);
}

/** Parses the name of an image. Throws an Error that says what is wrong, and does not quote the text. */
export function parseImageName(text: string): ImageName {
  const at = text.indexOf("@");
  const digest = at < 0 ? undefined : parseSourceDigest(text.slice(at + 1));
  const rest = at < 0 ? text : text.slice(0, at);
  const colon = rest.lastIndexOf(":");
  const hasTag = colon > rest.lastIndexOf("/");
  const tag = hasTag ? rest.slice(colon + 1) : undefined;
  if (tag !== undefined && !tagForm.test(tag)) throw new Error(`not a tag: ${JSON.stringify(tag)}`);
  const { registry, repository } = parseRepository(hasTag ? rest.slice(0, colon) : rest);
  return { registry, repository, tag: tag ?? (digest === undefined ? "latest" : undefined), digest };
}

/** The registry and the repository of a name without tag. The first part is a host where it looks like one. */
function parseRepository(name: string): Pick<ImageName, "registry" | "repository"> {
  const slash = name.indexOf("/");
  const first = slash < 0 ? "" : name.slice(0, slash);
  const isRegistry = /[.:]/.test(first) || first === "localhost" || first !== first.toLowerCase();
  const written = isRegistry ? first : hub;
  const rest = isRegistry ? name.slice(slash + 1) : name;
  if (!isHost(written)) throw new Error(`not a registry: ${JSON.stringify(written)}`);
  if (rest === "") throw new Error("it names no repository");
  if (!path.test(rest)) {
    const why = path.test(rest.toLowerCase())
      ? "upper case is not allowed in it"
      : "not the name of a repository";
    throw new Error(`${JSON.stringify(rest)}: ${why}`);
  }
  const registry = written === "index.docker.io" ? hub : written;
  const repository = registry === hub && !rest.includes("/") ? `library/${rest}` : rest;
  if (registry.length + repository.length >= maxName) throw new Error(`longer than ${maxName} characters`);
  return { registry, repository };
}

/** `host[:port]/repository`. */
export function repositoryText({ registry, repository }: Pick<ImageName, "registry" | "repository">): string {
  return `${registry}/${repository}`;
}

/** The name in full, with its digest, or else its tag. */
export function nameText(name: ImageName): string {
  const { tag, digest } = name;
  return `${repositoryText(name)}${tag === undefined ? "" : `:${tag}`}${digest === undefined ? "" : `@${digest}`}`;
}

/** `host[:port]` that serves the API of a registry. */
export function apiHost(registry: string): string {
  return registry === hub ? "registry-1.docker.io" : registry;
}
