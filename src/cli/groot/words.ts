// Failures of the store in the words of who is told.
import { RegistryError } from "../../oci/registry/errors.js";
import { ExitCode, Failure, messageOf } from "../failure.js";
import type { Caller } from "./caller.js";
import { MappingError } from "./maps.js";
import { StoreFailure } from "./store-failure.js";

/** What is told of `cause`. */
export function failureOf(cause: unknown, caller: Caller): StoreFailure {
  if (cause instanceof StoreFailure) return cause;
  if (cause instanceof MappingError) return new StoreFailure(cause.message, { exitCode: ExitCode.usage });
  if (cause instanceof RegistryError) return new StoreFailure(registryWords(cause, caller.args[0] ?? ""));
  if (cause instanceof Failure) return new StoreFailure(messageOf(cause), { exitCode: cause.exitCode });
  return new StoreFailure(messageOf(cause));
}

function registryWords({ kind, message }: RegistryError, image: string): string {
  return kind === "absent" ? image : message;
}

export function notThere(_cause: unknown, _name: string): string | undefined {
  return undefined;
}
