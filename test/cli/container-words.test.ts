import { expect, it } from "vitest";
import { containerWords } from "../../src/cli/container-words.js";
import { program } from "../../src/cli/program.js";

const root = program(async () => 0);
const words = (text: string): string | undefined => containerWords(root, text.split(" "))?.join(" ");

it.each([
  ["run image ls -l", "run image -- ls -l"],
  ["run image ls --debug -- x", "run image -- ls --debug -- x"],
  ["run --upper up -e A=1 --read-only image ls", "run --upper up -e A=1 --read-only image -- ls"],
  [
    "--log-level debug run --upper=up -eA=1 image ls -u",
    "--log-level debug run --upper=up -eA=1 image -- ls -u",
  ],
  ["--debug run --log-format json image -- ls", "--debug run --log-format json image -- ls"],
  ["run image", "run image"],
  ["run -- image ls", "run -- image ls"],
  ["run --help", "run --help"],
  ["run", "run"],
])("%s is read as %s", (typed, read) => {
  expect(words(typed)).toBe(read);
});

it("leaves other commands alone", () => {
  for (const text of ["mount run image", "ls run -l", "--version", "--log-level run mount a b"]) {
    expect(words(text)).toBeUndefined();
  }
});
