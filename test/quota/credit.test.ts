// When what was charged is given back.
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createLedgerMemory, Ledger } from "../../src/quota/ledger.js";
import { directory } from "../imgfs/support.js";
import { fresh, imageOf, type Mounted, mount } from "../overlay/harness.js";

const BLOCK = 4096;
const PUNCH = 0x03;
const image = imageOf(directory({ d: directory({}) }));

function limited(upper = fresh()): { fs: Mounted; ledger: Ledger; upper: string } {
  const memory = createLedgerMemory();
  const limits = { mode: "exclusive", bytes: 1 << 20, inodes: 100, errno: "EDQUOT" } as const;
  return {
    fs: mount(image, upper, { quota: { ...limits, imageBytes: 0, ledger: memory } }),
    ledger: new Ledger(memory),
    upper,
  };
}

describe("credit", () => {
  // The file was measured after the punch, and the hole never given back.
  it("comes for a hole in a file that an earlier mount has written", () => {
    const { fs: before, upper } = limited();
    before.write("d/new", Buffer.alloc(3 * BLOCK, "x"));
    before.close();
    const { fs, ledger } = limited(upper);
    expect(ledger.bytes).toBe(3 * BLOCK);
    expect(fs.fs.fallocate!(fs.q(fs.nodeid("d/new")), 0, PUNCH, BLOCK, BLOCK)).toBe(0);
    expect(ledger.bytes).toBe(2 * BLOCK);
  });

  // The kernel keeps a directory for as long as a file is open that was in it, and says so only then.
  it("comes with rmdir, though the kernel knows the directory still", () => {
    const { fs, ledger } = limited();
    fs.mkdir("d/sub");
    const { nodeid, fh } = fs.create("d/sub/open");
    fs.unlink("d/sub/open");
    expect([ledger.bytes, ledger.inodes]).toEqual([BLOCK, 2]);
    fs.rmdir("d/sub");
    expect([ledger.bytes, ledger.inodes]).toEqual([0, 1]);
    fs.releaseId(nodeid, fh);
    fs.forget(nodeid, 100);
    expect([ledger.bytes, ledger.inodes]).toEqual([0, 0]);
  });

  // Not measured before the change, they were never given back.
  it("comes for xattrs that an earlier mount has set, and smaller ones replace", () => {
    // ext4 has room for few; tmpfs, since Linux 6.6, for as many as anybody likes.
    const folder = mkdtempSync("/dev/shm/imgfs-credit-");
    try {
      const { fs: before, upper } = limited(join(folder, "upper"));
      before.create("d/new");
      before.setxattr("d/new", "user.large", Buffer.alloc(9000));
      before.close();
      const { fs, ledger } = limited(upper);
      expect(ledger.bytes).toBe(2 * BLOCK);
      fs.setxattr("d/new", "user.large", Buffer.alloc(3000));
      expect(ledger.bytes).toBe(0);
      fs.close();
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
