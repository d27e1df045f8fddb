// Id maps of the store's commands: `NAMESPACE-ID:HOST-ID:SIZE`, repeatable, with GrootFS's refusals and those of
// newuidmap(1).
import { type IdRange, parseIdMap } from "../../daemon/id-maps.js";
import { ownSubordinateRanges } from "../../run/sub-ids.js";
import { messageOf } from "../failure.js";

export interface Maps {
  readonly uid: readonly IdRange[];
  readonly gid: readonly IdRange[];
}

/** A mapping that is refused; the message names which kind. */
export class MappingError extends Error {}

/**
 * The maps that the options ask for; both empty when they ask for none. An ordinary user must map 0 to itself, alone, and
 * other ids to those that /etc/subuid and /etc/subgid set aside. Throws MappingError.
 */
export function readMaps(
  uidMappings: readonly string[] | undefined,
  gidMappings: readonly string[] | undefined,
): Maps {
  const uid = parse("uid", uidMappings ?? []);
  const gid = parse("gid", gidMappings ?? []);
  if (process.geteuid?.() !== 0) {
    checkOwn("uid", uid, process.geteuid?.() ?? 0, "/etc/subuid");
    checkOwn("gid", gid, process.getegid?.() ?? 0, "/etc/subgid");
  }
  return { uid, gid };
}

/**
 * The maps of a new store for which nobody has named any: an ordinary user's shows root's files as the user's, without which
 * nothing of an image could be changed; root's has none.
 */
export function defaultMaps(): Maps {
  const uid = process.geteuid?.() ?? 0;
  if (uid === 0) return { uid: [], gid: [] };
  return {
    uid: [{ image: 0, host: uid, count: 1 }],
    gid: [{ image: 0, host: process.getegid?.() ?? uid, count: 1 }],
  };
}

function parse(kind: "uid" | "gid", texts: readonly string[]): IdRange[] {
  let ranges: IdRange[] = [];
  for (const text of texts) {
    const problem = scanProblem(text);
    if (problem !== undefined) throw new MappingError(`parsing ${kind}-mapping: ${problem}`);
    try {
      ranges = parseIdMap(text, ranges);
    } catch (cause) {
      throw new MappingError(`parsing ${kind}-mapping: ${messageOf(cause)}`);
    }
  }
  return ranges;
}

/** What Go's fmt.Sscanf(text, "%d:%d:%d") says against a text; undefined when nothing. */
function scanProblem(text: string): string | undefined {
  let rest = text;
  for (let field = 0; field < 3; field++) {
    if (rest === "") return "unexpected EOF";
    if (field > 0) {
      if (!rest.startsWith(":")) return "input does not match format";
      rest = rest.slice(1);
      if (rest === "") return "unexpected EOF";
    }
    const number = /^[+-]?\d+/.exec(rest);
    if (number === null) return "expected integer";
    rest = rest.slice(number[0].length);
  }
  // GrootFS takes whatever follows the third number.
  return rest === "" ? undefined : "input does not match format";
}

function checkOwn(kind: "uid" | "gid", ranges: readonly IdRange[], own: number, file: string): void {
  if (ranges.length === 0) return;
  if (!ranges.some(({ image, host, count }) => image === 0 && host === own && count === 1)) {
    throw new MappingError(`${kind} mappings: root must be mapped to its own id: 0:${own}:1`);
  }
  const allowed = ownSubordinateRanges(file);
  for (const { image, host, count } of ranges) {
    if (image === 0 && host === own && count === 1) continue;
    if (allowed.some(([first, size]) => host >= first && host + count <= first + size)) continue;
    throw new MappingError(
      `${kind} range [${image}-${image + count}) -> [${host}-${host + count}) not allowed`,
    );
  }
}
