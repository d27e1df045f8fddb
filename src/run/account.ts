// Who the command runs as: `USER[:GROUP]` by the image's own /etc/passwd and /etc/group, as docker and podman read it.
import { RunFailure } from "./request.js";

export interface Account {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  readonly home: string;
  /** The name in passwd, if it has one. */
  readonly name: string | undefined;
}

interface Entry {
  readonly name: string;
  readonly fields: readonly string[];
}

/** Lines of passwd(5) or group(5) with a number as third field. */
function entries(text: string): Entry[] {
  return text
    .split("\n")
    .map((line) => line.split(":"))
    .filter((fields) => fields.length >= 3 && /^\d+$/.test(fields[2] as string))
    .map((fields) => ({ name: fields[0] as string, fields }));
}

/**
 * The account behind `user` in the texts of passwd and group. A number needs no entry; a name does, or it is a
 * RunFailure. Supplementary groups are those that list the user, unless a group was named.
 */
export function findAccount(user: string, passwd: string, group: string): Account {
  const [who = "", which] = user.split(":", 2);
  const users = entries(passwd);
  const wanted = who === "" ? "0" : who;
  const isNumber = /^\d{1,10}$/.test(wanted);
  const entry = users.find(({ name }) => name === wanted) ?? users.find(({ fields }) => fields[2] === wanted);
  if (entry === undefined && !isNumber) throw new RunFailure(`no user ${wanted} in the image's /etc/passwd`);
  const uid = Number(entry?.fields[2] ?? wanted);
  const groups = entries(group);
  const name = entry?.name;
  const home = entry?.fields[5] || "/";
  if (which !== undefined && which !== "") {
    const named =
      groups.find((each) => each.name === which) ?? groups.find(({ fields }) => fields[2] === which);
    if (named === undefined && !/^\d{1,10}$/.test(which)) {
      throw new RunFailure(`no group ${which} in the image's /etc/group`);
    }
    return { uid, gid: Number(named?.fields[2] ?? which), groups: [], home, name };
  }
  const listed = groups.filter(
    ({ fields }) => name !== undefined && (fields[3] ?? "").split(",").includes(name),
  );
  return {
    uid,
    gid: Number(/^\d+$/.test(entry?.fields[3] ?? "") ? entry?.fields[3] : 0),
    groups: listed.map(({ fields }) => Number(fields[2])),
    home,
    name,
  };
}
