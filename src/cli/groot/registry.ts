// How the registry of an image is reached: GrootFS's flags, and those of `imgfs build`.
import type { Login } from "../../oci/registry/credentials.js";
import type { RegistryOptions } from "../../oci/registry/options.js";
import { messageOf } from "../failure.js";
import { checkUsername, registryOptions } from "../registry.js";
import type { Caller } from "./caller.js";
import { usage } from "./store-failure.js";

/** What the options and the config file say of the registry that `image` names. Reads a password from stdin if asked to. */
export function registryFor(image: string, caller: Caller): RegistryOptions {
  const { options, settings } = caller;
  const { username: _, passwordStdin, ...flags } = options;
  const { create } = settings.file;
  const trusted =
    options.insecureRegistry !== undefined ? options.insecureRegistry : (create?.insecure_registries ?? []);
  const host = /^docker:\/\/([^/]+)\//i.exec(image)?.[1];
  const insecure = host !== undefined && trusted.includes(host);
  // As there: of layers that a layout leaves to their URLs, and not of registries.
  const isRegistry = /^docker:/i.test(image);
  const certDir = isRegistry ? undefined : create?.remote_layer_client_certificates_path;
  try {
    const login = loginOf(caller);
    const fromStdin = passwordStdin === undefined ? {} : { ...usernameOf(caller), passwordStdin };
    return {
      ...(certDir === undefined || certDir === "" ? {} : { certDir }),
      ...registryOptions({ ...flags, ...fromStdin }),
      ...(insecure ? { tlsVerify: false } : {}),
      ...(login === undefined ? {} : { login }),
    };
  } catch (cause) {
    throw usage(messageOf(cause));
  }
}

function usernameOf({ options }: Caller): { username?: string } {
  return options.username === undefined ? {} : { username: options.username };
}

/** The login of --username and --password; called as grootfs half of one is none, as there. */
function loginOf({ program, options }: Caller): Login | undefined {
  const { username, password, passwordStdin } = options;
  if (program === "grootfs") {
    return username && password ? { kind: "password", username, password } : undefined;
  }
  if (password === undefined) {
    if (username !== undefined && passwordStdin === undefined) {
      throw new Error("--username needs --password-stdin or --password");
    }
    return undefined;
  }
  if (passwordStdin !== undefined) throw new Error("--password and --password-stdin do not go together");
  if (username === undefined) throw new Error("--password needs --username");
  checkUsername(username);
  return { kind: "password", username, password };
}
