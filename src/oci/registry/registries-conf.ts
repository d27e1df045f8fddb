// registries.conf, version 2 (containers-registries.conf(5)): which servers stand for a name, in which order, and which
// of them may be without TLS. What is not ours (short-name aliases, credential-helpers) is let by.
import { readdir, readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { parse } from "smol-toml";
import * as v from "valibot";
import { errnoText } from "../../base/errno.js";
import { RegistryError } from "./errors.js";
import { type ImageName, isHost, repositoryText } from "./name.js";

const optionalText = v.optional(v.string(), "");
const flag = v.optional(v.boolean(), false);

const Mirror = v.object({
  location: v.string(),
  insecure: flag,
  "pull-from-mirror": v.optional(v.picklist(["all", "digest-only", "tag-only", ""]), "all"),
});

const Registry = v.object({
  prefix: optionalText,
  location: optionalText,
  insecure: flag,
  blocked: flag,
  "mirror-by-digest-only": flag,
  mirror: v.optional(v.array(Mirror), []),
});

const File = v.object({ registry: v.optional(v.array(Registry), []), registries: v.optional(v.unknown()) });

/** One [[registry]], with the file that has it. */
export interface RegistryEntry extends v.InferOutput<typeof Registry> {
  readonly file: string;
}

/** A server to ask for an image. */
export interface PullSource {
  readonly registry: string;
  readonly repository: string;
  readonly isInsecure: boolean;
  readonly isMirror: boolean;
}

/** The files, in the order in which a later one replaces what an earlier one says of the same prefix. */
async function configFiles(environment: NodeJS.ProcessEnv): Promise<string[]> {
  const named = environment["CONTAINERS_REGISTRIES_CONF"];
  if (named) return [named];
  const user = join(
    environment["XDG_CONFIG_HOME"] || join(environment["HOME"] || homedir(), ".config"),
    "containers",
  );
  const system = "/etc/containers";
  const dropIns = async (folder: string): Promise<string[]> => {
    const names = await readdir(folder).catch((): string[] => []);
    return names
      .filter((name) => name.endsWith(".conf"))
      .sort()
      .map((name) => join(folder, name));
  };
  const main = join(user, "registries.conf");
  const hasMain = await readFile(main).then(
    () => true,
    () => false,
  );
  return [
    hasMain ? main : join(system, "registries.conf"),
    ...(await dropIns(join(system, "registries.conf.d"))),
    ...(await dropIns(join(user, "registries.conf.d"))),
  ];
}

/** Every [[registry]] there is, by prefix. Throws a RegistryError that names the file and what is wrong in it. */
export async function readRegistries(
  environment: NodeJS.ProcessEnv,
): Promise<ReadonlyMap<string, RegistryEntry>> {
  const entries = new Map<string, RegistryEntry>();
  for (const file of await configFiles(environment)) {
    const isRequired = file === environment["CONTAINERS_REGISTRIES_CONF"];
    for (const entry of await readConfig(file, isRequired)) entries.set(entry.prefix, entry);
  }
  return entries;
}

async function readConfig(file: string, isRequired: boolean): Promise<RegistryEntry[]> {
  const fail = (why: string): RegistryError => new RegistryError("configuration", `${file}: ${why}`);
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? "EIO";
    if (!isRequired && (code === "ENOENT" || code === "ENOTDIR")) return [];
    throw fail(errnoText(code));
  }
  let value: unknown;
  try {
    value = parse(text);
  } catch (cause) {
    throw fail(
      `not valid TOML: ${(cause as Error).message.split("\n")[0]?.replace(/^Invalid TOML document: /, "")}`,
    );
  }
  const parsed = v.safeParse(File, value);
  if (!parsed.success) {
    const issue = parsed.issues[0];
    throw fail(`${v.getDotPath(issue) ?? "the file"}: ${issue.message.replace(/^Invalid/, "invalid")}`);
  }
  if (parsed.output.registries !== undefined) {
    throw fail("version 1 of the format is not supported: write [[registry]] tables in its place");
  }
  return parsed.output.registry.map((entry, i) => {
    const where = `registry[${i}]`;
    const location = checked(entry.location, `${where}.location`, fail);
    const prefix = entry.prefix === "" ? location : checked(entry.prefix, `${where}.prefix`, fail);
    if (prefix === "") throw fail(`${where}: it has neither prefix nor location`);
    if (prefix.startsWith("*.") && location !== "") {
      throw fail(`${where}: a prefix with a wildcard cannot have a location`);
    }
    const mirror = entry.mirror.map((one, j) => {
      const place = checked(one.location, `${where}.mirror[${j}].location`, fail);
      if (place === "" || prefix.startsWith("*."))
        throw fail(`${where}.mirror[${j}]: a mirror of nothing, or of a wildcard`);
      return { ...one, location: place };
    });
    return { ...entry, prefix, location: location === "" ? prefix : location, mirror, file };
  });
}

function checked(text: string, where: string, fail: (why: string) => RegistryError): string {
  const trimmed = text.replace(/\/+$/, "");
  if (trimmed === "") return "";
  const [first = ""] = trimmed.replace(/^\*\./, "").split(/[/@]/);
  if (/:\/\//.test(trimmed) || !isHost(first.replace(/:[A-Za-z_][\w.-]*$/, ""))) {
    throw fail(`${where}: ${JSON.stringify(text)} is not HOST[:PORT][/NAMESPACE...]`);
  }
  return trimmed;
}

/** The entry with the longest prefix of a name. */
function entryFor(name: ImageName, entries: Iterable<RegistryEntry>): RegistryEntry | undefined {
  let best: RegistryEntry | undefined;
  for (const entry of entries) {
    if (entry.prefix.length > (best?.prefix.length ?? 0) && matches(name, entry.prefix)) best = entry;
  }
  return best;
}

function matches(name: ImageName, prefix: string): boolean {
  const full = repositoryText(name);
  if (prefix.startsWith("*.")) {
    const [host = "", ...path] = prefix.slice(1).split("/");
    const below = name.registry.replace(/:\d+$/, "");
    if (!name.registry.endsWith(host) && !below.endsWith(host)) return false;
    return path.length === 0 || isBelow(name.repository, path.join("/"));
  }
  return (
    isBelow(full, prefix) ||
    prefix === `${full}:${name.tag}` ||
    (name.digest !== undefined && prefix === `${full}@${name.digest}`)
  );
}

function isBelow(path: string, prefix: string): boolean {
  return path === prefix || path.startsWith(`${prefix}/`);
}

/**
 * The servers to ask for a name, in order: mirrors, and at last the place of the name itself. Throws a RegistryError
 * where a file forbids the name.
 */
export function pullSources(name: ImageName, entries: ReadonlyMap<string, RegistryEntry>): PullSource[] {
  const entry = entryFor(name, entries.values());
  if (entry === undefined) {
    return [{ registry: name.registry, repository: name.repository, isInsecure: false, isMirror: false }];
  }
  if (entry.blocked) {
    throw new RegistryError(
      "blocked",
      `${repositoryText(name)}: ${entry.prefix} is blocked by ${entry.file}`,
    );
  }
  const byDigest = name.digest !== undefined;
  const mirrors = entry.mirror.filter((mirror) => {
    if (entry["mirror-by-digest-only"]) return byDigest;
    const when = mirror["pull-from-mirror"];
    return when === "digest-only" ? byDigest : when === "tag-only" ? !byDigest : true;
  });
  const place = (location: string, isInsecure: boolean, isMirror: boolean): PullSource => {
    const full = repositoryText(name);
    // A prefix that names a tag leaves nothing to keep; one with a wildcard changes nothing.
    const rest = isBelow(full, entry.prefix) ? full.slice(entry.prefix.length) : "";
    const path = entry.prefix.startsWith("*.") ? full : `${location}${rest}`;
    const slash = path.indexOf("/");
    if (slash < 0) {
      throw new RegistryError("configuration", `${entry.file}: ${location} names no repository for ${full}`);
    }
    const repository = path.slice(slash + 1).replace(/[:@].*$/, "");
    return { registry: path.slice(0, slash), repository, isInsecure, isMirror };
  };
  return [
    ...mirrors.map(({ location, insecure }) => place(location, insecure, true)),
    place(entry.location, entry.insecure, false),
  ];
}
