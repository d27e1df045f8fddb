// Compiles src/ to dist/: every module on its own, for those who import them, and the programs that must start fast as
// one file each in dist/bin/, where Node reads one file in place of a hundred. Run by `npm run build`.
import { execFileSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { dirname, posix, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Program in dist/bin/ to the module it starts with. */
const programs = {
  imgfs: "cli/main.ts",
  daemon: "daemon/main.ts",
  mount: "cli/mount-main.ts",
  create: "cli/create-main.ts",
  "mount-worker": "daemon/worker.ts",
  "layer-worker": "builder/layer-worker.ts",
  "run-server": "run/server.ts",
  "run-init": "run/init.ts",
};
const programOf = new Map(Object.entries(programs).map(([name, module]) => [module, `${name}.cjs`]));

/**
 * A module inside a bundle sees its own place in dist/ as import.meta.url, so that threads and files it names are found;
 * where what it names is a program, the bundle of that is named.
 */
const ownPlace = {
  name: "own-place",
  setup({ onLoad }) {
    onLoad({ filter: /\/src\/.*\.ts$/ }, ({ path }) => {
      const module = relative(`${root}/src`, path);
      const place = (target) =>
        `new URL(${JSON.stringify(programOf.get(target) ?? posix.join("..", target.replace(/\.ts$/, ".js")))}, bundleUrl)`;
      const contents = readFileSync(path, "utf8")
        .replace(/new URL\("(\.[^"]+\.js)", import\.meta\.url\)/g, (_, target) =>
          place(posix.join(dirname(module), target.replace(/\.js$/, ".ts"))),
        )
        .replaceAll("import.meta.url", `${place(module)}.href`);
      return { contents, loader: "ts" };
    });
  },
};

rmSync(`${root}/dist`, { recursive: true, force: true });
execFileSync(process.execPath, [`${root}/node_modules/typescript/bin/tsc`, "-p", "tsconfig.build.json"], {
  cwd: root,
  stdio: "inherit",
});
/** Programs that read the whole command line but run one command, and the modules of that: others stay out of them. */
const ofOneCommand = {
  mount: new Set(["./mount.js", "./namespace.js"]),
  create: new Set(["./create.js", "./run-command.js", "./groot/grootfs.js"]),
};
const only = (needed) => ({
  name: "only-one-command",
  setup({ onResolve }) {
    onResolve({ filter: /^\.\/[a-z-/]+\.js$/ }, ({ kind, path, importer }) => {
      const [, folder] =
        /\/src\/(cli(?:\/groot)?)\/(?:program|command-line|declare|run-command)\.ts$/.exec(importer) ?? [];
      return kind === "dynamic-import" && folder !== undefined && !needed.has(path)
        ? { path: `../${folder}${path.slice(1)}`, external: true }
        : undefined;
    });
  },
});

/** The second transport is loaded where it is asked for, from its own modules: the programs do not carry it. */
const apartTransport = {
  name: "apart-transport",
  setup({ onResolve }) {
    onResolve({ filter: /^\.\/native\.js$/ }, ({ importer }) =>
      importer.endsWith("/daemon/process.ts") ? { path: "../daemon/native.js", external: true } : undefined,
    );
  },
};

function bundle(names, plugins) {
  return build({
    absWorkingDir: root,
    entryPoints: names.map((out) => ({ in: `src/${programs[out]}`, out })),
    outdir: "dist/bin",
    outExtension: { ".js": ".cjs" },
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node20.19",
    // What every program carries again; names stay, for stacks.
    minifyWhitespace: true,
    // Native, or not needed by a mount that has nothing to say.
    external: ["koffi", "pino", "smol-toml", "tar-stream", "undici", "valibot"],
    plugins,
    banner: { js: 'const bundleUrl=require("node:url").pathToFileURL(__filename).href;' },
    logLevel: "warning",
  });
}

await bundle(
  Object.keys(programs).filter((name) => !Object.hasOwn(ofOneCommand, name)),
  [apartTransport, ownPlace],
);
for (const [name, needed] of Object.entries(ofOneCommand)) {
  await bundle([name], [only(needed), apartTransport, ownPlace]);
}
