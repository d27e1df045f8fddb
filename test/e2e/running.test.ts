// docs/running.md as an ordinary user: what people copy from there works.
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { cannotMount, titleOf } from "./mounted.js";
import { makeCorner } from "./private.js";
import { buildRunnable } from "./run-image.js";

const guide = readFileSync(resolve(import.meta.dirname, "../../docs/running.md"), "utf8");

const said: Readonly<Record<string, string>> = {
  Try: "hello from 0\nservus from 0\nof the image\nthrough a pipe\n",
  Keep: "kept\nkept\n",
  Limit: "full\nDisk quota exceeded\n256\n8.00 KiB (8192 bytes), 3 inodes\n",
  Share: "of the host\nof the image\n",
};

describe.skipIf(cannotMount)(titleOf("docs/running.md", cannotMount), () => {
  it("has commands that do what it says", async () => {
    const image = await buildRunnable({
      Cmd: ["/bin/sh", "-c", "echo $GREETING from $(id -u)"],
      Env: ["GREETING=hello", "PATH=/bin:/usr/bin"],
    });
    const blocks = [...guide.matchAll(/^## (.*?)\n.*?^```sh\n(.*?)^```$/gms)];
    expect(blocks.map(([, heading]) => heading)).toEqual(Object.keys(said));
    for (const [, heading = "", script = ""] of blocks) {
      const corner = makeCorner();
      const outcome = await corner.asUser(`ln -s '${image}' image\n${script}`);
      expect(outcome, join(heading, script)).toEqual({
        code: 0,
        signal: null,
        stdout: said[heading],
        stderr: "",
      });
    }
  });
});
