// The checker of stores: everything that is wrong, instead of the first. Changes nothing; what processes at work are making is
// theirs, and what dead ones have left is a note, because the next command removes it.
import { lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { digestHex } from "../base/digest.js";
import { checkImage } from "../imgfs/check.js";
import { blobFile } from "../imgfs/folder.js";
import { Image } from "../imgfs/image.js";
import { isAside } from "./aside.js";
import { isFile, isFolder } from "./files.js";
import { CONFIG_FILE, eachImage, isAbandoned, isId, type StoredImage } from "./images.js";
import { INDEX_SUFFIX } from "./indexes.js";
import { isLive } from "./lease.js";
import { openStore, type Store } from "./store.js";

export interface StoreFinding {
  /** Relative to the store. */
  readonly path: string;
  readonly problem: string;
}

export interface StoreReport {
  /** Empty for a sound store. */
  readonly findings: readonly StoreFinding[];
  readonly notes: readonly StoreFinding[];
  readonly images: number;
  readonly files: number;
}

/** Checks a store, with `data` every byte of its content too. Throws StoreError for what is no store. */
export function checkStore(path: string, { data }: { readonly data: boolean }): StoreReport {
  return new StoreCheck(openStore(path), data).run();
}

class StoreCheck {
  private readonly store: Store;
  private readonly data: boolean;
  private readonly findings: StoreFinding[] = [];
  private readonly notes: StoreFinding[] = [];

  constructor(store: Store, data: boolean) {
    this.store = store;
    this.data = data;
  }

  run(): StoreReport {
    const content = new Set(readdirSync(join(this.store.path, "content")));
    for (const name of content) this.checkContent(name);
    let images = 0;
    for (const image of eachImage(this.store)) {
      images++;
      if ("state" in image) this.checkStored(image, content);
      else this.findings.push({ path: `images/${image.id}`, problem: image.damage.message });
    }
    for (const name of readdirSync(join(this.store.path, "images"))) {
      const path = `images/${name}`;
      const stat = lstatSync(join(this.store.path, path), { throwIfNoEntry: false });
      if (stat !== undefined && (!stat.isDirectory() || !isId(name)))
        this.findings.push({ path, problem: "no folder of an image" });
    }
    for (const name of readdirSync(join(this.store.path, "tmp"))) {
      if (isAside(name)) this.notes.push({ path: `tmp/${name}`, problem: "taken out, and not yet removed" });
      else if (!isLive(this.store, name))
        this.notes.push({ path: `tmp/${name}`, problem: "left by a process that died" });
    }
    return { findings: this.findings, notes: this.notes, images, files: content.size };
  }

  private checkContent(name: string): void {
    const path = `content/${name}`;
    const whole = join(this.store.path, path);
    const stat = lstatSync(whole, { throwIfNoEntry: false });
    // A clean has just taken it out.
    if (stat === undefined) return;
    if (!stat.isFile()) {
      this.findings.push({ path, problem: "not a regular file" });
      return;
    }
    for (const { section, record, problem } of checkImage(whole, { data: this.data }).findings) {
      this.findings.push({
        path,
        problem: [section, record, problem].filter((part) => part !== "").join(": "),
      });
    }
    try {
      const image = Image.open(whole);
      const right =
        image.kind === "index"
          ? `${digestHex(image.source)}${INDEX_SUFFIX}`
          : blobFile(image.source, image.codec);
      image.close();
      if (right !== name) this.findings.push({ path, problem: `should be called ${right}` });
    } catch {
      // Found above.
    }
  }

  private checkStored(image: StoredImage, content: ReadonlySet<string>): void {
    const { id, path, state } = image;
    const tell = (problem: string): void => void this.findings.push({ path: `images/${id}`, problem });
    if (state.id !== id) tell(`says that it is ${JSON.stringify(state.id)}`);
    for (const name of [state.index, ...state.blobs])
      if (!content.has(name)) tell(`content/${name} is missing`);
    // Its rootfs may be a mount that does not answer, and is not asked.
    for (const name of ["diff", "work"]) {
      if (!isFolder(join(path, name))) tell(`${name} is missing`);
    }
    if (!isFile(join(path, CONFIG_FILE))) tell(`${CONFIG_FILE} is missing`);
    if (isAbandoned(this.store, image)) {
      this.notes.push({ path: `images/${id}`, problem: "not complete: who made it died" });
    }
  }
}
