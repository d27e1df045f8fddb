// Code that does everything wrong, to see that it is found: seed 1 contradicts itself, 2 leaks an exception of the
// engine's, 3 ends the process, 4 reads beyond a buffer, 5 never ends; others are fine.
import { addressOf } from "../../src/sys/library.js";
import { regionAt } from "../../src/sys/memory.js";
import { Fence } from "./fence.js";
import { type Kind, must } from "./kind.js";

export const brokenKind: Kind = {
  name: "broken",
  make: (seed) => ({ label: "seed", bytes: Buffer.from([seed]) }),
  run({ bytes }) {
    const [seed] = bytes;
    must(seed !== 1, "seed 1 is wrong");
    if (seed === 2) (undefined as unknown as Buffer).fill(0);
    if (seed === 3) process.kill(process.pid, "SIGKILL");
    if (seed === 4) {
      const held = new Fence(100).take(100);
      must(regionAt(addressOf(held), 101).bytes[100] === 0, "a byte where there is none");
    }
    while (seed === 5);
  },
};
