// The `bundle` command: a config.json by which runc and crun run what create has mounted.
import { existsSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { nameFromText } from "../../base/bytes.js";
import { makeFolders } from "../../base/folders.js";
import { readPlain } from "../../base/plain.js";
import type { IdRange } from "../../daemon/id-maps.js";
import { isOurs } from "../../daemon/place.js";
import { findAccount } from "../../run/account.js";
import { commandOf } from "../../run/command.js";
import { insideRoot } from "../../run/inside-root.js";
import { RunFailure } from "../../run/request.js";
import { findCommand } from "../../run/start-command.js";
import { readImage } from "../../store/images.js";
import { mountpointOf } from "../../store/mounts.js";
import { readMounts } from "../../sys/mountinfo.js";
import { messageOf } from "../failure.js";
import type { Caller } from "./caller.js";
import type { Maps } from "./maps.js";
import { runtimeConfig } from "./runtime-config.js";
import { StoreFailure } from "./store-failure.js";
import { openImage, type StoredImage } from "./stored.js";

export async function bundle(caller: Caller): Promise<void> {
  const { args, options } = caller;
  const [name = "", folder = ""] = args;
  const { store, image } = await openImage(caller, name);
  const state = readImage(store, image.id)?.state;
  const file = join(resolve(folder), "config.json");
  if (!isOurs(readMounts(), nameFromText(mountpointOf(image.path)))) {
    throw new StoreFailure(`image ${image.id} is not mounted`, {
      hint: "create it without --without-mount",
    });
  }
  if (existsSync(file)) throw new StoreFailure(`${file} is there already`);
  const rootless = options.rootless === true || process.geteuid?.() !== 0;
  let config: object;
  try {
    config = configOf(
      image,
      rootless,
      mapsOf({ uid: state?.uidMap ?? [], gid: state?.gidMap ?? [] }, rootless),
      caller,
    );
  } catch (cause) {
    if (!(cause instanceof RunFailure)) throw cause;
    throw new StoreFailure(`image ${image.id}: ${cause.message}`);
  }
  write(folder, file, `${JSON.stringify(config, undefined, 2)}\n`);
}

function configOf(
  image: StoredImage,
  rootless: boolean,
  maps: Maps | undefined,
  { options }: Caller,
): object {
  const { rootfs } = image;
  const terminal = options.terminal === true;
  const given = { words: [], env: [], user: options.user };
  const command = commandOf(Buffer.from(readPlain(image.configFile)), given, process.env, terminal);
  const at = (path: string): string =>
    insideRoot(rootfs, path.startsWith("/") ? path : `${command.workdir}/${path}`);
  const textOf = (path: string): string => {
    const file = at(path);
    return statSync(file, { throwIfNoEntry: false })?.isFile() ? readFileSync(file, "latin1") : "";
  };
  const { uid, gid, groups, home } = findAccount(command.user, textOf("/etc/passwd"), textOf("/etc/group"));
  if (maps !== undefined) {
    checkMapped("user", uid, maps.uid);
    checkMapped("group", gid, maps.gid);
  }
  const env: Record<string, string> = { HOME: home, ...command.env };
  const { args } = findCommand(command.words, env["PATH"] ?? "", at);
  const reachable = maps === undefined ? groups : groups.filter((each) => isMapped(each, maps.gid));
  return runtimeConfig({
    process: { command: { ...command, env }, args, uid, gid, groups: rootless ? [] : reachable, terminal },
    rootfs,
    hostname: hostnameOf(image.id),
    rootless,
    ...(maps === undefined ? {} : { maps }),
  });
}

/** The image's maps are those of the container's user namespace; without any, a user without privileges has one id. */
function mapsOf(maps: Maps, rootless: boolean): Maps | undefined {
  if (maps.uid.length > 0 || maps.gid.length > 0) {
    return {
      uid: maps.uid.length > 0 ? maps.uid : maps.gid,
      gid: maps.gid.length > 0 ? maps.gid : maps.uid,
    };
  }
  if (!rootless) return undefined;
  return {
    uid: [{ image: 0, host: process.geteuid?.() ?? 0, count: 1 }],
    gid: [{ image: 0, host: process.getegid?.() ?? 0, count: 1 }],
  };
}

function isMapped(id: number, map: readonly IdRange[]): boolean {
  return map.some(({ image, count }) => image <= id && id < image + count);
}

function checkMapped(kind: string, id: number, map: readonly IdRange[]): void {
  if (!isMapped(id, map)) throw new RunFailure(`${kind} ${id} is not in the image's id maps (--user 0 is)`);
}

/** An id may have anything in it and be long; a host's name may not. */
function hostnameOf(id: string): string {
  return id.replace(/[^\w.-]/g, "-").slice(0, 63);
}

function write(folder: string, file: string, text: string): void {
  const staged = `${file}.${process.pid}.new`;
  try {
    makeFolders(folder);
    writeFileSync(staged, text, { flag: "wx", mode: 0o644 });
    renameSync(staged, file);
  } catch (cause) {
    rmSync(staged, { force: true });
    throw new StoreFailure(`cannot write ${file}: ${messageOf(cause)}`);
  }
}
