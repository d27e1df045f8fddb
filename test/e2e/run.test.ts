// `imgfs run`: as root here, and as an ordinary user, with one id and with many, by unshare and by bubblewrap, in a private
// corner. Whatever happens, no process, mount or folder of a run may be left.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { cannotMount, command, type Outcome, run, scratchDirectory, titleOf } from "./mounted.js";
import { type Corner, makeCorner } from "./private.js";
import { buildRunnable } from "./run-image.js";
import { layerTar } from "./tar-writer.js";

const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
const driver = join(import.meta.dirname, "terminal.py");

it.runIf(inCi)("imgfs run is tested in CI", () => expect(cannotMount).toBeUndefined());

/** Somebody who runs commands; `temporary` is where the folders of runs are made. */
interface Person {
  readonly name: string;
  /** Runs a script; `$image`, `$empty`, `$temporary` and an empty working directory are there. */
  tell(script: string, input?: string): Promise<Outcome>;
}

let image: string;
/** Has neither config nor shell. */
let empty: string;

/** After a script: nothing of a run is left, of whoever has this TMPDIR. */
const clean = `
left=begin
for i in $(seq 200); do
  left=$(ls -A "$temporary"; grep "$temporary" /proc/self/mountinfo || :
    for each in $(grep -lz "^TMPDIR=$temporary$" /proc/[0-9]*/environ 2>/dev/null); do
      tr '\\0' ' ' < "\${each%environ}cmdline" 2>/dev/null | grep -E 'run-(server|init)|bwrap' || :
    done)
  [ -n "$left" ] || break
  sleep 0.05
done
[ -z "$left" ] || { echo "LEFT: $left"; exit 99; }`;

function root(): Person {
  return {
    name: "root",
    tell: (script, input) => {
      const folder = scratchDirectory("root");
      const temporary = join(folder, "tmp");
      mkdirSync(temporary);
      const env = { image, empty, temporary, PATH: `${dirname(command)}:${process.env["PATH"]}` };
      // Exported here, so that it is in the environment of what the script starts and not in the shell's own.
      const text = `export TMPDIR="$temporary"\ncd "${folder}"\n${script}\n${clean}`;
      return run("bash", ["--norc", "-euc", text], { env, ...(input === undefined ? {} : { input }) });
    },
  };
}

const subids = `
echo imgfs-tester:700000:65536 > "$folder/subids"
for each in /etc/subuid /etc/subgid; do mount --bind "$folder/subids" $each; done`;
const noSubids = `
: > "$folder/subids"
for each in /etc/subuid /etc/subgid; do mount --bind "$folder/subids" $each; done`;

function user(name: string, prepare: string): Person {
  return {
    name,
    tell: (script, input) => {
      const corner: Corner = makeCorner();
      const given = input === undefined ? "" : `exec < "$home/input"`;
      if (input !== undefined) writeFileSync(join(corner.folder, "home", "input"), input);
      const text = `image='${image}' empty='${empty}'
        export temporary="$HOME/temporary"; export TMPDIR="$temporary"; mkdir "$temporary"
        ${given}
        ${script}
        ${clean}`;
      return corner.asUser(`exec bash --norc -euc '${text.replaceAll("'", "'\\''")}'`, prepare);
    },
  };
}

const one = user("an ordinary user with one id", noSubids);
const byBubblewrap = user("an ordinary user by bubblewrap", noSubids);
const people = [root(), user("an ordinary user with subordinate ids", subids), byBubblewrap];
const by = (person: Person): string => (person === byBubblewrap ? "--by bwrap" : "");
const isBubblewrap = (person: Person): boolean => person === byBubblewrap;
const hasIds = (person: Person): boolean => person !== one && person !== byBubblewrap;

/** The option by which a person runs commands. */
function say(person: Person, script: string, input?: string): Promise<string> {
  return person.tell(script, input).then((outcome) => {
    expect(outcome, `${person.name}: ${script}`).toMatchObject({ code: 0, stderr: "" });
    return outcome.stdout;
  });
}

describe.skipIf(cannotMount)(titleOf("imgfs run", cannotMount), () => {
  beforeAll(async () => {
    image = await buildRunnable({
      Entrypoint: ["/bin/sh", "-c"],
      Cmd: ["echo $GREETING from $(id -u):$(id -g) in $(pwd) with $HOME"],
      Env: ["GREETING=hello", "PATH=/bin:/usr/bin"],
      WorkingDir: "/srv/app",
    });
    empty = await buildRunnable(undefined, [layerTar([{ name: "etc", type: "dir" }])]);
  });

  describe.each(people)("by $name", (person) => {
    const go = `imgfs run ${by(person)}`;

    it("runs what the image's config says, and what the options say instead", async () => {
      const text = await say(
        person,
        `${go} "$image"
         ${go} "$image" 'echo a word of my own'
         ${go} -e GREETING=servus -w /tmp "$image"
         HIDDEN=x SHOWN=y ${go} -e SHOWN --entrypoint env "$image" -- | sort
         ${go} --entrypoint '' "$image" cat /etc/motd
         ${go} --entrypoint cat "$image" /etc/motd`,
      );
      expect(text).toBe(
        `hello from 0:0 in /srv/app with /root
a word of my own
servus from 0:0 in /tmp with /root
GREETING=hello
HOME=/root
PATH=/bin:/usr/bin
SHOWN=y
of the image
of the image
`.replace("PATH=/bin:/usr/bin\n", `PATH=/bin:/usr/bin\n${isBubblewrap(person) ? "PWD=/srv/app\n" : ""}`),
      );
    });

    it("has the command's exit code, or its own as docker and podman have them, and says nothing on stdout", async () => {
      const codes = `
        code() { set +e; "$@" 2>>said; echo $? >&2; set -e; }
        {
          code ${go} "$image" 'exit 7'
          code ${go} "$image" 'kill -9 $$'
          code ${go} --entrypoint nosuch "$image"
          code ${go} --entrypoint /no/such "$image"
          code ${go} --entrypoint /bin/no-program "$image"
          code ${go} --entrypoint /etc "$image"
          code ${go} "$temporary/no-image"
          code ${go} --no-option "$image"
          code ${go} -u nobody-here "$image"
          code ${go} -u :nogroup-here "$image"
          code ${go} --bind "$temporary/nothing:/mnt" "$image"
          code ${go} "$empty"
          code ${go} "$empty" nosuch
        } 2>codes
        tr '\\n' ' ' < codes; echo; cat said`;
      const [first, ...said] = (await say(person, codes)).split("\n");
      expect(first).toBe("7 137 127 127 126 126 125 125 125 125 125 125 127 ");
      const lines = said.filter((line) => line !== "" && !line.startsWith("hint: "));
      expect(lines).toHaveLength(11);
      for (const line of lines) expect(line).toMatch(/^imgfs: /);
      expect(said.join("\n")).toContain("nosuch: not found in the image's PATH, /bin:/usr/bin");
      expect(said.join("\n")).toContain("no user nobody-here in the image's /etc/passwd");
      expect(said.join("\n")).toContain("there is no shell in it");
    });

    it("hands standard streams through untouched", async () => {
      const input = "x".repeat(3_000_000);
      const outcome = await person.tell(
        `${go} --entrypoint cat "$image" | wc -c; ${go} "$image" 'echo out; echo err >&2'`,
        input,
      );
      expect(outcome).toMatchObject({ code: 0, stdout: "3000000\nout\n", stderr: "err\n" });
    });

    it("throws changes away, or keeps them in the upper that was named", async () => {
      const text = await say(
        person,
        `${go} "$image" 'echo lost > /lost; cat /lost'
         ${go} "$image" 'ls /lost 2>/dev/null || echo gone'
         ${go} --upper up "$image" 'echo kept > /kept; echo more >> /etc/motd'
         cat up/kept
         ${go} --upper up "$image" 'cat /kept /etc/motd'
         ${go} --upper up --read-only "$image" 'cat /kept; touch /new 2>&1 || :'
         ${go} --read-only "$image" 'touch /new 2>&1 || :'
         ${go} "$image" 'ls /kept 2>/dev/null || echo the image is as it was'`,
      );
      expect(text.replaceAll(/^touch: .*: /gm, "")).toBe(
        "lost\ngone\nkept\nkept\nof the image\nmore\nkept\nRead-only file system\nRead-only file system\nthe image is as it was\n",
      );
    });

    it("writes up to its quota, whether that is thrown away or kept", async () => {
      const fill = 'echo "$(head -c 200000 /dev/zero 2>&1 > /tmp/f)"';
      const text = await say(
        person,
        `${go} --quota 64K "$image" '
           stat -f -c "%S %b" /
           ${fill}; stat -c "size %s" /tmp/f
           echo more 2> /dev/null >> /tmp/f || echo full
           echo again > /tmp/f; cat /tmp/f'
         ${go} --upper up --quota 64K --quota-errno ENOSPC "$image" '${fill}'
         stat -c "size %s" up/tmp/f; imgfs du up | sed -n "1s/.*(\\(.*\\) bytes.*/used \\1/p"
         ${go} --upper up --quota 64K "$image" 'echo more 2> /dev/null >> /tmp/f || echo still full'
         ${go} --upper up --quota 128K "$image" 'echo more >> /tmp/f; echo fits'
         ${go} --quota 1M --quota-inodes 100 "$image" '
           i=0; while true > /tmp/$i; do i=$((i+1)); done 2> /dev/null; test $i -gt 80 && test $i -le 100 && echo counted'`,
      );
      // Beside the file there are the mount points that the image lacks.
      for (const [, size] of text.matchAll(/^size (.*)$/gm)) {
        expect(Number(size) % 4096).toBe(0);
        expect(Number(size)).toBeGreaterThanOrEqual(4096 * 9);
        expect(Number(size)).toBeLessThanOrEqual(4096 * 16);
      }
      expect(text.replaceAll(/^size .*$/gm, "size").replaceAll(/^head: .*: /gm, "")).toBe(
        "4096 16\nDisk quota exceeded\nsize\nfull\nagain\nNo space left on device\nsize\nused 65536\nstill full\nfits\ncounted\n",
      );
    });

    it("says in one line why there is no such quota", async () => {
      const outcome = await person.tell(
        `for words in "--quota 1X" "--quota-inodes 7" "--quota 1 --quota-mode inclusive" "--quota-mode half --quota 1M" \\
           "--quota 1"; do
           ${go} $words "$image" 'echo not run' || echo $?
         done`,
      );
      expect(outcome).toMatchObject({ code: 0, stdout: "125\n".repeat(5) });
      const lines = outcome.stderr.trimEnd().split("\n");
      expect(lines).toHaveLength(5);
      expect(lines[0]).toContain("not a size like 10000");
      expect(lines[1]).toBe("imgfs: run: --quota-inodes needs --quota");
      expect(lines[2]).toMatch(
        /^imgfs: run: .*disk limit is smaller than volume size \(1 bytes, the image has \d+\)$/,
      );
      expect(lines[3]).toContain("exclusive, inclusive");
      // Without room for the mount points that the image lacks.
      expect(lines[4]).toMatch(/^imgfs: run: mount point \/\S+: disk quota exceeded$/i);
    });

    it("shows what is bound, and makes nothing on the host that the image's symlinks lead to", async () => {
      const trap = "/tmp/imgfs-run-must-not-make-this";
      expect(existsSync(trap)).toBe(false);
      const text = await say(
        person,
        `mkdir shared; echo of the host > shared/file
         ${go} --bind shared:/mnt/shared --bind shared/file:/etc/bound:ro --bind shared:/out/deep -w /out/work "$image" '
           cat /mnt/shared/file /etc/bound /out/deep/file
           (echo no > /etc/bound) 2>/dev/null || echo read-only
           echo yes > /mnt/shared/made; pwd -P'
         cat shared/made; ls "${trap}" 2>/dev/null || echo none`,
      );
      expect(text).toBe(`of the host\nof the host\nof the host\nread-only\n${trap}/work\nyes\nnone\n`);
      expect(existsSync(trap)).toBe(false);
    });

    it("sees its own processes alone, under one that reaps, and the root of the image as theirs", async () => {
      const text = await say(
        person,
        `sleep 1000 & ${go} "$image" '
           (sleep 0.2 & ) ; sleep 0.6
           ps -eo stat,comm | grep -c ^Z || :; ps -eo comm | grep -c sleep || :
           ls -di / /proc/1/root/ 2>/dev/null | sed "s/ .*//" | sort -u | wc -l
           cat /dev/null /dev/zero | head -c 3 | wc -c; test -c /dev/full -a -c /dev/tty -a -d /dev/pts -a -d /dev/shm && echo devices
           echo $(cat /proc/sys/kernel/hostname)'
         ${go} --hostname inside --network none "$image" 'cat /proc/sys/kernel/hostname; grep -c : /proc/net/dev'
         kill %1`,
      );
      const host = readFileSync("/proc/sys/kernel/hostname", "latin1");
      expect(text).toBe(`0\n0\n1\n3\ndevices\n${host}inside\n1\n`);
    });

    it("has the host's names and resolvers where the image has none of its own", async () => {
      const text = await say(
        person,
        `${go} "$image" 'cat /etc/hosts; (echo x > /etc/hosts) 2>/dev/null || echo read-only'
         ${go} --network none "$image" 'cat /etc/hosts; echo mine > /etc/hosts; cat /etc/hosts'`,
      );
      expect(text).toBe(`${readFileSync("/etc/hosts", "utf8")}read-only\nmine\n`);
    });

    it("hands on signals, and ends as the command ends", async () => {
      const outcome = await person.tell(
        `cat > traps <<'END'
for each in INT TERM HUP USR1 USR2; do trap "echo got $each; exit 3" $each; done
echo ready
while :; do sleep 0.05; done
END
         for each in INT TERM HUP USR1 USR2; do
           setsid imgfs run ${by(person)} --bind traps:/traps "$image" '. /traps' > out & pid=$!
           until grep -q ready out 2>/dev/null; do sleep 0.02; done
           kill -$each $pid; wait $pid && code=0 || code=$?; echo "$(tail -n 1 out) $code"
           rm out
         done
         setsid imgfs run ${by(person)} "$image" 'echo ready; exec sleep 1000' > out & pid=$!
         until grep -q ready out 2>/dev/null; do sleep 0.02; done
         kill -TERM $pid; wait $pid || echo $?`,
      );
      expect(outcome.stdout).toBe("got INT 3\ngot TERM 3\ngot HUP 3\ngot USR1 3\ngot USR2 3\n143\n");
    });

    it("leaves nothing when it is killed, nor when the process that serves the mount is", async () => {
      const outcome = await person.tell(
        `start() {
           setsid imgfs run ${by(person)} "$image" 'echo ready > /ready; echo ready; sleep 1000; :' > out & pid=$!
           until grep -q ready out 2>/dev/null; do sleep 0.02; done; rm out
         }
         server() { for each in $(grep -lz "^TMPDIR=$temporary$" /proc/[0-9]*/environ 2>/dev/null); do
           tr '\\0' ' ' < "\${each%environ}cmdline" 2>/dev/null | grep -q 'run-server.cjs $' && basename "$(dirname "$each")" && break; done || :; }
         start; kill -KILL $pid; wait $pid 2>/dev/null || echo $?
         for i in $(seq 200); do [ -n "$(ls -A "$temporary")" ] || break; sleep 0.05; done
         ls -A "$temporary"
         start; kill -KILL $(server); wait $pid || echo $?`,
      );
      expect(outcome.stdout).toBe("137\n137\n");
    });

    it("removes what a run has left whose processes were all killed, and no live one's", async () => {
      const outcome = await person.tell(
        `setsid imgfs run ${by(person)} "$image" 'echo ready; while ! test -e /go; do sleep 0.05; done; cat /etc/motd' > live & live=$!
         until grep -q ready live 2>/dev/null; do sleep 0.02; done
         dead="$temporary/imgfs-run-dead"; mkdir -p "$dead/rootfs" "$dead/upper/closed"; touch "$dead/lock" "$dead/upper/closed/file"
         chmod 0 "$dead/upper/closed"
         ${go} "$image" 'echo next'
         ls -A "$temporary" | wc -l
         kill -TERM $live; wait $live || echo $?`,
      );
      expect(outcome).toMatchObject({ code: 0, stdout: "next\n1\n143\n", stderr: "" });
    });

    it("runs as a user of the image, by name or number, as far as there are ids", async () => {
      const script = `
        for who in web 1000:1000 web:extra; do ${go} -u $who "$image" 'id; touch /srv/x && echo made; touch /y 2>/dev/null || echo refused' || echo $?; done`;
      const outcome = await person.tell(script);
      if (hasIds(person)) {
        const web = "uid=1000(web) gid=1000(web) groups=1000(web),2000(extra)\nmade\nrefused\n";
        const extra = "uid=1000(web) gid=2000(extra) groups=2000(extra)\nmade\nrefused\n";
        expect(outcome.stdout).toBe(web + web.replace(",2000(extra)", "") + extra);
      } else {
        // bubblewrap keeps one id, whichever it is.
        expect(outcome.stdout).toMatch(/^uid=1000\(web\) gid=1000\(web\)/);
      }
    });

    it("serves several runs on one image at a time", async () => {
      const text = await say(
        person,
        `for i in 1 2 3; do ${go} "$image" "echo $i > /mine; sleep 0.3; cat /mine" > out$i & done; wait; cat out1 out2 out3`,
      );
      expect(text).toBe("1\n2\n3\n");
    });

    it("keeps the terminal: its size, job control, Ctrl-C for the command alone", async () => {
      const steps = [
        { expect: "# " },
        { send: "tty; stty size; sleep 1000\r" },
        { group: "sleep" },
        { size: [33, 77] },
        { send: "\x03" },
        { expect: "# " },
        { send: "stty size; echo after\r" },
        { expect: "33 77" },
        { expect: "# " },
        { send: "sleep 1001\r" },
        { group: "sleep" },
        { send: "\x1a" },
        { expect: "Stopped" },
        { send: "fg\r" },
        { group: "sleep" },
        { send: "\x03" },
        { expect: "# " },
        { send: "exit 5\r" },
      ];
      const outcome = await person.tell(
        `python3 '${driver}' '${JSON.stringify(steps)}' ${go} --entrypoint bash "$image" --norc`,
      );
      expect(outcome, outcome.stdout + outcome.stderr).toMatchObject({ code: 5 });
    });

    it("is stopped by Ctrl-Z and goes on in the shell it was called from, and may make of Ctrl-C what it wants", async () => {
      const trap = `trap "echo interrupted; exit 9" INT; echo begun; while :; do sleep 0.1; echo tick; done`;
      const steps = [
        { expect: "# " },
        { send: `${go} "$image" '${trap}'\r` },
        { expect: "begun\r" },
        { send: "\x1a" },
        { expect: "Stopped" },
        { expect: "# " },
        { send: "fg\r" },
        // The command runs again: Ctrl-C from here on is for it.
        { expect: "tick\r" },
        ...(isBubblewrap(person) ? [] : [{ send: "\x03" }, { expect: "interrupted" }]),
        ...(isBubblewrap(person) ? [{ send: "\x03" }] : []),
        { expect: "# " },
        { send: "echo code $?\r" },
        { expect: isBubblewrap(person) ? "code 130" : "code 9" },
        { expect: "# " },
        { send: "exit 0\r" },
      ];
      const outcome = await person.tell(`cat > steps <<'END'
${JSON.stringify(steps)}
END
        export image; PS1='# ' python3 '${driver}' "$(cat steps)" bash --norc -i`);
      expect(outcome, outcome.stdout + outcome.stderr).toMatchObject({ code: 0 });
    });
  });

  it.each(people.filter(hasIds))(
    "gives $name the image's owners, chown, and setuid programs",
    async (person) => {
      const text = await say(
        person,
        `imgfs run --upper up "$image" '
         stat -c %u:%g /etc/mail /srv; chown 33:44 /etc/mail; cat /usr/bin/id > /srv/id; chmod 4755 /srv/id; touch /srv/mine; chown 1000 /srv/mine'
       imgfs run --upper up "$image" 'stat -c %u:%g /etc/mail /srv/mine'
       imgfs run --upper up -u web "$image" /srv/id
       imgfs run "$image" 'grep NoNewPrivs /proc/self/status'`,
      );
      expect(text).toBe(
        "8:8\n1000:1000\n33:44\n1000:0\nuid=1000(web) gid=1000(web) euid=0(root) groups=1000(web),2000(extra)\nNoNewPrivs:\t0\n",
      );
    },
  );

  it("shows everything as root's where there is one id, and has no other user", async () => {
    const owners = "stat -c %u:%g /etc/mail /srv; echo more >> /etc/mail && echo done";
    expect(await say(one, `imgfs run "$image" '${owners}'`)).toBe("0:0\n0:0\ndone\n");
    const outcome = await one.tell('imgfs run -u web "$image" id || echo $?');
    expect(outcome.stdout).toBe("125\n");
    expect(outcome.stderr).toMatch(
      /^imgfs: run: user 1000:1000: this user namespace has no such id\nhint: .*subuid/,
    );
  });

  it("gives root a user namespace with the maps that are asked for", async () => {
    const text = await say(
      root(),
      `imgfs run --upper up --uid-map 0:100000:65536 --gid-map 0:100000:65536 "$image" '
         id -u; tr -s " " < /proc/self/uid_map; stat -c %u:%g /etc/mail; chown 5:6 /etc/mail; echo new > /new; test -w /proc/sysrq-trigger || echo not the machine'
       stat -c %u:%g up/new up/etc/mail`,
    );
    expect(text).toBe("0\n 0 100000 65536\n8:8\nnot the machine\n100000:100000\n100005:100006\n");
  });

  it("takes maps that are the user's to give, and no others", async () => {
    const person = people[1] as Person;
    const text = await say(
      person,
      `imgfs run --uid-map 0:$(id -u):1 --uid-map 1:700000:2000 "$image" 'tr -s " " < /proc/self/uid_map; stat -c %u:%g /srv'`,
    );
    expect(text).toBe(" 0 54242 1\n 1 700000 2000\n1000:1000\n");
    const outcome = await person.tell(
      `for by in "" "--by bwrap"; do imgfs run $by --uid-map 0:100000:65536 "$image" || echo $?; done`,
    );
    expect(outcome.stdout).toBe("125\n125\n");
    expect(outcome.stderr).toMatch(
      /^imgfs: run: newuidmap: [^\n]*\nimgfs: run: bwrap [^\n]*no --uid-map[^\n]*\n$/,
    );
  });

  it("says on one line what is wrong with an upper directory or a TMPDIR", async () => {
    const outcome = await root().tell(
      `imgfs run --upper up "$image" 'echo ready; sleep 1000' > out & pid=$!
       until grep -q ready out 2>/dev/null; do sleep 0.02; done
       imgfs run --upper up "$image" || echo $?
       kill $pid; wait $pid || echo $?
       TMPDIR=/no/such imgfs run "$image" || echo $?`,
    );
    expect(outcome.stdout).toBe("125\n143\n125\n");
    expect(outcome.stderr).toMatch(
      /^imgfs: run: upper directory \S+ is in use by another mount\nimgfs: run: temporary folder: [^\n]*\nhint: TMPDIR [^\n]*\n$/,
    );
  });

  it("closes to the host's own root what acts on the machine", async () => {
    const text = await say(
      root(),
      `imgfs run "$image" '
         for each in sysrq-trigger sys/kernel/hostname; do (echo > /proc/$each) 2>/dev/null || echo closed; done
         if test -e /proc/kcore; then wc -c < /proc/kcore; else echo 0; fi; grep CapEff /proc/self/status'`,
    );
    expect(text).toBe("closed\nclosed\n0\nCapEff:\t00000000a80425fb\n");
  });

  describe("without the programs it is made with", () => {
    const hide = (...names: readonly string[]): string =>
      `${subids}\nfor each in ${names.join(" ")}; do for at in /usr/bin/$each; do ! test -e $at || mount --bind "$folder/fuse.conf" $at; done; done`;

    it("does it by bubblewrap where unshare is missing, and with one id where newuidmap is", async () => {
      const one = await say(
        user("x", hide("unshare")),
        `imgfs run "$image" 'grep NoNewPrivs /proc/self/status'`,
      );
      expect(one).toBe("NoNewPrivs:\t1\n");
      const two = await say(
        user("x", hide("newuidmap")),
        `imgfs run "$image" 'cat /proc/self/uid_map | wc -l; id -u'`,
      );
      expect(two).toBe("1\n0\n");
    });

    // As AppArmor does it on some systems: there are user namespaces, and no rights in them.
    it("does it by bubblewrap where a user namespace gives no rights", async () => {
      const powerless = `
        mkdir "$folder/fake"
        printf '%s\\n' '#!/bin/sh' 'case $1 in --user) exec /usr/bin/unshare "$@" ;; esac' \\
          'echo "unshare: unshare failed: Operation not permitted" >&2; exit 1' > "$folder/fake/unshare"
        chmod 755 "$folder/fake/unshare"`;
      const person = user("x", `${subids}\n${powerless}`);
      const go = 'fake="$(dirname "$HOME")/fake"; export PATH="$fake:$PATH"; imgfs run';
      expect(await say(person, `${go} "$image" 'grep NoNewPrivs /proc/self/status'`)).toBe(
        "NoNewPrivs:\t1\n",
      );
      const outcome = await person.tell(`${go} --by unshare "$image" || echo $?`);
      expect(outcome).toMatchObject({
        stdout: "125\n",
        stderr: "imgfs: run: unshare: unshare failed: Operation not permitted\n",
      });
    });

    it("says why there can be no mount, once", async () => {
      const outcome = await user("x", `${noSubids}\nchmod 600 /dev/fuse`).tell(
        `imgfs run "$image" || echo $?`,
      );
      expect(outcome.stdout).toBe("125\n");
      expect(outcome.stderr).toMatch(
        /^imgfs: run: [^\n]*\/dev\/fuse[^\n]*; and by bwrap: [^\n]*fusermount3[^\n]*\n$/,
      );
    });

    it("needs no bubblewrap and no fusermount3 where unshare is", async () => {
      expect(
        await say(user("x", hide("bwrap", "fusermount3", "fusermount")), `imgfs run "$image" 'id -u'`),
      ).toBe("0\n");
    });

    it("says in one line what to install where none is there", async () => {
      const outcome = await user("x", hide("unshare", "bwrap")).tell(`imgfs run "$image" || echo $?`);
      expect(outcome.stdout).toBe("125\n");
      expect(outcome.stderr).toMatch(
        /^imgfs: run: unshare is not installed; and by bwrap: [^\n]*\nhint: install [^\n]*\n$/,
      );
      const asked = await user("x", hide("bwrap")).tell(`imgfs run --by bwrap "$image" || echo $?`);
      expect(asked.stderr).toBe("imgfs: run: bwrap is not installed\nhint: install the package bubblewrap\n");
    });
  });

  it("runs a flattened file, and an index, by the config that goes with them", async () => {
    const flat = await buildRunnable({ Cmd: ["/bin/cat", "/etc/motd"] }, undefined, "--flatten");
    for (const path of [flat, `${image}/index.imgfs`]) {
      const { stdout, stderr } = await run(command, ["run", path]);
      expect({ path, stdout, stderr }).toMatchObject({
        stdout: path === flat ? "of the image\n" : "hello from 0:0 in /srv/app with /root\n",
        stderr: "",
      });
    }
  });
});
