// What may be asked of registries. Everything has a default: what the files and variables of docker and podman say.
import type { Login } from "./credentials.js";

export interface RegistryOptions {
  /** False: certificates are not checked, and plain HTTP is spoken where TLS is not; overrides registries.conf. */
  readonly tlsVerify?: boolean | undefined;
  /** Folder with the registry's *.crt, *.cert and *.key in place of those of certs.d. */
  readonly certDir?: string | undefined;
  /** File with logins in place of all others. */
  readonly authFile?: string | undefined;
  /** Login of the registry that the reference names, in place of what files say; never sent to a mirror. */
  readonly login?: Login | undefined;
  readonly limits?: Partial<Limits> | undefined;
  /** Hears of each failure after which there is another try. */
  readonly onRetry?: ((message: string) => void) | undefined;
  /** Environment; that of the process unless given. */
  readonly environment?: NodeJS.ProcessEnv | undefined;
}

/** Times are in milliseconds, and of silence: nothing limits how long a download may take. */
export interface Limits {
  /** Until a connection is made, TLS included. */
  readonly connect: number;
  /** Until the headers of a response, and between two pieces of its body. */
  readonly silence: number;
  /** Tries of one request, and of one body without progress. */
  readonly tries: number;
  /** Before the second try; doubled for each further one, with jitter. */
  readonly delay: number;
  /** Longest wait between two tries; where Retry-After asks for more there is no other try. */
  readonly maxDelay: number;
}

export const defaultLimits: Limits = {
  connect: 30_000,
  silence: 60_000,
  tries: 5,
  delay: 500,
  maxDelay: 120_000,
};
