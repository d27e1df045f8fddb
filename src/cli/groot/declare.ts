// The store's commands and their options, for both names: `imgfs`, and `grootfs`, where wrong usage is told in GrootFS's
// words. What a command does is loaded when it runs.
import { Argument, type Command, InvalidArgumentError, Option } from "commander";
import { parseSize } from "../../quota/settings.js";
import type { MountHere } from "../../store/mounts.js";
import type { ProgressKind } from "../progress.js";
import { inodes } from "../quota-options.js";
import { goInt64 } from "./go-texts.js";
import type { Program } from "./settings.js";

/** Options of all commands of the store together: those of one and the global ones, as commander has read them. */
export interface StoreOptions {
  readonly store?: string;
  readonly config?: string;
  readonly logLevel?: string;
  readonly logFormat?: "text" | "json";
  readonly log?: string;
  readonly logFile?: string;
  readonly debug?: true;
  readonly metricsFile?: string;
  readonly metricsLog?: string;
  readonly uidMapping?: readonly string[];
  readonly gidMapping?: readonly string[];
  readonly diskLimitSizeBytes?: number;
  readonly quotaInodes?: number;
  readonly quotaErrno?: "EDQUOT" | "ENOSPC";
  readonly excludeImageFromQuota?: boolean;
  readonly insecureRegistry?: readonly string[];
  readonly username?: string;
  readonly password?: string;
  readonly passwordStdin?: boolean;
  readonly authfile?: string;
  readonly tlsVerify?: "true" | "false";
  readonly certDir?: string;
  readonly progress?: ProgressKind;
  readonly withClean?: true;
  readonly withoutClean?: true;
  readonly cleanLogFile?: string;
  readonly withMount?: true;
  readonly withoutMount?: true;
  readonly thresholdBytes?: number;
  readonly thresholdMode?: "committed" | "used";
  readonly ignoreImage?: readonly string[];
  readonly format?: "json" | "path";
  readonly skipLayerValidation?: boolean;
  readonly platform?: string;
  readonly codec?: string;
  readonly devices?: true;
  /** False under --no-dir. */
  readonly dir?: boolean;
  readonly storeSizeBytes?: number;
  readonly rootless?: true;
  readonly user?: string;
  readonly terminal?: true;
  readonly abort?: readonly string[];
  readonly json?: true;
}

/** What GrootFS takes that has no meaning here: helpers with privileges, where its metrics went, and old drivers. */
const ignoredGlobals = [
  "tardis-bin",
  "drax-bin",
  "btrfs-bin",
  "newuidmap-bin",
  "newgidmap-bin",
  "metron-endpoint",
  "driver",
  "log-timestamp-format",
];

/** The usage of a command as GrootFS prints it. */
export const grootUsage: Readonly<Record<string, string>> = {
  "init-store": "init-store --store <path>",
  "delete-store": "delete-store --store <path>",
  "generate-volume-size-metadata": "generate-volume-size-metadata --store <path>",
  create: "create [options] <image> <id>",
  delete: "delete <id|image path>",
  stats: "stats [options] <id|image path>",
  metrics: "metrics [options] <id>",
  clean: "clean",
  list: "list",
  capacity: "capacity",
  pull: "pull [options] <image>",
  bundle: "bundle [options] <id|image path> <dir>",
  store: "store [options] ingests",
};

/** Declares the options that go with every command of the store. */
export function addStoreGlobals(command: Command): Command {
  command
    .option("--store <dir>", "where the store is")
    .option("--config <file>", "config file, YAML")
    .option("--metrics-file <file>", "keep metrics in this file, in OpenMetrics text")
    .option("--metrics-log <file>", "append metrics to this file, a JSON object a line");
  for (const name of ignoredGlobals) command.addOption(new Option(`--${name} <ignored>`).hideHelp());
  return command;
}

/** Declares the commands. */
export function addStoreCommands(root: Command, program: Program, mountHere?: MountHere): void {
  const int = program === "grootfs" ? goBytes : bytes;
  const command = (name: string, description: string): Command => {
    const made = root
      .command(name)
      .description(description)
      .action(action(program, name, mountHere));
    // GrootFS has them before the command only; ours take them on either side (leading-words.ts).
    if (program === "imgfs") addStoreGlobals(made).addOption(new Option("--log-file <file>").hideHelp());
    return made;
  };
  const mappings = (of: Command): Command =>
    of
      .option(
        "--uid-mapping <n:h:s>",
        "S user ids from N on in the image are the host's from H on (repeatable)",
        collect,
      )
      .option("--gid-mapping <n:h:s>", "the same for group ids", collect);
  const registry = (of: Command): Command =>
    of
      .option(
        "--insecure-registry <host:port>",
        "a registry without a certificate that holds (repeatable)",
        collect,
      )
      .option("--username <name>", "who logs in to the registry")
      .option(
        "--password <password>",
        "with what; other users may see it in the list of processes until it is read",
      )
      .option("--skip-layer-validation", "believe nothing that an oci: layout says of its layers' bytes")
      .addOption(new Option("--no-skip-layer-validation").hideHelp())
      .option(
        "--platform <os/arch[/variant]>",
        "which image of an index with several (default: this machine's)",
      )
      .addOption(
        new Option(
          "--codec <none|zstd[:level]>",
          "how file data is stored; levels 1 to 19, 3 unless given",
        ).default("none"),
      )
      .option("--no-dir", "refuse a directory as image");
  const ofImgfs = (of: Command): Command =>
    program === "grootfs"
      ? of
      : of
          .option("--password-stdin", "read the password from stdin, all of it but a newline at its end")
          .option("--authfile <file>", "logins of registries, in place of all other files of the kind")
          .addOption(
            new Option(
              "--tls-verify <true|false>",
              "check certificates; false: also plain HTTP (default: as registries.conf says)",
            ).choices(["true", "false"]),
          )
          .option("--cert-dir <dir>", "the registry's *.crt, *.cert and *.key (default: those of certs.d)")
          .addOption(
            new Option("--progress <kind>", "how progress is shown")
              .choices(["auto", "tty", "plain", "none"])
              .default("auto"),
          );

  mappings(command("init-store", "make the store, for which an empty or missing folder is taken"))
    .option("--store-size-bytes <size>", "accepted; a store here is as large as its filesystem", int)
    .addOption(new Option("--with-direct-io").hideHelp());
  command("delete-store", "unmount and remove all images, and the store with them");

  const create = command("create", "make a root filesystem of an image, mounted and with a quota")
    .addArgument(new Argument("<image>", "docker://, oci://, a tar, a directory, or what build takes"))
    .addArgument(new Argument("<id>", "its name in the store"))
    .option("--disk-limit-size-bytes <size>", "its quota, with the image in it; 0: none", int)
    .option("--exclude-image-from-quota", "the quota is of the changes alone")
    .addOption(new Option("--no-exclude-image-from-quota").hideHelp())
    .option("--quota-inodes <n>", "limit inodes too (default: one for 4 KiB of the quota)", inodes)
    .addOption(
      new Option(
        "--quota-errno <EDQUOT|ENOSPC>",
        "what a write beyond the quota fails with (default: EDQUOT)",
      ).choices(["EDQUOT", "ENOSPC"]),
    )
    .option("--without-mount", "do not mount; what to mount is in the output")
    .option("--with-mount", "mount, which is the default")
    .option("--with-clean", "start a clean when the image is made")
    .option("--without-clean", "start none, which is the default")
    .option("--threshold-bytes <size>", "the clean's threshold", int)
    .option("--clean-log-file <file>", "where the clean logs to")
    .addOption(
      new Option("--format <json|path>", "what is printed (default: json)").choices(["json", "path"]),
    )
    .option("--devices", "show the image's device nodes");
  ofImgfs(registry(mappings(create)));

  const image = (): Argument => new Argument("<id>", "the image's name in the store, or its path");
  command("delete", "unmount and remove an image; one that is not there is no failure").addArgument(image());
  command("stats", "print what an image takes").addArgument(image());
  command("metrics", "print what an image takes, as GrootFS's first versions did").addArgument(image());
  command("list", "print the path of each image");
  command("clean", "remove layers that no image uses")
    .option("--threshold-bytes <size>", "only when the store measures at least this", int)
    .addOption(
      new Option(
        "--threshold-mode <committed|used>",
        "what is measured: quotas and layers, or what lies on disk (default: committed)",
      ).choices(["committed", "used"]),
    )
    .option("--ignore-image <image>", "keep the layers of this image (repeatable)", collect);
  command("capacity", "print the size of the store");
  ofImgfs(registry(command("pull", "bring an image's layers into the store, and make no root filesystem")))
    .addArgument(new Argument("<image>", "as for create"))
    .option("--disk-limit-size-bytes <size>", "refuse an image that is larger", int)
    .addOption(new Option("--exclude-image-from-quota").hideHelp());
  command("generate-volume-size-metadata", "measure the layers again");
  command("bundle", "write the config.json by which runc and crun run an image")
    .addArgument(image())
    .addArgument(new Argument("<dir>", "folder that takes it"))
    .option("--rootless", "for a user without privileges; the default where you are one")
    .option("-u, --user <user[:group]>", "who runs the command (default: the config's User)")
    .option("-t, --terminal", "the command gets a terminal of its own");
  if (program === "grootfs") return;
  command("store", "list downloads that have not come to their end, or abort some")
    .addArgument(new Argument("<what>", "what of the store").choices(["ingests"]))
    .option("--abort <ref>", "remove what has come of this one, and end who is at it (repeatable)", collect)
    .option("--json", "print one JSON object a line");
}

/** Options stand on the command or before it. */
function action(
  program: Program,
  name: string,
  mountHere: MountHere | undefined,
): (...args: readonly unknown[]) => Promise<void> {
  return async (...args) => {
    const command = args.at(-1) as Command;
    const { runStoreCommand } = await import("./run-command.js");
    await runStoreCommand(program, name, command.args, optionsOf(command), mountHere);
  };
}

/** What was given: a level of the log that nobody gave is the config file's to say. */
export function optionsOf(command: Command): StoreOptions {
  const { logLevel, ...options } = command.optsWithGlobals<StoreOptions>();
  const isGiven = command.parent?.getOptionValueSource("logLevel") !== "default";
  return logLevel !== undefined && isGiven ? { ...options, logLevel } : options;
}

function collect(text: string, earlier: readonly string[] = []): string[] {
  return [...earlier, text];
}

/** A size as people write it; negative ones are refused by who uses them, in GrootFS's words. */
function bytes(text: string): number {
  if (/^-?\d{1,15}$/.test(text)) return Number(text);
  const size = parseSize(text);
  if (size === undefined || !Number.isFinite(size)) {
    throw new InvalidArgumentError("not a size like 10000, 512K or 1.5G.");
  }
  return size;
}

/** A whole number as GrootFS takes it. What is too large for a number here is as good as the largest one. */
function goBytes(text: string): number {
  const value = goInt64(text);
  if (value === undefined) throw new InvalidArgumentError("parse error");
  const most = BigInt(Number.MAX_SAFE_INTEGER);
  return Number(value > most ? most : value < -most ? -most : value);
}
