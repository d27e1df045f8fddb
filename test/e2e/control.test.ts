// `imgfs quota` and `imgfs status` on running mounts: what they say, what they set, whom they find and whom they refuse.
import { appendFileSync, readdirSync, readFileSync, statfsSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { join, resolve } from "node:path";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { noise } from "./make-image.js";
import {
  build,
  cannotMount,
  command,
  imgfs,
  isRunning,
  mount,
  mountAt,
  type Outcome,
  run,
  scratch,
  scratchDirectory,
  shell,
  titleOf,
  until,
} from "./mounted.js";
import { writeLayout } from "./oci-writer.js";
import { type Corner, makeCorner } from "./private.js";
import { buildRunnable } from "./run-image.js";
import { layerTar } from "./tar-writer.js";
import { transports } from "./transports.js";

const ID = 54_242;
const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
const driver = join(import.meta.dirname, "terminal.py");
const size = 3 << 20;

it.runIf(inCi)("asking a running mount is tested in CI", () => expect(cannotMount).toBeUndefined());

let image: string;

describe.skipIf(cannotMount)(titleOf("a running mount", cannotMount), () => {
  beforeAll(async () => {
    const layout = scratch("layout");
    const open = { mode: 0o777 };
    writeLayout(layout, [
      layerTar([
        { name: "./", type: "dir", ...open },
        { name: "dir/", type: "dir", ...open },
        { name: "dir/file", data: Buffer.from("of the image\n"), mode: 0o666 },
        { name: "dir/large", data: noise(size) },
      ]),
    ]);
    image = await build(`oci:${layout}`);
    await shell(`chmod -R a+rX '${image}'`);
  });

  /** What a command prints as JSON; it must end well and say nothing on stderr. */
  async function json(...words: readonly string[]): Promise<Record<string, unknown>> {
    const outcome = await imgfs(...words, "--json");
    expect(outcome).toMatchObject({ code: 0, stderr: "" });
    return JSON.parse(outcome.stdout) as Record<string, unknown>;
  }

  /** One line on stderr, nothing on stdout. */
  async function refused(code: number, line: RegExp, ...words: readonly string[]): Promise<void> {
    const outcome = await imgfs(...words);
    expect(outcome).toMatchObject({ code, stdout: "" });
    expect(outcome.stderr).toMatch(/^[^\n]+\n$/);
    expect(outcome.stderr).toMatch(line);
  }

  describe.each(transports)("with a quota, by $name", (transport) => {
    it("says what is used and left, and takes other limits, which df and writes go by at once", async () => {
      const m = await transport.mount(image, "--upper", scratch("upper"), "--quota", "1M");
      writeFileSync(m.at("dir/new"), Buffer.alloc(10_000));
      const quota = { schemaVersion: 1, mode: "exclusive", bytes: 12_288, inodes: 1, imageBytes: size + 13 };
      expect(await json("quota", m.path)).toEqual({
        ...quota,
        byteLimit: 1 << 20,
        bytesLeft: (1 << 20) - 12_288,
        inodeLimit: 1024,
        inodesLeft: 1023,
      });
      const lowered = { byteLimit: 16_384, bytesLeft: 4096, inodeLimit: 3, inodesLeft: 2 };
      expect(await json("quota", m.path, "--set", "16k", "--set-inodes", "3")).toEqual({
        ...quota,
        ...lowered,
      });
      const { bsize, blocks, bavail, files, ffree } = statfsSync(m.path);
      expect([blocks * bsize, bavail * bsize, files, ffree]).toEqual([16_384, 4096, 3, 2]);
      appendFileSync(m.at("dir/new"), Buffer.alloc(2_288));
      expect(errnoOf(() => appendFileSync(m.at("dir/new"), Buffer.alloc(4_097)))).toBe(
        constants.errno.EDQUOT,
      );
      // Below what is used already: what is there stays, and nothing more comes.
      expect(await json("quota", m.path, "--set", "1")).toMatchObject({ byteLimit: 1, bytesLeft: 0 });
      expect(errnoOf(() => writeFileSync(m.at("more"), "x"))).toBe(constants.errno.EDQUOT);
      const none = { byteLimit: null, bytesLeft: null, inodeLimit: null, inodesLeft: null };
      expect(await json("quota", m.path, "--set", "unlimited", "--set-inodes", "unlimited")).toMatchObject(
        none,
      );
      writeFileSync(m.at("large"), Buffer.alloc(2 << 20));
      const shown = await imgfs("quota", m.path);
      expect(shown).toMatchObject({ code: 0, stderr: "" });
      expect(shown.stdout.split("\n").map((line) => line.trim().split(/ {2,}/))).toEqual([
        ["exclusive: of what the upper directory takes"],
        ["used", "limit", "left"],
        ["bytes", "2 MiB", "unlimited", "unlimited"],
        ["inodes", "3", "unlimited", "unlimited"],
        [""],
      ]);
      await m.unmount();
    });
  });

  it("with an inclusive quota counts the image, and takes no limit below it", async () => {
    const m = await mount(image, "--upper", scratch("upper"), "--quota", "4M", "--quota-mode", "inclusive");
    const imageBytes = size + 13;
    expect(await json("quota", m.path)).toMatchObject({ mode: "inclusive", bytes: imageBytes, imageBytes });
    await refused(
      1,
      /: disk limit is smaller than volume size \(1048576 bytes, the image has \d+\)$/m,
      "quota",
      m.path,
      "--set",
      "1M",
    );
    expect(await json("quota", m.path, "--set", String(imageBytes))).toMatchObject({
      byteLimit: imageBytes,
      bytesLeft: 0,
    });
    expect((await imgfs("quota", m.path)).stdout).toMatch(
      /^inclusive: of the image and [^\n]*; 3 MiB of it the image's\n/,
    );
    await m.unmount();
  });

  it("without a quota refuses to show and to set one, by one line", async () => {
    const m = await mount(image, "--upper", scratch("upper"));
    const line = new RegExp(`^imgfs: quota: ${m.path}: the mount has no quota\n$`);
    await refused(1, line, "quota", m.path);
    await refused(1, line, "quota", m.path, "--json");
    await refused(1, line, "quota", m.path, "--set", "1G");
    await refused(1, line, "quota", m.path, "--set-inodes", "unlimited");
    await m.unmount();
  });

  it.each([
    ["quota", "--set", "0"],
    ["quota", "--set", "1X"],
    ["quota", "--set-inodes", "1.5"],
    ["status", "--watch=0"],
    ["status", "--watch=soon"],
  ])("refuses wrong usage: %s %s %s", async (...words) => {
    await refused(2, /invalid/, ...words, "/mnt");
  });

  it("is told from what is none: other folders, other mounts, nothing, also where another mount hangs", async () => {
    const m = await mount(image);
    await json("status", m.path);
    process.kill(m.pid, "SIGSTOP");
    for (const name of ["quota", "status"]) {
      const folder = scratchDirectory("folder");
      await refused(1, new RegExp(`^imgfs: ${name}: ${folder}: not an imgfs mount$`, "m"), name, folder);
      await refused(1, new RegExp(`^imgfs: ${name}: /proc: not an imgfs mount$`, "m"), name, "/proc");
      await refused(
        1,
        new RegExp(`^imgfs: ${name}: ${folder}/none: no such file`, "m"),
        name,
        `${folder}/none`,
      );
    }
  });

  it("whose process is killed or stopped is a clear refusal, not a hang", async () => {
    const m = await mount(image);
    await json("status", m.path);
    process.kill(m.pid, "SIGSTOP");
    await refused(1, /: its process does not answer$/m, "status", m.path);
    process.kill(m.pid, "SIGCONT");
    const watched = await shell(`
      out='${scratch("out")}'; : > "$out"
      '${command}' status '${m.path}' --watch=0.1 > "$out" & pid=$!
      until grep -q requests "$out"; do sleep 0.05; done
      kill -STOP ${m.pid}; sleep 0.3; kill -TERM $pid; wait $pid; echo $?`);
    expect(watched).toBe("0\n");
    process.kill(m.pid, "SIGKILL");
    await until("it has ended", () => !isRunning(m.pid));
    await refused(1, /: its process is gone \(imgfs umount takes the mount away\)$/m, "status", m.path);
    await imgfs("umount", m.path);
  });

  it("is found through symlinks, from within, and under names with blanks, and does nothing to a terminal", async () => {
    const folder = scratchDirectory("a b\u001b[2J");
    const m = await mountAt(folder, image);
    const link = scratch("link");
    await shell(`ln -s '${folder}' '${link}'`);
    expect(await json("status", link)).toMatchObject({ mountpoint: folder, pid: m.pid });
    const inside = await run(command, ["status", ".", "--json"], { cwd: folder });
    expect(inside).toMatchObject({ code: 0, stderr: "" });
    expect(JSON.parse(inside.stdout)).toMatchObject({ mountpoint: folder, pid: m.pid });
    expect((await imgfs("status", link)).stdout).toContain(`${folder.replace("\u001b", "?")}\n`);
    await m.unmount();
  });

  describe.each(transports)("by $name", (transport) => {
    it("says what it is, does and holds; every key is described in docs/control-socket.md", async () => {
      const upper = scratch("upper");
      const m = await transport.mount(image, "--upper", upper, "--quota", "1G");
      for (const name of readdirSync(m.at("dir"))) readFileSync(m.at(`dir/${name}`));
      expect(() => readFileSync(m.at("none"))).toThrow(/ENOENT/);
      const status = await json("status", m.path);
      expect(status).toMatchObject({
        pid: m.pid,
        mountpoint: m.path,
        sources: [image],
        upper,
        readOnly: false,
        transport: transport.name,
        quota: { mode: "exclusive", bytes: 0, byteLimit: 1 << 30 },
        requests: { waiting: 0 },
        caches: { inodes: expect.any(Number), descriptorLimit: 512 },
      });
      const { opcodes } = status["requests"] as {
        opcodes: { opcode: string; requests: number; latency: object }[];
      };
      const read = opcodes.find(({ opcode }) => opcode === "READ");
      expect(read?.requests).toBeGreaterThan(0);
      expect(read?.latency).toMatchObject({ mean: expect.any(Number), p50: expect.any(Number) });
      const described = readFileSync(resolve(import.meta.dirname, "../../docs/control-socket.md"), "utf8");
      const keys = keysOf({ ...status, ...(await json("quota", m.path)) });
      expect(keys.length).toBeGreaterThan(35);
      expect(keys.filter((key) => !described.includes(`\`${key}\``))).toEqual([]);
      const text = (await imgfs("status", m.path)).stdout;
      expect(text).toMatch(new RegExp(`^mount +${m.path}\nprocess +${m.pid}, up `));
      expect(text).toMatch(/^quota +exclusive: 0 B of 1 GiB, 0 of 262144 inodes$/m);
      expect(text).toMatch(/^READ +\d+ +0( +[\d.]+ (us|ms|s)){4}$/m);
      await m.unmount();
    });
  });

  it("of a compressed image tells of its decoded frames", async () => {
    const flat = scratch("flat.imgfs");
    await shell(`'${command}' flatten '${image}' '${flat}' --codec zstd >/dev/null`);
    const m = await mount(flat);
    readFileSync(m.at("dir/large"));
    const { caches } = (await json("status", m.path)) as { caches: Record<string, number> };
    expect(caches["framesDecoded"]).toBeGreaterThanOrEqual(size / (128 << 10));
    expect(caches["frames"]).toBeGreaterThan(0);
    expect(caches["frames"]).toBeLessThanOrEqual(caches["frameLimit"] as number);
    expect((await imgfs("status", m.path)).stdout).toMatch(/^decoded +\d+ of 64 frames held, /m);
    await m.unmount();
  });

  it("watched prints one JSON object a line, and ends well with the mount", async () => {
    const m = await mount(image);
    const said = await shell(`
      out='${scratch("out")}'; : > "$out"
      '${command}' status '${m.path}' --watch=0.1 --json > "$out" 2>&1 & pid=$!
      until test $(wc -l < "$out") -ge 2; do sleep 0.05; done
      cat '${m.path}/dir/file' > /dev/null; seen=$(wc -l < "$out")
      until test $(wc -l < "$out") -ge $((seen + 2)); do sleep 0.05; done
      '${command}' umount '${m.path}'; wait $pid; echo "{\\"code\\":$?}"; cat "$out"`);
    const [end, ...lines] = said
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line));
    expect(end).toEqual({ code: 0 });
    expect(lines.length).toBeGreaterThan(1);
    for (const line of lines) expect(line).toMatchObject({ schemaVersion: 1, pid: m.pid });
    expect(lines.at(-1).requests.total).toBeGreaterThan(lines[0].requests.total);
  });

  it("watched on a terminal draws over what it drew, and ends well by ctrl-C", async () => {
    const m = await mount(image);
    // A word after --watch is the mountpoint.
    const steps = [{ expect: "a second)" }, { expect: "a second)" }, { send: "\u0003" }];
    const { code, stdout } = await run("python3", [
      driver,
      JSON.stringify(steps),
      command,
      "status",
      "--watch",
      m.path,
    ]);
    expect(code).toBe(0);
    expect(stdout.split("\u001b[H").length).toBeGreaterThan(3);
    expect(stdout).toContain(`${m.path}\u001b[K`);
    const piped = await run("sh", ["-euc", '"$0" status "$1" --watch=0.1 | head -n 3', command, m.path]);
    expect(piped).toMatchObject({ code: 0, stderr: "" });
    await m.unmount();
  });

  it("that somebody else has mounted is found, too", async () => {
    const corner = makeCorner();
    const { code, stdout, stderr } = await corner.asRoot(`
      mkdir a; exec 7<>/dev/fuse
      mount -i -t fuse.imgfs -o fd=7,rootmode=40000,user_id=0,group_id=0 mine a
      imgfs mount '${image}' /dev/fd/7 --pid-file pid --upper up --quota 1M
      exec 7>&-
      imgfs quota a --set 2M | grep bytes
      imgfs status a | grep -c "$(cat pid), up"
      umount a`);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/^bytes +0 B +2 MiB +2 MiB\n1\n$/);
  });

  it("of imgfs run is found by the mountpoint that it has in its own mount namespace", async () => {
    const runnable = await buildRunnable({ Cmd: ["/bin/cat"] });
    const { code, stdout, stderr } = await makeCorner().asRoot(`
      mkdir t; export TMPDIR="$folder/t"; mkfifo go
      imgfs run '${runnable}' < go & exec 9> go
      until imgfs status t/imgfs-run-*/rootfs > shown 2>/dev/null; do sleep 0.05; done
      sed -n 's/^mount *//p;s/^image *//p' shown
      echo done >&9; exec 9>&-; wait; ls t`);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(new RegExp(`^\\S+/t/imgfs-run-\\w+/rootfs\n${runnable}\ndone\n$`));
  });
});

/** The errno of what a call throws: Node has no name for EDQUOT. */
function errnoOf(call: () => void): number | undefined {
  try {
    call();
    return undefined;
  } catch (cause) {
    return -((cause as NodeJS.ErrnoException).errno ?? 0);
  }
}

/** All keys of an object and of those in it. */
function keysOf(value: unknown): string[] {
  if (Array.isArray(value)) return [...new Set(value.flatMap(keysOf))];
  if (typeof value !== "object" || value === null) return [];
  return [...new Set(Object.entries(value).flatMap(([key, each]) => [key, ...keysOf(each)]))];
}

describe.skipIf(cannotMount)(titleOf("an ordinary user's running mount", cannotMount), () => {
  let corner: Corner;

  beforeEach(() => {
    corner = makeCorner();
  });

  const tell = (script: string, prepare = ""): Promise<Outcome> =>
    corner.asUser(`image='${image}'\nmkdir -p m up\n${script}`, prepare);

  async function say(script: string, prepare = ""): Promise<string> {
    const outcome = await tell(script, prepare);
    expect(outcome).toMatchObject({ code: 0, stderr: "" });
    return outcome.stdout;
  }

  const ask = `
    imgfs mount "$image" m --upper up --quota 1M
    imgfs quota m --set 64K | grep bytes
    imgfs status m | grep -c '^upper .*/up$'
    (dd if=/dev/zero of=m/dir/new bs=4096 count=17 2>/dev/null && echo over) || wc -c < m/dir/new
    imgfs umount m`;
  const answers = /^bytes +0 B +64 KiB +64 KiB\n1\n65536\n/;

  it("is asked and limited by its user", async () => {
    expect(await say(ask)).toMatch(answers);
  });

  it("is asked from within a user namespace that it was made in", async () => {
    const script = `export image; unshare -Urm sh -euc '${ask.replaceAll("'", `'\\''`)}'`;
    expect(await say(`unset XDG_RUNTIME_DIR\n${script}`)).toMatch(answers);
  });

  it("has its socket in XDG_RUNTIME_DIR, however long that is, else in /tmp", async () => {
    const text = await say(`
      long=$home/${"x".repeat(120)}; mkdir -m 700 "$long"
      ls -ld "$long" | cut -c 1-10
      XDG_RUNTIME_DIR=$long imgfs mount "$image" m
      XDG_RUNTIME_DIR=$long imgfs status m | grep -c '^mount'
      stat -c '%a %u' "$long/imgfs" "$long"/imgfs/*.sock
      # Whoever asks may have another environment, or none.
      env -u XDG_RUNTIME_DIR imgfs status m | grep -c '^mount'
      imgfs umount m; ls "$long/imgfs"
      env -u XDG_RUNTIME_DIR TMPDIR=$long imgfs mount "$image" m
      imgfs status m | grep -c '^mount'
      stat -c '%a %u' /tmp/imgfs-${ID} /tmp/imgfs-${ID}/*.sock | sort -u
      imgfs umount m`);
    const owned = `700 ${ID}\n600 ${ID}\n`;
    expect(text).toBe(`drwx------\n1\n${owned}1\n1\n600 ${ID}\n700 ${ID}\n`);
  });

  it("does without a folder that somebody else has put in its way", async () => {
    const text = await say(
      `
      run=$home/run; mkdir "$run" elsewhere; ln -s "$home/elsewhere" "$run/imgfs"
      XDG_RUNTIME_DIR=$run imgfs mount "$image" m --log log
      for i in $(seq 100); do test -s log && break; sleep 0.05; done
      sed 's/.* warn //' log
      ls elsewhere /tmp/imgfs-${ID}
      cat m/dir/file
      imgfs status m 2>&1 || echo $?
      imgfs umount m`,
      `mkdir -p /tmp/imgfs-${ID}; chown ${ID}:${ID} /tmp/imgfs-${ID}
       mkdir "$folder/planted"; chmod 777 "$folder/planted"; mount --bind "$folder/planted" /tmp/imgfs-${ID}`,
    );
    expect(text).toMatch(
      /^no control socket reason="[^\n]*\/run\/imgfs: not a directory; [^\n]*: belongs to user 0/,
    );
    expect(text).toMatch(
      /\nof the image\nimgfs: status: \S+\/m: its process, \d+, has no control socket that can be reached\n1\n$/,
    );
  });

  it("is asked by root, whom it does not let in, and by no other user", async () => {
    const outcome = await tell(
      `mkdir -m 700 run; chmod 755 .
       XDG_RUNTIME_DIR=$home/run imgfs mount "$image" m --upper up --quota 1M
       until test -e "$folder/done"; do sleep 0.05; done; imgfs quota m | grep bytes`,
      `(until grep -q " $home/m " /proc/self/mountinfo; do sleep 0.05; done
        until ls "$home"/run/imgfs/*.sock >/dev/null 2>&1; do sleep 0.05; done
        ls "$home/m" 2>/dev/null || echo closed
        "$prefix/bin/imgfs" quota "$home/m" --set 2M | grep bytes
        "$prefix/bin/imgfs" status "$home/m" | grep -c "^mount"
        for each in "quota $home/m" "quota $home/m --set 9M" "status $home/m"; do
          setpriv --reuid 7 --clear-groups "$prefix/bin/imgfs" $each 2>&1 || echo $?
        done
        touch "$folder/done") &`,
    );
    const line = String.raw`imgfs: (quota|status): \S+/m: must be who mounted it, or root\n1\n`;
    expect(outcome.stdout).toMatch(
      new RegExp(String.raw`^closed\nbytes +0 B +2 MiB +2 MiB\n1\n(${line}){3}bytes +0 B +2 MiB +2 MiB\n$`),
    );
  });

  it("of root is asked by nobody else, also where it lets everybody in", async () => {
    const { stdout, stderr } = await corner.asRoot(`
      chmod 755 "$folder"; mkdir m
      imgfs mount '${image}' m --upper up --quota 1M
      for each in "quota m" "quota m --set 9M" "status m"; do
        setpriv --reuid 7 --clear-groups imgfs $each 2>&1 || echo $?
      done
      setpriv --reuid 7 --clear-groups cat m/dir/file
      imgfs umount m`);
    expect(stderr).toBe("");
    expect(stdout).toMatch(
      /^(imgfs: (quota|status): \S+\/m: must be who mounted it, or root\n1\n){3}of the image\n$/,
    );
  });

  it("of root has its socket elsewhere where /run cannot be written, and none where nothing can", async () => {
    const { stdout, stderr } = await corner.asRoot(`
      mkdir m
      mount -t tmpfs -o ro none /run
      imgfs mount '${image}' m --log log; imgfs status m | grep -c ^mount; imgfs umount m; cat log
      mkdir -p /tmp/imgfs-0; mount -t tmpfs -o ro none /tmp/imgfs-0
      imgfs mount '${image}' m --log log
      for i in $(seq 100); do test -s log && break; sleep 0.05; done
      grep -c 'warn no control socket reason="/run/imgfs: ' log
      cat m/dir/file
      imgfs status m 2>&1 || echo $?
      imgfs umount m; umount /tmp/imgfs-0; rmdir /tmp/imgfs-0 || :`);
    expect(stderr).toBe("");
    expect(stdout).toMatch(
      /^1\n1\nof the image\nimgfs: status: \S+\/m: its process, \d+, has no control socket that can be reached\n1\n$/,
    );
  });
});
