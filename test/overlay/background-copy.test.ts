import { readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { runJob } from "../../src/fuse/job.js";
import { FATTR_MODE, type Job, type Services, SUSPENDED } from "../../src/fuse/operations.js";
import { directory, file } from "../imgfs/support.js";
import { code, fresh, imageOf, mount } from "./harness.js";

const size = 6 << 20;
const image = imageOf(
  directory({ d: directory({ large: file(Buffer.alloc(size, "x")), small: file("small") }) }),
);

/** Services whose one job runs when the test says so. */
function slowServices(): Services & { finish(status?: number): void; readonly job: Job | undefined } {
  let held: { key: number; job: Job; done: (status: number) => void } | undefined;
  return {
    get job() {
      return held?.job;
    },
    finish(status) {
      const now = held!;
      held = undefined;
      now.done(status ?? runJob(now.job));
    },
    offload: (_q, job) => runJob(job),
    suspend: (_q, key, job, done) => {
      held = { key, job, done };
      return SUSPENDED;
    },
    suspendBehind: (_q, key) => (held?.key === key ? SUSPENDED : undefined),
    interrupted: () => false,
    invalidateInode: () => 0,
    invalidateEntry: () => 0,
  };
}

const suspended = (call: () => unknown): boolean => code(call).startsWith("errno ");

describe("copy-up of a large file", () => {
  it("goes on in the background while everything else is served", () => {
    const upper = fresh();
    const services = slowServices();
    const fs = mount(image, upper, { services, metacopy: false });
    const before = fs.stat("d/large");
    const nodeid = fs.nodeid("d/large");
    expect(suspended(() => fs.openId(nodeid, 1))).toBe(true);
    expect(services.job).toMatchObject({ kind: "copy", sync: true });
    expect(suspended(() => fs.setattr(nodeid, { valid: FATTR_MODE, mode: 0 }))).toBe(true);
    expect(suspended(() => fs.unlink("d/large"))).toBe(true);
    expect(fs.stat("d/large")).toEqual(before);
    expect(fs.readId(nodeid, 0, size - 2).toString()).toBe("xx");
    fs.write("d/small", "changed");
    expect(fs.names("d")).toEqual(["large", "small"]);
    services.finish();
    const fh = fs.openId(nodeid, 1);
    fs.writeId(nodeid, fh, "yy", size - 1);
    expect(fs.stat("d/large")).toMatchObject({ size: size + 1, ino: before.ino });
    fs.unlink("d/large");
    expect(fs.readId(nodeid, fh, size - 2).toString()).toBe("xyy");
    fs.releaseId(nodeid, fh);
  });

  it("tells a failure to those who waited, changes nothing, and can be tried again", () => {
    const upper = fresh();
    const services = slowServices();
    const fs = mount(image, upper, { services, metacopy: false });
    const nodeid = fs.nodeid("d/large");
    expect(suspended(() => fs.openId(nodeid, 1))).toBe(true);
    services.finish(-28);
    expect(code(() => fs.openId(nodeid, 1))).toBe("ENOSPC");
    expect([readdirSync(`${upper}.work/tmp`), readdirSync(`${upper}/d`)]).toEqual([[], []]);
    expect(suspended(() => fs.openId(nodeid, 1))).toBe(true);
    services.finish();
    expect(code(() => fs.openId(nodeid, 1))).toBe("ok");
  });

  it("is not needed to cut the file short", () => {
    const services = slowServices();
    const fs = mount(image, fresh(), { services });
    fs.write("d/large", "new");
    expect(services.job).toBeUndefined();
    expect(fs.read("d/large")).toBe("new");
  });
});
