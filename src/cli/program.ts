// The commands and their options. Each is loaded only when it runs, so that starting costs little.
import { Argument, Command, InvalidArgumentError, Option } from "commander";
import { type LogLevel, logLevels } from "../base/log.js";
import { type IdRange, parseIdMap } from "../daemon/id-maps.js";
import type { MountOptions } from "../daemon/options.js";
import type { MountHere } from "../store/mounts.js";
import { exitCodeHelp, messageOf } from "./failure.js";
import { addStoreCommands } from "./groot/declare.js";
import { print, printError } from "./output.js";
import { addQuotaOptions, inodes, size } from "./quota-options.js";
import { version } from "./version.js";

/** Options that every command takes. */
export interface GlobalOptions {
  readonly logLevel: LogLevel;
  readonly logFormat: "text" | "json";
  readonly log?: string;
  readonly debug?: true;
}

/** Makes a mount that the options describe, and returns the exit code of the command. */
export type StartMount = (options: MountOptions) => Promise<number>;

/** The command tree. `startMount` is what makes a mount in the background, `mountHere` one in this process for `create`. */
export function program(startMount: StartMount, mountHere?: MountHere): Command {
  const root = new Command("imgfs")
    .description("A container image filesystem: OCI images as indexed blobs, mounted copy-on-write by FUSE.")
    .version(version, "-V, --version")
    .helpOption("-h, --help")
    .addOption(
      new Option("--log-level <level>", "how much is logged to stderr")
        .choices([...logLevels])
        .default("warn")
        .env("IMGFS_LOG_LEVEL"),
    )
    .addOption(
      new Option("--log-format <format>", "form of a log line")
        .choices(["text", "json"])
        .default("text")
        .env("IMGFS_LOG_FORMAT"),
    )
    .option("--log <file>", "log to this file instead of stderr (a detached mount never logs to a pipe)")
    .option("--debug", "log level debug, and a stack with an error")
    .exitOverride();

  root
    .command("build")
    .argument("<source>", "a path, or one of the forms below")
    .argument("<dest>", "folder that takes the image, or with --flatten the file", path)
    .description("convert an image's layers into blobs and an index in DEST")
    .option("--flatten", "make one self-contained file with the config inside instead")
    .option("--jobs <n>", "layers converted at a time (default: one a core, at most 4)", positiveInteger)
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
    .option("--username <name>", "who logs in to the registry of a docker:// source; with --password-stdin")
    .option("--password-stdin", "read the password from stdin, all of it but a newline at its end")
    .option("--authfile <file>", "logins of registries, in place of all other files of the kind", path)
    .addOption(
      new Option(
        "--tls-verify <true|false>",
        "check certificates; false: also plain HTTP (default: as registries.conf says)",
      ).choices(["true", "false"]),
    )
    .option("--cert-dir <dir>", "the registry's *.crt, *.cert and *.key (default: those of certs.d)", path)
    .addOption(
      new Option("--progress <kind>", "how progress is shown")
        .choices(["auto", "tty", "plain", "none"])
        .default("auto"),
    )
    .option("--json", "print the result as JSON")
    .addHelpText("after", sourceHelp)
    .action(async (source, dest, _, command) =>
      (await import("./build.js")).build(source, dest, command.optsWithGlobals()),
    );

  root
    .command("flatten")
    .argument("<image>", "image folder, index or flattened file", path)
    .argument("<dest>", "file to make, or to replace if it is an imgfs file", path)
    .description("make one self-contained file of a built image: merged tree, data and config")
    .addOption(
      new Option(
        "--codec <none|zstd[:level]>",
        "how file data is stored; levels 1 to 19, 3 unless given",
      ).default("none"),
    )
    .option("--json", "print the result as JSON")
    .action(async (image, dest, _, command) =>
      (await import("./flatten.js")).flatten(image, dest, command.optsWithGlobals()),
    );

  addQuotaOptions(
    root
      .command("mount")
      .argument("<paths...>", "what build made, or layer blobs with the last on top; then where", paths)
      .usage("[options] IMAGE|BLOB... MOUNTPOINT")
      .description("mount an image, read-only or under a writable upper directory")
      .option("-o <options>", "a comma list of options, as mount(8) has it; see below", collect)
      .option("--upper <dir>", "writable directory that takes all changes (created when missing)", path)
      .option("--work <dir>", "scratch directory on the upper's filesystem (default: UPPER.work)", path),
  )
    .option("--uid-map <c:h:s>", "show S user ids from C on in the image as H and up (repeatable)", idMap)
    .option("--gid-map <c:h:s>", "the same for group ids", idMap)
    .option("--squash-to-root", "show everything as root's, or as what the maps make of root")
    .option("--strict-id-map", "refuse an image with an id that is not in the maps")
    .option("--devices", "show the image's device nodes")
    .addOption(
      new Option(
        "--redirect-dir <on|off>",
        "move directories of the image at once; off: rename(2) says EXDEV",
      )
        .choices(["on", "off"])
        .default("on"),
    )
    .addOption(
      new Option("--metacopy <on|off>", "a change of a file's metadata copies no data; off: it does")
        .choices(["on", "off"])
        .default("on"),
    )
    .option("--volatile", "sync nothing: after a crash of the machine the upper may be damaged")
    .addOption(
      new Option("--writeback <off>", "whether the kernel may keep writes back; it never may yet").choices([
        "off",
      ]),
    )
    .addOption(
      new Option(
        "--passthrough <off>",
        "whether the kernel may read and write without us; it never may yet",
      ).choices(["off"]),
    )
    .option(
      "--verify",
      "check each file's bytes against their digest before they are first read (compressed data always is)",
    )
    .addOption(
      new Option("--transport <kind>", "how requests reach this process (default: direct)").choices([
        "direct",
        "fuse-native",
      ]),
    )
    .option("-f, --foreground", "stay in the foreground until unmounted")
    .option("--pid-file <file>", "write the daemon's pid to this file while it lives", path)
    .option("--stats-on-exit", "print request counters when the mount ends (SIGUSR1 prints them at any time)")
    .addOption(new Option("--sloppy", "drop unknown -o options").hideHelp())
    .addOption(new Option("--fake", "check everything, mount nothing").hideHelp())
    .addHelpText("after", mountHelp)
    .action(async (paths, { o }: { o?: readonly string[] }, command) => {
      const { applyOptions, mount } = await import("./mount.js");
      const listed = applyOptions(command, o ?? []);
      await mount(paths, command.optsWithGlobals(), listed, startMount);
    });

  addQuotaOptions(
    root
      .command("run")
      .argument("<image>", "image folder, index or flattened file", path)
      .argument("[command...]", "what is run in place of the image's own command, and its arguments")
      .usage("[options] IMAGE [-- COMMAND [ARG...]]")
      .description("run a command on an image, in namespaces of its own, and clean up")
      .option(
        "--upper <dir>",
        "directory that takes all changes and stays (default: one that is removed)",
        path,
      )
      .option("--work <dir>", "scratch directory on the upper's filesystem (default: UPPER.work)", path),
  )
    .option("--read-only", "the command can change nothing of the image")
    .option("--bind <host:inside[:ro]>", "show a file or directory of the host inside (repeatable)", collect)
    .option("-e, --env <name[=value]>", "set a variable, or hand on the caller's (repeatable)", collect)
    .option("-w, --workdir <dir>", "where the command starts (default: the config's WorkingDir)", path)
    .option("-u, --user <user[:group]>", "who runs it, by name or number (default: the config's User)")
    .option("--entrypoint <command>", "in place of the config's Entrypoint and Cmd; empty: none")
    .addOption(
      new Option("--network <host|none>", "the caller's network, or none but loopback")
        .choices(["host", "none"])
        .default("host"),
    )
    .option("--hostname <name>", "the host's name inside (default: the caller's)")
    .option("--uid-map <c:h:s>", "S user ids from C on are the host's from H on (repeatable)", idMap)
    .option("--gid-map <c:h:s>", "the same for group ids", idMap)
    .option("--squash-to-root", "show everything as root's")
    .option("--devices", "show the image's device nodes; they work for root alone")
    .option("--volatile", "sync nothing, also where the upper stays; always so where it does not")
    .option("--verify", "check each file's bytes against their digest before they are first read")
    .addOption(
      new Option("--by <program>", "what makes the namespaces (default: whichever works)").choices([
        "unshare",
        "bwrap",
      ]),
    )
    .action(async (image, words, _, command) =>
      (await import("./run.js")).run(image, words, command.optsWithGlobals()),
    );

  root
    .command("umount")
    .argument("<mountpoint>", "where it is mounted", path)
    .description("unmount, and return when the daemon has ended and the upper is free")
    .option("-z, --lazy", "detach now, also while files are open")
    .action(async (mountpoint, _, command) =>
      (await import("./umount.js")).umount(mountpoint, command.optsWithGlobals()),
    );

  root
    .command("quota")
    .argument("<mountpoint>", "where it is mounted", path)
    .description("show what a running mount has used of its quota, or set its limits")
    .option("--set <size>", "limit its bytes from now on: bytes, or K, M, G, T of 1024; or unlimited", size)
    .option("--set-inodes <n>", "limit its inodes from now on, or unlimited", inodes)
    .option("--json", "print the result as JSON")
    .action(async (mountpoint, _, command) =>
      (await import("./quota.js")).quota(mountpoint, command.optsWithGlobals()),
    );

  const status = root
    .command("status")
    .argument("<mountpoint>", "where it is mounted", path)
    .description("show what a running mount does: requests, latencies, caches, quota")
    .option("--watch [seconds]", "again and again, every 2 seconds unless given (--watch=SECONDS)", seconds)
    .option("--json", "print the result as JSON, with --watch one object a line")
    .action(async (mountpoint, _, command) =>
      (await import("./status.js")).status(mountpoint, command.optsWithGlobals()),
    );
  // A word that follows is the mountpoint, not seconds.
  const parseWords = status.parseOptions.bind(status);
  status.parseOptions = (words) => {
    const end = words.includes("--") ? words.indexOf("--") : words.length;
    return parseWords(words.map((word, i) => (word === "--watch" && i < end ? "--watch=2" : word)));
  };

  root
    .command("inspect")
    .argument("<image>", "image folder, index, layer blob or flattened file", path)
    .description("print what an index, blob or flattened file says of itself")
    .option("--config", "print the image's OCI config as it is, and nothing else")
    .option("--json", "print the result as JSON")
    .action(async (image, _, command) =>
      (await import("./inspect.js")).inspect(image, command.optsWithGlobals()),
    );

  root
    .command("ls")
    .argument("<image>", "image folder, index, layer blob or flattened file", path)
    .argument("[path]", "path inside the image", "/")
    .description("list a directory of an image, without mounting it")
    .option("-l, --long", "mode, links, owner, size, time and target of each")
    .option("-R, --recursive", "directories below, too")
    .option("--json", "print one JSON object a line")
    .action(async (image, path, _, command) =>
      (await import("./ls.js")).ls(image, path, command.optsWithGlobals()),
    );

  root
    .command("cat")
    .argument("<image>", "image folder, index, layer blob or flattened file", path)
    .argument("<path>", "path inside the image")
    .description("write a file of an image to stdout, without mounting it")
    .action(async (image, path) => (await import("./cat.js")).cat(image, path));

  root
    .command("extract")
    .argument("<image>", "image folder, index, layer blob or flattened file", path)
    .argument("[paths...]", "DEST [PATH]: an empty or missing directory, and a path inside the image", paths)
    .usage("[options] IMAGE DEST [PATH]\n       imgfs extract --tar IMAGE [PATH] > FILE")
    .description(
      "write the tree of an image, or what is at PATH in it, into a directory or as a tar to stdout",
    )
    .option("--tar", "write a tar to stdout instead (also when DEST is -)")
    .option(
      "--no-same-owner",
      "everything becomes yours; without root that is so for what you cannot give away",
    )
    .option("--no-xattrs", "leave extended attributes out, file capabilities too")
    .option("--json", "print the result as JSON")
    .action(async (image, rest, _, command) =>
      (await import("./extract.js")).extract(image, rest ?? [], command.optsWithGlobals()),
    );

  root
    .command("check")
    .argument("[image]", "image folder, index, layer blob or flattened file", path)
    .description(
      "verify every table, and with --data every byte of content; or an upper directory, or a store",
    )
    .option("--data", "read all file contents and compare their digests")
    .option("--upper <dir>", "verify this upper directory, which no mount may use, against the image", path)
    .option("--work <dir>", "its work directory (default: UPPER.work)", path)
    .option("--store <dir>", "verify the images and the content of this store", path)
    .option("--json", "print the result as JSON")
    .action(async (image, _, command) =>
      (await import("./check.js")).check(image, command.optsWithGlobals()),
    );

  addStoreCommands(root, "imgfs", mountHere);

  root
    .command("du")
    .argument("<upper>", "upper directory; a mount may be using it", path)
    .description("print what an upper directory costs as a quota counts it, the largest directories first")
    .option("--work <dir>", "its work directory (default: UPPER.work)", path)
    .option("--top <n>", "directories listed (default: 20)", positiveInteger)
    .option("--all", "list every directory that costs anything")
    .option("--json", "print the result as JSON")
    .action(async (upper, _, command) => (await import("./du.js")).du(upper, command.optsWithGlobals()));

  root
    .command("completion")
    .addArgument(new Argument("<shell>", "which shell the script is for").choices(["bash", "zsh", "fish"]))
    .description("print a script by which a shell completes commands, options and paths")
    .action(async (shell) => (await import("./completion.js")).completion(shell, root));

  root
    .command("version")
    .description("print versions")
    .option("--json", "print the result as JSON")
    .action(async (_, command) => (await import("./version.js")).printVersion(command.optsWithGlobals()));

  for (const command of [root, ...root.commands]) {
    command
      .exitOverride()
      .addHelpText("after", command.name() === "run" ? runHelp : exitCodeHelp)
      .configureOutput({
        writeOut: print,
        outputError: (text) => printError(text.replace(/^error: /, "imgfs: ")),
      });
  }
  return root;
}

const sourceHelp = `
Sources:
  PATH[:TAG]                 whichever of these PATH is; any folder that is none of them is a tree
  oci:DIR[:TAG]              OCI image layout
  oci-archive:FILE[:TAG]     the same in a tar archive (skopeo, buildah, podman save)
  docker-archive:FILE[:REF]  what docker save writes
  dir:PATH                   folder that skopeo wrote; any other one is a tree that becomes one layer
  tar:FILE                   one layer
  docker://NAME[:TAG|@DIGEST]  image in a registry: [HOST[:PORT]/]NAME, of docker.io unless HOST is given
TAG and REF may also be @DIGEST or @N, the place in the list of images. Archives may be compressed.`;

/** An empty path would mean the current directory: what an unset shell variable must never do. */
function path(text: string): string {
  if (text === "") throw new InvalidArgumentError("an empty path.");
  return text;
}

function paths(text: string, earlier: readonly string[] = []): string[] {
  return [...earlier, path(text)];
}

function idMap(text: string, earlier: readonly IdRange[] | undefined): IdRange[] {
  try {
    return parseIdMap(text, earlier);
  } catch (cause) {
    throw new InvalidArgumentError(`${messageOf(cause)}.`);
  }
}

function collect(text: string, earlier: readonly string[] = []): string[] {
  return [...earlier, text];
}

const mountHelp = `
Options of -o: every long option above by its name (upper=DIR, devices, log-level=debug, ...), and
  upperdir=DIR workdir=DIR     the same as upper and work
  lowerdir=IMAGE[:IMAGE...]    the images, the topmost first; then MOUNTPOINT stands alone
  ro                           read-only, also with an upper directory, whose changes show
  rw                           the default with an upper directory; without one it means nothing
  [no]dev [no]suid [no]exec sync async dirsync [no]symfollow [no]atime [no]diratime [no]relatime
  [no]strictatime [no]lazytime max_read=BYTES
                               as mount(8) has them; given to the kernel
  [no]allow_other              let other users in; the default only where mounting is not left to
                               fusermount3, which asks for user_allow_other in /etc/fuse.conf
  fsname=NAME subtype=NAME     shown as device and, after "fuse.", as type
Ignored: defaults, auto, user, users, owner, group (also with no), nofail, _netdev, x-*, comment,
default_permissions (always on). In a value \\, is a comma and \\\\ a backslash.
MOUNTPOINT /dev/fd/N is /dev/fuse, opened and mounted by the caller.`;

const runHelp = `
Exit codes: the command's own, 128 and the signal's number where a signal ended it, 125 where imgfs failed,
126 where the command cannot be run, 127 where it is not there.`;

/** From a tenth of a second to a day. */
function seconds(text: string): number {
  const count = /^\d{1,5}(\.\d{1,3})?$/.test(text) ? Number(text) : 0;
  if (count < 0.1 || count > 86_400) throw new InvalidArgumentError("not a number of seconds, 0.1 to 86400.");
  return count;
}

function positiveInteger(text: string): number {
  if (!/^[1-9][0-9]{0,5}$/.test(text)) throw new InvalidArgumentError("not a positive whole number.");
  return Number(text);
}
