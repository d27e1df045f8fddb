// The two ways an image can be wrong. Damage is always Corrupt; layers that do not fit together are a LinkError.
import { displayName, type Name } from "../base/bytes.js";

/** Damage in a file of ours: the message names the file, the section and the record. */
export class Corrupt extends Error {
  readonly file: string;
  readonly section: string;
  readonly record: string;
  readonly problem: string;

  constructor(file: string, section: string, record: string, problem: string) {
    super(`${file}: ${section}: ${record === "" ? "" : `${record}: `}${problem}`);
    this.name = "Corrupt";
    this.file = file;
    this.section = section;
    this.record = record;
    this.problem = problem;
  }
}

/** A file of ours that is sound as far as one can tell, but needs a newer reader. */
export class Unsupported extends Error {
  constructor(file: string, what: string) {
    super(`${file}: ${what} is not supported by this version`);
    this.name = "Unsupported";
  }
}

/** A hard link whose target the layers below do not have, or have as a directory. */
export class LinkError extends Error {
  readonly link: Name;
  readonly target: Name;

  constructor(file: string, link: Name, target: Name, problem: string) {
    super(`${file}: hard link ${displayName(link)} to ${displayName(target)}: ${problem}`);
    this.name = "LinkError";
    this.link = link;
    this.target = target;
  }
}
