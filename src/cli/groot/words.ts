// Failures of the store in the words of who is told.

import { IngestError } from "../../oci/ingest.js";
import { RegistryError } from "../../oci/registry/errors.js";
import { StoreError } from "../../store/errors.js";
import { ExitCode, Failure, messageOf } from "../failure.js";
import { registryFailure } from "../registry.js";
import type { Caller } from "./caller.js";
import { MappingError } from "./maps.js";
import { StoreFailure } from "./store-failure.js";

/** What is told of `cause`. */
export function failureOf(cause: unknown, caller: Caller): StoreFailure {
  if (cause instanceof StoreFailure) return cause;
  if (cause instanceof MappingError) return new StoreFailure(cause.message, { exitCode: ExitCode.usage });
  if (cause instanceof StoreError) return storeFailure(cause, caller.command);
  if (cause instanceof RegistryError) return registryWords(cause, caller);
  if (cause instanceof IngestError) {
    return new StoreFailure(cause.message, cause.kind === "absent" ? { exitCode: ExitCode.notFound } : {});
  }
  if (cause instanceof Failure) {
    // What a signal ended says so itself; anything else is what it was caused by.
    if (cause.cause !== undefined) return failureOf(cause.cause, caller);
    return new StoreFailure(messageOf(cause), { exitCode: cause.exitCode });
  }
  const message = messageOf(cause);
  return new StoreFailure(`${caller.command}: ${message}`, {
    cause,
    groot: validationWords(message) ?? message,
  });
}

/** What GrootFS says of a layer that is not the one of the manifest; undefined for anything else. */
function validationWords(message: string): string | undefined {
  const size = /(?:the blob|size mismatch: it) has (\d+) bytes, the (?:descriptor|manifest) says (\d+)/.exec(
    message,
  );
  if (size !== null) {
    return `layer size is different from the value in the manifest; expected: ${size[2]}, actual ${size[1]}`;
  }
  const digest = /\b(digest|diffID) mismatch: the (?:uncompressed )?bytes are (\S+), expected (\S+)/.exec(
    message,
  );
  if (digest === null) return undefined;
  const kind = digest[1] === "digest" ? "layerID" : "diffID";
  const hex = (text = ""): string => text.replace(/^sha256:/, "");
  return `${kind} digest mismatch: expected: ${hex(digest[3])}, actual: ${hex(digest[2])}`;
}

function storeFailure(cause: StoreError, command: string): StoreFailure {
  const { kind } = cause;
  const message = messageOf(cause);
  const exitCode = exitCodes[kind];
  const said = (groot: string): StoreFailure =>
    new StoreFailure(message, { groot, cause, ...(exitCode === undefined ? {} : { exitCode }) });
  // What these refuse GrootFS would have taken, or removed.
  const isOfStore = command === "init-store" || command === "delete-store";
  if ((kind === "not-initialised" || kind === "foreign") && !isOfStore) {
    return said("Store path is not initialized. Please run init-store.");
  }
  // Why is ours to say.
  if (kind === "busy") return said(cause.message);
  if (kind === "volume") return said(`making image: creating image: applying disk limits: ${message}`);
  return said(message);
}

const exitCodes: Readonly<Partial<Record<StoreError["kind"], number>>> = {
  "not-initialised": ExitCode.notFound,
  absent: ExitCode.notFound,
  "bad-id": ExitCode.usage,
};

function registryWords(cause: RegistryError, { command, args }: Caller): StoreFailure {
  const [image = ""] = args;
  const isRegistry = /^docker:/i.test(image);
  const { exitCode, hint } = registryFailure(command, cause);
  return new StoreFailure(`${command} ${image}: ${messageOf(cause)}`, {
    exitCode,
    groot: grootRegistryWords(cause, image),
    ...(hint === undefined || (!isRegistry && cause.kind === "unauthorized") ? {} : { hint }),
  });
}

function grootRegistryWords(cause: RegistryError, image: string): string {
  // A layer of a layout that lies elsewhere: the message names it.
  if (!/^docker:/i.test(image)) return messageOf(cause);
  switch (cause.kind) {
    case "insecure":
      return "This registry is insecure. To pull images from this registry, please use the --insecure-registry option.";
    case "absent":
    case "unauthorized":
    case "denied":
      return `${image} does not exist or you do not have permissions to see it.`;
    case "refused":
      return "unable to retrieve auth token: invalid username/password";
    default:
      return validationWords(messageOf(cause)) ?? messageOf(cause);
  }
}
