// Source references: `transport:rest`, as skopeo and podman write them, or a bare path that is recognised by what is
// there (recognise.ts). The table of transports is the whole grammar; one that is known but not there yet says so.
import { existsSync } from "node:fs";
import { parseImageName } from "./registry/name.js";

/** A source reference taken apart. */
export interface Reference {
  readonly transport: Transport;
  /** Folder or file; of docker: the whole name, without slashes before it. */
  readonly path: string;
  /** Tag, docker reference, `@N` or `@DIGEST`; undefined when the user chose none. */
  readonly selector: string | undefined;
  /** As written. */
  readonly text: string;
}

/** A reference whose transport nobody has named. */
export type BareReference = Omit<Reference, "transport"> & { readonly transport: undefined };

/** `selector`: whether something may follow the path after a colon. */
const transports = {
  oci: { form: "oci:DIR[:TAG]", selector: true },
  "oci-archive": { form: "oci-archive:FILE[:TAG]", selector: true },
  "docker-archive": { form: "docker-archive:FILE[:REF]", selector: true },
  dir: { form: "dir:PATH", selector: false },
  tar: { form: "tar:FILE", selector: false },
  docker: { form: "docker://NAME[:TAG|@DIGEST]", selector: false },
} as const;

export type Transport = keyof typeof transports;

/** Transports of containers-transports(5) that are none of ours, and what to say of them. */
const others: Readonly<Record<string, string>> = {
  "docker-daemon": "images of the docker daemon are not supported; docker save makes a docker-archive",
  "containers-storage": "podman's store is not supported; podman save makes an oci-archive",
};

function isTransport(text: string): text is Transport {
  return Object.hasOwn(transports, text);
}

/** Every form of a source, for messages and help. */
export const sourceForms: string = Object.values(transports)
  .map(({ form }) => form)
  .join(", ");

/**
 * Takes a source apart. The path ends at the first colon, as in containers-transports(5), unless a longer one exists;
 * `dir:` and `tar:` have no selector. `oci:///a` is `/a`. Throws an Error that quotes the text; a bare path that does
 * not exist is only thrown for when it looks like an image's name.
 */
export function parseReference(text: string): Reference | BareReference {
  const colon = text.indexOf(":");
  const transport = colon < 0 ? "" : text.slice(0, colon);
  if (isTransport(transport)) return withTransport(text, transport, text.slice(colon + 1));
  if (Object.hasOwn(others, transport)) {
    throw new Error(`${quote(text)}: ${others[transport]}; use one of ${sourceForms}, or a path`);
  }
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(text)) {
    throw new Error(`unknown transport ${quote(transport)} in ${quote(text)}: use one of ${sourceForms}`);
  }
  return bare(text);
}

function withTransport(text: string, transport: Transport, written: string): Reference {
  const { form, selector } = transports[transport];
  if (transport === "docker") return { transport, path: imageNameIn(written), selector: undefined, text };
  const rest = written.startsWith("///") ? written.slice(2) : written;
  const [path, after] = selector ? splitSelector(rest) : [rest, undefined];
  if (path === "") throw new Error(`${quote(text)} names no path: the form is ${form}`);
  if (after === "") throw new Error(`${quote(text)} has an empty tag: the form is ${form}`);
  return { transport, path, selector: after, text };
}

/**
 * The name in `//NAME`, or in GrootFS's `///NAME`, checked. What is wrong with it is told without quoting it where it has
 * a login: that must not get into a log.
 */
function imageNameIn(written: string): string {
  const { form } = transports.docker;
  const name = /^\/\/\/?(.*)$/s.exec(written)?.[1];
  if (name === undefined) throw new Error(`${quote(`docker:${written}`)}: the form is ${form}`);
  if (/^[^/@]*:[^/@]*@(?!sha\d+:)/.test(name)) {
    throw new Error("docker://...: a login has no place in a reference; use --username and --password-stdin");
  }
  try {
    parseImageName(name);
  } catch (cause) {
    throw new Error(`${quote(`docker:${written}`)}: ${(cause as Error).message}; the form is ${form}`);
  }
  return name;
}

function bare(text: string): BareReference {
  if (text === "") throw new Error(`an empty source: use one of ${sourceForms}, or a path`);
  const [path, selector] = splitSelector(text);
  const isPath = /^\.{0,2}\//.test(text) || existsSync(path);
  if (!isPath) {
    throw new Error(
      `${quote(text)} is no file or folder: use a path or one of ${sourceForms}${imageHint(text)}`,
    );
  }
  if (selector === "") throw new Error(`${quote(text)} has an empty tag: the form is PATH:TAG`);
  return { transport: undefined, path, selector, text };
}

/** What looks like the name of an image is only taken for one where it is said. */
function imageHint(text: string): string {
  try {
    parseImageName(text);
  } catch {
    return "";
  }
  return `; docker://${text} would be an image in a registry`;
}

/**
 * The path, and what follows it: `PATH`, `PATH:SELECTOR` or `PATH@DIGEST`. Of several colons the first that ends an
 * existing path counts: folders may have colons in their names, and so may references (`registry:5000/name:tag`).
 */
function splitSelector(rest: string): [path: string, selector: string | undefined] {
  if (existsSync(rest)) return [rest, undefined];
  const digest = /:?(@[a-z0-9]+:[0-9A-Fa-f]{32,})$/.exec(rest);
  if (digest !== null && existsSync(rest.slice(0, digest.index))) {
    return [rest.slice(0, digest.index), digest[1]];
  }
  let end = rest.indexOf(":");
  for (let at = end; at >= 0; at = rest.indexOf(":", at + 1)) {
    if (!existsSync(rest.slice(0, at))) continue;
    end = at;
    break;
  }
  return end < 0 ? [rest, undefined] : [rest.slice(0, end), rest.slice(end + 1)];
}

function quote(text: string): string {
  return JSON.stringify(text);
}
