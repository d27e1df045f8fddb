// The image that the load tests begin with: a git repository, a tree with its tar, and files to change. Everything the
// tasks work on is the image's at first.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { noise } from "../e2e/make-image.js";
import { build, scratchDirectory, succeed } from "../e2e/mounted.js";
import { places } from "./tasks.js";

const COMMITS = 60;
const FILES = 800;

/** Files of several sizes in 20 folders, some of them deeper. */
function makeTree(path: string, count: number): void {
  for (let i = 0; i < count; i++) {
    const folder = join(path, `d${i % 20}`, i % 3 === 0 ? "deep/er" : "");
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, `f${i}`), noise([0, 10, 700, 5000, 40_000][i % 5] as number, i + 1));
  }
}

/** Builds it; the image's folder. */
export async function loadImage(): Promise<string> {
  const source = scratchDirectory("source");
  const tree = join(source, places.tree);
  makeTree(tree, FILES);
  writeFileSync(join(tree, "large"), noise(9 << 20));
  for (const folder of places.churn) {
    makeTree(join(source, folder), 60);
    writeFileSync(join(source, folder, "large"), noise(6 << 20, 5));
  }
  const history = scratchDirectory("history");
  const script = `
    cd '${source}'
    for i in 1 2 4 5 7 8; do ln ${places.tree}/d$i/f$i ${places.tree}/link-$i; ln -s ../d$i/f$i ${places.tree}/d$i/to; done
    tar -cf ${places.archive} ${places.tree}
    cd '${history}'
    git init -q -b main .
    git config user.name a; git config user.email a@b
    cp -r '${tree}'/d1 '${tree}'/d2 '${tree}'/d3 .
    i=0
    while [ $i -lt ${COMMITS} ]; do
      i=$((i + 1)); echo $i >> d1/count; echo $i > d2/n$i; git add -A; git commit -q -m "change $i"
    done
    git clone -q --bare . '${source}/${places.repository}'`;
  await succeed("sh", ["-euc", script]);
  return build(source);
}
