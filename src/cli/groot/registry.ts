// How the registry of an image is reached: GrootFS's flags, and those of `imgfs build`.
import type { RegistryOptions } from "../../oci/registry/options.js";
import { messageOf } from "../failure.js";
import { registryOptions } from "../registry.js";
import type { Caller } from "./caller.js";
import { usage } from "./store-failure.js";

/** What the options and the config file say of the registry that `image` names. Reads a password from stdin if asked to. */
export function registryFor(image: string, { options, settings }: Caller): RegistryOptions {
  const { username, password, passwordStdin, ...flags } = options;
  const { create } = settings.file;
  const trusted =
    options.insecureRegistry !== undefined ? options.insecureRegistry : (create?.insecure_registries ?? []);
  const host = /^docker:\/\/([^/]+)\//i.exec(image)?.[1];
  const insecure = host !== undefined && trusted.includes(host);
  const certDir = create?.remote_layer_client_certificates_path;
  try {
    const named = registryOptions({
      ...flags,
      ...(password === undefined && username !== undefined ? { username } : {}),
      ...(passwordStdin === undefined ? {} : { passwordStdin }),
    });
    return {
      ...(certDir === undefined || certDir === "" ? {} : { certDir }),
      ...named,
      ...(insecure ? { tlsVerify: false } : {}),
      ...(password === undefined ? {} : { login: loginOf(username, password) }),
    };
  } catch (cause) {
    throw usage(messageOf(cause));
  }
}

function loginOf(username: string | undefined, password: string): RegistryOptions["login"] {
  if (username === undefined || username === "") throw new Error("--password needs --username");
  return { kind: "password", username, password };
}
