// What a registry's certificate is checked against, and what is shown to it: containers-certs.d(5). `*.crt` are
// authorities beside the system's, `*.cert` with `*.key` certificates of ours.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { createSecureContext, rootCertificates, type SecureContext } from "node:tls";
import { errnoText } from "../../base/errno.js";
import { RegistryError } from "./errors.js";
import type { RegistryOptions } from "./options.js";

/** Where distributions keep the authorities that they trust. */
const systemBundles = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/pki/tls/cacert.pem",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

/** The TLS side of one host. */
export interface HostTls {
  readonly secureContext: SecureContext;
  /** Folder that the certificates came from, for messages. */
  readonly folder: string | undefined;
}

/**
 * TLS for `host[:port]`, as the reference writes it. Certificates of `--cert-dir` are shown to the registry alone
 * (`isOwn`), its authorities count for other hosts, too. Throws a RegistryError that names the file that is wrong.
 */
export function hostTls(host: string, isOwn: boolean, isChecked: boolean, options: RegistryOptions): HostTls {
  const environment = options.environment ?? process.env;
  const folder = certFolder(host, options, environment);
  // Nothing is checked against them where nothing is checked, and reading them takes its time.
  const authorities = isChecked ? [...systemAuthorities(environment)] : [];
  const pairs: { cert: Buffer; key: Buffer }[] = [];
  for (const name of folder === undefined ? [] : listFolder(folder)) {
    const path = join(folder as string, name);
    if (name.endsWith(".crt") && isChecked) authorities.push(read(path).toString("latin1"));
    if (name.endsWith(".cert") && (isOwn || options.certDir === undefined)) {
      const key = path.replace(/\.cert$/, ".key");
      if (!existsSync(key)) {
        throw wrong(`${path}: its key ${key} is missing (authorities are to end in .crt, not .cert)`);
      }
      pairs.push({ cert: read(path), key: read(key) });
    }
    if (name.endsWith(".key") && !existsSync(path.replace(/\.key$/, ".cert"))) {
      throw wrong(`${path}: its certificate ${path.replace(/\.key$/, ".cert")} is missing`);
    }
  }
  try {
    const secureContext = createSecureContext({
      ...(isChecked ? { ca: authorities } : {}),
      ...(pairs.length === 0
        ? {}
        : { cert: pairs.map(({ cert }) => cert), key: pairs.map(({ key }) => key) }),
    });
    return { secureContext, folder };
  } catch (cause) {
    throw wrong(
      `${folder ?? "the system's authorities"}: certificates that cannot be used: ${(cause as Error).message}`,
    );
  }
}

/** `--cert-dir` as it is; else the first of the folders for a host. */
function certFolder(
  host: string,
  { certDir }: RegistryOptions,
  environment: NodeJS.ProcessEnv,
): string | undefined {
  if (certDir !== undefined) {
    if (!existsSync(certDir)) throw wrong(`${certDir}: no such folder`);
    return certDir;
  }
  const home = environment["HOME"] || homedir();
  return [join(home, ".config/containers/certs.d"), "/etc/containers/certs.d", "/etc/docker/certs.d"]
    .map((folder) => join(folder, host))
    .find((folder) => existsSync(folder));
}

function listFolder(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? "EIO";
    if (code === "EACCES") return [];
    throw wrong(`${folder}: ${errnoText(code)}`);
  }
}

/** What the system trusts, which is what its administrator says; Node's own list where it has none. */
function systemAuthorities(environment: NodeJS.ProcessEnv): readonly string[] {
  const file = environment["SSL_CERT_FILE"];
  const folders = environment["SSL_CERT_DIR"];
  const bundle = file || (folders ? undefined : systemBundles.find((path) => existsSync(path)));
  const found = bundle === undefined ? [] : [read(bundle).toString("latin1")];
  for (const folder of folders ? folders.split(":") : []) {
    for (const name of listFolder(folder)) {
      if (/\.(pem|crt|cer)$/.test(name)) found.push(read(join(folder, name)).toString("latin1"));
    }
  }
  return found.length === 0 ? rootCertificates : found;
}

function read(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw wrong(`${path}: ${errnoText((cause as NodeJS.ErrnoException).code ?? "EIO")}`);
  }
}

function wrong(message: string): RegistryError {
  return new RegistryError("configuration", message);
}
