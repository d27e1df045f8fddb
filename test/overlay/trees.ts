// The image most overlay tests mount: one of everything, and what each test checks after a change.
import { nameFromText } from "../../src/base/bytes.js";
import { InodeType } from "../../src/imgfs/tree.js";
import { device, directory, file, symlink } from "../imgfs/support.js";
import { imageOf } from "./harness.js";

const capability = Buffer.from("0100000200240000000000000000000000000000", "hex");

export function plainImage(): string {
  const shared = file("shared", { mode: 0o755 });
  return imageOf(
    directory({
      etc: directory(
        {
          motd: file("hello\n", {
            uid: 7,
            gid: 8,
            mode: 0o640,
            mtimeSec: 1_000_000_000,
            mtimeNsec: 123_456_789,
          }),
          passwd: file("root\n"),
          deep: directory({ er: directory({ file: file("deep\n") }) }, { mtimeSec: 5, mtimeNsec: 6 }),
        },
        { mode: 0o750, uid: 1, gid: 2, mtimeSec: 1_100_000_000, mtimeNsec: 7 },
      ),
      bin: directory({
        a: shared,
        b: shared,
        su: file("setuid", {
          mode: 0o4755,
          xattrs: [
            { name: nameFromText("security.capability"), value: capability },
            { name: nameFromText("user.note"), value: Buffer.from("kept") },
          ],
        }),
      }),
      lib: directory({ c: shared }),
      link: symlink("etc/motd", { uid: 3, gid: 4 }),
      pipe: device(InodeType.fifo, 0, { mode: 0o622 }),
      dev: directory({ null: device(InodeType.char, 0x103) }),
      empty: directory({}),
      full: directory({ one: file("1"), two: file("2"), three: file("3") }),
      sparse: file(["head", 1 << 20, "tail"]),
    }),
  );
}
