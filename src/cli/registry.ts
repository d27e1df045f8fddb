// The options of commands that reach registries.
import { readSync } from "node:fs";
import type { RegistryError } from "../oci/registry/errors.js";
import type { RegistryOptions } from "../oci/registry/options.js";
import { ExitCode, Failure } from "./failure.js";

export interface RegistryFlags {
  readonly username?: string;
  readonly passwordStdin?: boolean;
  readonly authfile?: string;
  readonly tlsVerify?: "true" | "false";
  readonly certDir?: string;
}

/** The flags that are given, as they are written. */
export function givenFlags(flags: RegistryFlags): string[] {
  return [
    flags.username === undefined ? [] : ["--username"],
    flags.passwordStdin === undefined ? [] : ["--password-stdin"],
    flags.authfile === undefined ? [] : ["--authfile"],
    flags.tlsVerify === undefined ? [] : ["--tls-verify"],
    flags.certDir === undefined ? [] : ["--cert-dir"],
  ].flat();
}

/** What the flags ask for; reads the password. Throws an Error for flags that do not go together. */
export function registryOptions(flags: RegistryFlags): RegistryOptions {
  const { username, passwordStdin, authfile, tlsVerify, certDir } = flags;
  if ((username === undefined) !== (passwordStdin === undefined)) {
    throw new Error("--username and --password-stdin go together");
  }
  if (username !== undefined) checkUsername(username);
  const login =
    username === undefined
      ? {}
      : { login: { kind: "password", username, password: readPassword() } as const };
  return {
    ...login,
    ...(authfile === undefined ? {} : { authFile: authfile }),
    ...(tlsVerify === undefined ? {} : { tlsVerify: tlsVerify === "true" }),
    ...(certDir === undefined ? {} : { certDir }),
  };
}

/** Throws an Error for what cannot be sent as a user's name. */
export function checkUsername(username: string): void {
  if (username === "" || username.includes(":")) throw new Error("--username: not the name of a user");
}

const maxPassword = 64 << 10;

function readPassword(): string {
  const buffer = Buffer.alloc(maxPassword + 1);
  let length = 0;
  for (;;) {
    let read: number;
    try {
      read = readSync(0, buffer, length, buffer.length - length, null);
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      if (code === "EOF") break;
      if (code !== "EAGAIN") throw new Error("--password-stdin: stdin cannot be read");
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
      continue;
    }
    if (read === 0) break;
    length += read;
    if (length > maxPassword) throw new Error("--password-stdin: that is too long for a password");
  }
  const password = buffer.toString("utf8", 0, length).replace(/\r?\n$/, "");
  if (password === "") throw new Error("--password-stdin: no password came");
  return password;
}

/** The failure that a registry's error is for people. */
export function registryFailure(what: string, cause: RegistryError): Failure {
  const hint = hints[cause.kind];
  return new Failure(codes[cause.kind] ?? ExitCode.failure, what, {
    cause,
    ...(hint === undefined ? {} : { hint }),
  });
}

const codes: Readonly<Partial<Record<RegistryError["kind"], number>>> = {
  absent: ExitCode.notFound,
  unauthorized: ExitCode.refused,
  refused: ExitCode.refused,
  denied: ExitCode.refused,
};

const hints: Readonly<Partial<Record<RegistryError["kind"], string>>> = {
  unauthorized: "log in by podman login or docker login, or give --username and --password-stdin",
  insecure: "--cert-dir names its authority; --tls-verify=false goes without any check",
};
