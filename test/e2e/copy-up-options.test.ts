// How much a change of the image's objects copies, and the options that say so: redirect-dir, metacopy, volatile.
import { chmodSync, lstatSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { noise } from "./make-image.js";
import { build, cannotMount, imgfs, mount, scratch, titleOf } from "./mounted.js";
import { writeLayout } from "./oci-writer.js";
import { layerTar } from "./tar-writer.js";

const size = 8 << 20;
const data = noise(size);

describe.skipIf(cannotMount !== undefined)(titleOf("a writable mount", cannotMount), () => {
  let image: string;
  beforeAll(async () => {
    const layout = scratch("layout");
    writeLayout(layout, [
      layerTar([
        { name: "dir", type: "dir" },
        { name: "dir/large", data },
        { name: "dir/deep", type: "dir" },
        { name: "dir/deep/file", data: Buffer.from("deep\n") },
      ]),
    ]);
    image = await build(`oci:${layout}`);
  });

  it("moves a directory of the image and changes metadata without copying data, also after a remount", async () => {
    const upper = scratch("upper");
    let m = await mount(image, "--upper", upper);
    renameSync(m.at("dir"), m.at("moved"));
    chmodSync(m.at("moved/large"), 0o600);
    renameSync(m.at("moved/large"), m.at("moved/deep/large"));
    await m.unmount();
    expect(lstatSync(join(upper, "moved/deep/large")).blocks * 512).toBeLessThan(16384);
    m = await mount(image, "--upper", upper);
    expect(readdirSync(m.path)).toEqual(["moved"]);
    expect(readdirSync(m.at("moved/deep")).sort()).toEqual(["file", "large"]);
    expect(readFileSync(m.at("moved/deep/large")).equals(data)).toBe(true);
    expect(lstatSync(m.at("moved/deep/large"))).toMatchObject({ mode: 0o100600, size, blocks: size / 512 });
    writeFileSync(m.at("moved/deep/large"), "X", { flag: "r+" });
    const changed = readFileSync(m.at("moved/deep/large"));
    expect([changed.length, changed[0], changed.subarray(1).equals(data.subarray(1))]).toEqual([
      size,
      88,
      true,
    ]);
    await m.unmount();
    expect(readFileSync(join(upper, "moved/deep/large")).equals(changed)).toBe(true);
  });

  it("does neither where it is told not to, as flags or as mount options", async () => {
    for (const options of [
      ["--redirect-dir=off", "--metacopy=off", "--volatile"],
      ["-o", "redirect_dir=off,metacopy=off,volatile"],
    ]) {
      const upper = scratch("upper");
      const m = await mount(image, "--upper", upper, ...options);
      expect(() => renameSync(m.at("dir"), m.at("moved"))).toThrow(/EXDEV/);
      chmodSync(m.at("dir/large"), 0o600);
      await m.unmount();
      expect(readFileSync(join(upper, "dir/large")).equals(data)).toBe(true);
    }
    expect(await imgfs("mount", image, scratch("mnt"), "--metacopy=maybe")).toMatchObject({ code: 2 });
  });

  it.each(["writeback", "passthrough"])(
    "takes --%s off, as flag and by -o, and no other word",
    async (name) => {
      await (await mount(image, `--${name}`, "off")).unmount();
      await (await mount(image, "-o", `${name}=off`)).unmount();
      for (const words of [
        [`--${name}`, "on"],
        ["-o", `${name}=on`],
      ]) {
        const { code, stderr } = await imgfs("mount", image, scratch("mnt"), ...words);
        expect(code).toBe(2);
        expect(stderr).toMatch(
          new RegExp(`^imgfs: option '--${name} <off>' [^\\n]*invalid[^\\n]* off\\.\\n$`),
        );
      }
    },
  );
});
