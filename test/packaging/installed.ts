// The package as users get it: packed into a tarball, and that installed with npm into a prefix of its own, where neither
// a compiler nor the repository can be found.
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, realpathSync, symlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { hasCommand, scratchDirectory } from "../e2e/mounted.js";

export const repository: string = resolve(import.meta.dirname, "../..");

export interface Manifest {
  readonly version: string;
  readonly bin: Readonly<Record<string, string>>;
  readonly man?: readonly string[];
  readonly exports: Readonly<Record<string, string | { readonly types: string; readonly default: string }>>;
}

export const manifest = JSON.parse(readFileSync(join(repository, "package.json"), "utf8")) as Manifest;

const start = promisify(execFile);

/** Runs a program without anything of npm's, of this run or of this machine's PATH in its environment. */
export async function clean(
  command: string,
  args: readonly string[],
  { path, cwd }: { readonly path: string; readonly cwd?: string },
): Promise<string> {
  const passed = Object.entries(process.env).filter(([name]) =>
    /^(HOME|LANG|TMPDIR|.*_proxy|.*_PROXY|NODE_EXTRA_CA_CERTS|SSL_CERT_.*)$/.test(name),
  );
  const env = { ...Object.fromEntries(passed), PATH: path };
  const options = { env, maxBuffer: 1 << 26, timeout: 110_000, ...(cwd === undefined ? {} : { cwd }) };
  try {
    const { stdout } = await start(command, [...args], options);
    return stdout;
  } catch (cause) {
    const { stdout, stderr } = cause as { readonly stdout?: string; readonly stderr?: string };
    throw new Error(`${command} ${args.join(" ")}\n${stdout}${stderr}`, { cause });
  }
}

export interface Packed {
  readonly file: string;
  /** Bytes of the tarball. */
  readonly size: number;
  /** Bytes of what is in it. */
  readonly unpackedSize: number;
  readonly paths: readonly string[];
}

/** Packs what dist/ holds now: the other tests run it meanwhile, so it is not built again. */
export async function pack(): Promise<Packed> {
  const folder = scratchDirectory("tarball");
  const args = ["pack", "--ignore-scripts", "--json", "--pack-destination", folder];
  const { stdout } = await start("npm", args, { cwd: repository });
  const [said] = JSON.parse(stdout) as readonly {
    readonly filename: string;
    readonly size: number;
    readonly unpackedSize: number;
    readonly files: readonly { readonly path: string }[];
  }[];
  if (said === undefined) throw new Error(`npm pack said ${stdout}`);
  const { filename, size, unpackedSize, files } = said;
  return { file: join(folder, filename), size, unpackedSize, paths: files.map(({ path }) => path) };
}

export interface Installed {
  readonly prefix: string;
  /** The package's own folder. */
  readonly folder: string;
  /** What a user's PATH would be: the prefix and the system. */
  readonly path: string;
}

/** Installs the tarball globally, with nothing at hand but node, npm and a shell. */
export async function install({ file }: Packed): Promise<Installed> {
  const tools = scratchDirectory("tools");
  for (const name of ["node", "npm", "sh"]) {
    const found = (process.env["PATH"] ?? "").split(":").find((folder) => existsSync(join(folder, name)));
    symlinkSync(realpathSync(join(found ?? "/bin", name)), join(tools, name));
  }
  const prefix = scratchDirectory("prefix");
  mkdirSync(join(prefix, "lib"));
  const quiet = ["--prefer-offline", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"];
  await clean("npm", ["install", "--global", "--prefix", prefix, ...quiet, file], {
    path: tools,
    cwd: prefix,
  });
  return {
    prefix,
    folder: join(prefix, "lib/node_modules/imgfs"),
    path: `${join(prefix, "bin")}:/usr/sbin:/usr/bin:/sbin:/bin`,
  };
}

/** Why no package can be made here, or undefined. */
export const cannotPack: string | undefined = hasCommand("npm") ? undefined : "npm is missing";
