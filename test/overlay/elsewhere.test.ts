import { readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { runJob } from "../../src/fuse/job.js";
import { type Job, type Services, SUSPENDED } from "../../src/fuse/operations.js";
import { directory, file } from "../imgfs/support.js";
import { fresh, imageOf, mount } from "./harness.js";

const image = imageOf(directory({ d: directory({ small: file("small") }) }));

/** Services whose helper does nothing until the test does it. */
function idleServices(): Services & { readonly jobs: Job[] } {
  const jobs: Job[] = [];
  return {
    jobs,
    offload: (_q, job) => {
      jobs.push(job);
      return SUSPENDED;
    },
    suspend: (_q, _key, job) => {
      jobs.push(job);
      return SUSPENDED;
    },
    suspendBehind: () => undefined,
    interrupted: () => false,
    invalidateInode: () => 0,
    invalidateEntry: () => 0,
  };
}

const descriptors = (): number => readdirSync("/proc/self/fd").length;

describe("what may take long", () => {
  // A directory was synced by the loop itself; a file's descriptor could be closed while its sync was under way.
  it("is done by a helper on a descriptor of its own, while everything else is served", () => {
    const services = idleServices();
    const fs = mount(image, fresh(), { services });
    const { nodeid, fh } = fs.create("d/new");
    fs.writeId(nodeid, fh, "data");
    const before = descriptors();
    expect(fs.fs.fsync!(fs.q(nodeid), fh, false)).toBe(SUSPENDED);
    expect(fs.fs.fallocate!(fs.q(nodeid), fh, 0, 0, 64 << 20)).toBe(SUSPENDED);
    expect(fs.fs.fsyncdir!(fs.q(fs.nodeid("d")), 0, false)).toBe(SUSPENDED);
    expect(services.jobs.map(({ kind }) => kind)).toEqual(["fsync", "fallocate", "fsync"]);
    fs.write("d/small", "changed");
    expect(fs.names("d")).toEqual(["new", "small"]);
    fs.releaseId(nodeid, fh);
    fs.unlink("d/new");
    expect(services.jobs.map((job) => runJob(job))).toEqual([0, 0, 0]);
    expect(descriptors()).toBeLessThanOrEqual(before);
  });

  it("is not what allocates little", () => {
    const services = idleServices();
    const fs = mount(image, fresh(), { services });
    const { nodeid, fh } = fs.create("d/new");
    expect(fs.fs.fallocate!(fs.q(nodeid), fh, 0, 0, 1 << 20)).toBe(0);
    expect(fs.getattr(nodeid).size).toBe(1 << 20);
    expect(services.jobs).toEqual([]);
  });
});
