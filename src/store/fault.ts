// Faults on purpose, for tests: every step that changes the store passes a named point first, where IMGFS_STORE_FAULT may end
// the process (`POINT:kill`), have the step fail (`POINT:EIO`, or another errno) or wait (`POINT:wait=FIFO`, until somebody
// writes to it). POINT is `*` for each of them, and `POINT:trace=FILE` appends its name to a file.
// Invariant: a point comes right before its step.
import { appendFileSync, readFileSync } from "node:fs";

/** Every point, and the step it precedes. */
export const storeFaultPoints = {
  "init.begin": "an empty folder is marked as a store in the making",
  "init.folder": "a folder of the store is made",
  "init.maps": "the id maps are written",
  "init.format": "the mark gets its name: from here on it is a store",
  "lease.make": "a process registers what it works on",
  "lease.list": "it says which content it needs",
  "ingest.make": "a download is begun",
  "ingest.write": "some of what came is written",
  "ingest.commit": "a download is whole, and what was made of it gets its name",
  "ingest.remove": "a download is removed: it is whole, aborted, or too old",
  "layer.publish": "a converted layer gets its name",
  "source.note": "what a source was, or led to, is noted",
  "index.write": "a merged index is written",
  "index.publish": "it gets its name",
  "image.folder": "the folder of a new image is made",
  "image.write": "a file in it is written",
  "image.publish": "it gets its name",
  "image.mount": "it is mounted",
  "image.complete": "it is noted as complete",
  "delete.unmount": "an image is unmounted",
  "delete.take": "its folder is taken out of the store",
  "delete.remove": "what was taken out is removed",
  "clean.look": "what images need is read, after what leases list",
  "clean.take": "content that nobody needs is taken out",
  "clean.remove": "what was taken out is removed",
  "sweep.remove": "what a dead process has left is removed",
} as const;

export type StoreFaultPoint = keyof typeof storeFaultPoints;

interface Fault {
  readonly point: string;
  readonly action: string;
}

const faults: readonly Fault[] = (process.env["IMGFS_STORE_FAULT"] ?? "")
  .split(",")
  .filter((text) => text !== "")
  .map((text) => {
    const at = text.indexOf(":");
    return { point: text.slice(0, at), action: text.slice(at + 1) };
  });

/** Throws an Error with a `code`, or ends the process, where a test asks for it. */
export function fault(point: StoreFaultPoint): void {
  if (faults.length === 0) return;
  for (const { point: wanted, action } of faults) {
    if (wanted !== point && wanted !== "*") continue;
    if (action.startsWith("trace=")) appendFileSync(action.slice("trace=".length), `${point}\n`);
    else if (action.startsWith("wait=")) readFileSync(action.slice("wait=".length));
    else if (action === "kill") process.kill(process.pid, "SIGKILL");
    else throw Object.assign(new Error(`${action}: fault at ${point}`), { code: action });
  }
}
