// Faults on purpose, for tests of crashes and errors: every step that changes the disk passes a named point first, where
// IMGFS_FAULT may end the process or have the step fail. HACKING.md says how it is written.
// Invariant: a point comes right before its step, with nothing on disk changed between the step before and itself.
import { appendFileSync } from "node:fs";
import { Errno, type ErrnoName } from "../base/errno.js";

/** Every point, and the step it precedes. */
export const faultPoints = {
  "setup.folder": "the upper or work directory is made",
  "setup.root": "a new upper gets the attributes of the image's root",
  "setup.mark": "a new upper is marked as ours",
  "setup.drop": "what another upper left in the workdir is removed",
  "setup.format": "the workdir's layout file is made under another name",
  "setup.format-write": "it is written",
  "setup.format-commit": "it gets its name",
  "setup.subdirectory": "a directory of the workdir is made",
  "setup.empty": "what a mount before left in WORK/tmp is removed",
  "setup.sweep": "an entry of the index that nothing needs is removed",
  "setup.probe": "a whiteout is made to see whether that can be done",
  "setup.probe-rename": "it is renamed leaving a whiteout",
  "setup.probe-remove": "what the probe made is removed",
  "setup.convert": "a whiteout file of another overlay is removed, what it says being said in our form",
  "setup.finish-rename": "a rename that a crash interrupted is finished",
  "setup.probe-blocks": "a file is written to see how its blocks are told",
  "setup.costs": "the upper's root says that what costs more than it shows is marked",
  "costs.admit": "the upper's root says that there may be such objects",
  "allocated.note": "a file notes what is to be reserved for it, or has been given back",
  "setup.usage": "what the mount before left of what the upper costs is removed",
  "setup.copied": "a directory of an upper that says nothing of costs is marked as a copy",
  "tree.mark": "the upper is marked with the image that it belongs to",
  "copy-up.stage": "a copy is begun in WORK/tmp",
  "copy-up.data": "its data are copied",
  "copy-up.size": "it gets its size, where it is of metadata only",
  "copy-up.metacopy": "it is marked as that",
  "copy-up.origin": "its origin is written",
  "copy-up.owner": "it gets its owner",
  "copy-up.mode": "it gets its mode",
  "copy-up.xattr": "it gets an xattr",
  "copy-up.copied": "a directory says that it is a copy",
  "copy-up.times": "it gets its times",
  "copy-up.cut": "it is cut where truncate(2) asked for it",
  "copy-up.sync": "it is synced",
  "copy-up.commit": "it appears in the upper",
  "copy-up.parent-times": "its directory gets back the times it had",
  "copy-up.index": "a copy with several names appears in the index",
  "copy-up.link": "it gets one of its names",
  "copy-up.nameless": "the copy of what is open without a name loses its name",
  "copy-up.directory": "the copy of a directory is begun in WORK/tmp",
  "complete.data": "a copy of metadata only gets its data",
  "complete.size": "it is cut",
  "complete.restore": "it gets back the mode and times that writing changed",
  "complete.sync": "it is synced",
  "complete.marks": "the marks of overlayfs are taken off",
  "complete.origin": "its origin no longer says that it has no data",
  "create.make": "an object is made in its place",
  "create.stage": "an object is made in WORK/tmp",
  "create.nest": "a directory with the default ACL to inherit is made in WORK/tmp",
  "create.nest-acl": "it gets the ACL",
  "create.nest-move": "what was made in it leaves it",
  "create.owner": "a new object gets its owner",
  "create.mode": "a new object gets its mode",
  "create.commit": "a staged object appears",
  "create.leftover": "the whiteout it was exchanged with is removed",
  "tmpfile.make": "a file without a name is made",
  "tmpfile.owner": "it gets its owner",
  "tmpfile.mode": "it gets its mode",
  "link.make": "a link is made in its place",
  "link.stage": "a link is made in WORK/tmp",
  "link.commit": "it takes the place of a whiteout",
  "mark.impure": "a directory is marked as one that may hold objects with an origin",
  "mark.opaque": "a directory is marked as opaque",
  "mark.redirect": "an object is marked with its place in the image",
  "mark.whiteouts": "a directory is marked as one that holds whiteouts in xattr form",
  "moved.record": "a moved directory is recorded",
  "moved.forget": "the record of a moved directory is removed",
  "whiteout.make": "a whiteout is made in its place",
  "whiteout.stage": "a whiteout is made in WORK/tmp",
  "whiteout.stage-mark": "a file there is marked as one",
  "whiteout.commit": "it appears under a free name",
  "whiteout.replace": "it takes the place of an object",
  "unlink.remove": "a name that covers nothing is removed",
  "unlink.index": "an object without names leaves the index",
  "rmdir.remove": "a directory that covers nothing is removed",
  "rmdir.move-out": "a directory with whiteouts that covers nothing goes to WORK/tmp",
  "rmdir.leftover": "what was a directory is removed from WORK/tmp",
  "rename.name": "a copy known by the index alone gets the name that is to be moved",
  "rename.empty": "a whiteout of an emptied target is removed",
  "rename.move": "an object is moved",
  "rename.move-whiteout": "an object is moved and leaves a whiteout",
  "rename.exchange": "two objects are exchanged",
  "rename.over-whiteout": "an object is exchanged with the whiteout of its new name",
  "rename.stray": "the whiteout is removed where it covers nothing",
  "rename.note": "an exchange of which one half is to be removed is noted",
  "rename.swap": "the exchange",
  "rename.unnote": "the note is removed",
  "attributes.owner": "the owner of an object of the upper is changed",
  "attributes.mode": "its mode",
  "attributes.size": "its size",
  "attributes.times": "its times",
  "attributes.xattr": "one of its xattrs is set",
  "attributes.remove-xattr": "one of its xattrs is removed",
  "override.allow": "the upper is marked as one in which objects may have overrides, or devices 0:0",
  "override.write": "an object gets an override, or another one",
  "override.mode": "its backing object gets the mode that goes with it",
  "kept.write": "an xattr is kept beside an object",
  "kept.remove": "it is removed",
  "stand-in.stage": "a file that stands for something else is made in WORK/tmp",
  "stand-in.target": "a symlink's target is written to it",
  "stand-in.sync": "it is synced",
  "stand-in.replace": "it takes the place of what it stands for",
  "stand-in.link": "and of its link in the index",
  "leave.mark": "a directory is marked with the name that a rename will leave to a device",
  "leave.device": "the device takes the place of the whiteout that the rename left",
  "leave.unmark": "the mark is removed",
  "data.write": "a file of the upper is written to",
  "data.allocate": "fallocate",
  "data.copy": "copy_file_range",
  "data.sync": "a file or directory is synced",
  "end.usage": "what the upper costs is to be left for the next mount, under another name",
  "end.usage-write": "it is written",
  "end.usage-commit": "it gets its name",
} as const;

export type FaultPoint = keyof typeof faultPoints;

interface Fault {
  /** Undefined for every point, each counted by itself. */
  readonly point: FaultPoint | undefined;
  /** Passes that go on, of each point, before the one at which it happens. */
  readonly skip: number;
  readonly passes: Map<FaultPoint, number>;
  /** 0, or a negative errno for the step. */
  act(point: FaultPoint): number;
}

const EACH = -1;

const armed = parse(process.env["IMGFS_FAULT"]);

/** 0 to go on, or the negative errno that the step which follows is to have had. */
export function fault(point: FaultPoint): number {
  return armed === undefined ? 0 : pass(armed, point);
}

function pass(faults: readonly Fault[], point: FaultPoint): number {
  let result = 0;
  for (const { point: wanted, skip, passes, act } of faults) {
    if (wanted !== undefined && wanted !== point) continue;
    const passed = passes.get(point) ?? 0;
    passes.set(point, passed + 1);
    if (skip === EACH || passed === skip) result = act(point) || result;
  }
  return result;
}

/** `POINT:ACTION[:SKIP]`, separated by commas. Throws an Error that says what is wrong. */
function parse(text: string | undefined): readonly Fault[] | undefined {
  if (text === undefined || text === "") return undefined;
  return text.split(",").map((part) => {
    const [point = "", action = "", skip = "0"] = part.split(":");
    if (point !== "*" && !(point in faultPoints)) throw new Error(`IMGFS_FAULT: no point ${point}`);
    if (!/^\d+$/.test(skip)) throw new Error(`IMGFS_FAULT: ${skip} is not a number of passes`);
    return {
      point: point === "*" ? undefined : (point as FaultPoint),
      skip: action.startsWith("trace=") ? EACH : Number(skip),
      passes: new Map(),
      act: actionOf(action),
    };
  });
}

function actionOf(action: string): Fault["act"] {
  if (action === "kill") {
    return () => {
      process.kill(process.pid, "SIGKILL");
      return 0;
    };
  }
  if (action.startsWith("trace=")) {
    const file = action.slice("trace=".length);
    return (point) => {
      appendFileSync(file, `${point}\n`);
      return 0;
    };
  }
  const errno = Errno[action as ErrnoName];
  if (errno === undefined) throw new Error(`IMGFS_FAULT: no action ${action}`);
  return () => -errno;
}
