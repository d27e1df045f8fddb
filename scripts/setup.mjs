// Makes a fresh Debian machine ready. Needs Node and npm, nothing else; plain Node, no dependencies.
//   node scripts/setup.mjs         the npm packages of the lockfile
//   node scripts/setup.mjs test    also what the tests use: Debian packages and the /dev/fuse node
//   node scripts/setup.mjs demo    the same for the demo
// A second run finds everything in place, touches nothing and needs no network. What cannot be
// installed is named with the reason and is no failure: the tests that want it say so themselves.
import { spawnSync } from "node:child_process";
import { existsSync, lstatSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const isRoot = process.getuid() === 0;

/** Debian packages that are used: the commands that show one is there, what wants it, whether the demo does. */
const packages = [
  { name: "python3", commands: ["python3"], for: "the end-to-end comparison of trees" },
  { name: "btrfs-progs", commands: ["mkfs.btrfs"], for: "the model of quotas on btrfs" },
  { name: "attr", commands: ["setfattr"], for: "the tests of marks in the upper directory" },
  { name: "mount", commands: ["mount", "umount"], for: "every test with a mount", demo: true },
  {
    name: "util-linux",
    commands: ["unshare", "setpriv", "nsenter"],
    for: "mounts in namespaces, as other users, and imgfs run",
    demo: true,
  },
  {
    name: "fuse3",
    commands: ["fusermount3", "mount.fuse3"],
    for: "mounts by an ordinary user, and by mount(8)",
  },
  { name: "tar", commands: ["tar"], for: "layers made by GNU tar", demo: true },
  { name: "runc", commands: ["runc"], for: "the tests of container runtimes" },
  { name: "crun", commands: ["crun"], for: "the tests of container runtimes" },
  { name: "runsc", commands: ["runsc"], for: "the tests of container runtimes" },
  { name: "bubblewrap", commands: ["bwrap"], for: "the tests of container runtimes and of imgfs run" },
  {
    name: "uidmap",
    commands: ["newuidmap", "newgidmap"],
    for: "mounts in a user namespace with several ids",
  },
  { name: "fuse-overlayfs", commands: ["fuse-overlayfs"], for: "upper directories shared with it" },
  { name: "e2fsprogs", commands: ["mkfs.ext4"], for: "quotas and stores on ext4" },
  { name: "xfsprogs", commands: ["mkfs.xfs"], for: "a quota on xfs" },
  { name: "acl", commands: ["setfacl", "getfacl"], for: "the tests of access control lists" },
  {
    name: "libcap2-bin",
    commands: ["setcap", "getcap", "capsh"],
    for: "the tests of file capabilities and of mounts without privilege",
  },
  { name: "git", commands: ["git"], for: "the load tests, and those of programs in a full quota" },
  { name: "rsync", commands: ["rsync"], for: "the tests of programs in a full quota" },
  { name: "sqlite3", commands: ["sqlite3"], for: "the tests of programs in a full quota" },
  { name: "stress-ng", commands: ["stress-ng"], for: "the load tests" },
  { name: "zstd", commands: ["zstd"], for: "layers and frames made by the zstd tool" },
  { name: "skopeo", commands: ["skopeo"], for: "images in every form that skopeo writes" },
  { name: "buildah", commands: ["buildah"], for: "images that buildah writes" },
  { name: "umoci", commands: ["umoci"], for: "images that umoci writes" },
  { name: "docker-registry", commands: ["docker-registry"], for: "the tests of registries" },
  { name: "openssl", commands: ["openssl"], for: "certificates of registries in tests" },
  { name: "zsh", commands: ["zsh"], for: "the tests of shell completion" },
  { name: "fish", commands: ["fish"], for: "the tests of shell completion" },
  { name: "mandoc", commands: ["mandoc"], for: "the tests of the man pages" },
  { name: "libc-bin", commands: ["ldd"], for: "programs copied into test images", demo: true },
];

const say = (line) => process.stderr.write(`setup: ${line}\n`);
const seconds = (from) => `${((performance.now() - from) / 1000).toFixed(1)} s`;
const readJson = (path) => JSON.parse(readFileSync(path, "utf8"));

function hasCommand(name) {
  return (process.env.PATH ?? "/usr/sbin:/usr/bin:/sbin:/bin")
    .split(":")
    .concat("/usr/sbin", "/sbin")
    .some((folder) => existsSync(`${folder}/${name}`));
}

/** Whether node_modules holds what the lockfile asks for; compared by content, not by file times. */
function packagesInstalled() {
  const marker = `${root}/node_modules/.package-lock.json`;
  if (!existsSync(marker)) return false;
  const wanted = readJson(`${root}/package-lock.json`).packages;
  const found = readJson(marker).packages;
  return Object.entries(wanted).every(([path, { version, integrity, optional }]) => {
    if (path === "" || (optional && found[path] === undefined)) return true;
    return found[path]?.version === version && found[path]?.integrity === integrity;
  });
}

function installPackages() {
  if (packagesInstalled()) return true;
  if (existsSync(`${root}/node_modules`) && lstatSync(`${root}/node_modules`).isSymbolicLink()) {
    say("node_modules is a link and differs from the lockfile; run npm ci where it points");
    return true;
  }
  const start = performance.now();
  const run = spawnSync("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: root,
    stdio: ["ignore", "ignore", "inherit"],
  });
  if (run.error) say(`npm: ${run.error.message}`);
  if (run.status !== 0) {
    say("npm ci failed; see above");
    return false;
  }
  say(`npm packages installed (${seconds(start)})`);
  return true;
}

function apt(...args) {
  return spawnSync("apt-get", ["-q", "-y", "-o", "Dpkg::Use-Pty=0", ...args], {
    encoding: "utf8",
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
  });
}

const lastLine = ({ stderr, stdout, error }) =>
  error?.message ?? ((stderr || stdout || "").trim().split("\n").at(-1) || "no message");

function installDebianPackages(packages) {
  const isMissing = ({ commands }) => commands.some((command) => !hasCommand(command));
  const missing = packages.filter(isMissing);
  if (missing.length === 0) return;
  let reason = "";
  if (!isRoot) reason = "not root";
  else if (!hasCommand("apt-get")) reason = "this machine has no apt-get";
  else {
    const start = performance.now();
    const update = apt("update");
    const install = apt("install", "--no-install-recommends", ...missing.map(({ name }) => name));
    if (install.status === 0) {
      say(`installed ${missing.map(({ name }) => name).join(", ")} (${seconds(start)})`);
    } else reason = lastLine(update.status === 0 ? install : update);
  }
  for (const { name, for: purpose } of missing.filter(isMissing)) {
    say(`cannot install ${name} (${reason || "it lacks a command"}): needed for ${purpose}`);
  }
}

/** Some containers let root use the device but lack its node. */
function makeFuseNode() {
  if (existsSync("/dev/fuse")) return;
  if (!isRoot) {
    say("/dev/fuse is missing and only root can make it: tests with a mount will not run");
    return;
  }
  const made = spawnSync("mknod", ["-m", "666", "/dev/fuse", "c", "10", "229"], { encoding: "utf8" });
  say(made.status === 0 ? "made /dev/fuse" : `cannot make /dev/fuse: ${lastLine(made)}`);
}

const purpose = process.argv[2];
if (!installPackages()) process.exitCode = 1;
else if (purpose === "test" || purpose === "demo") {
  installDebianPackages(packages.filter(({ demo }) => demo || purpose === "test"));
  makeFuseNode();
}
