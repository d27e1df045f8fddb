// Upper directories that imgfs has written, shown by other overlays over the image's tree: the same tree, for uppers
// without redirects, metadata-only copies and overrides.
import { beforeAll, describe, expect, it } from "vitest";
import { mount, scratchDirectory, shell, titleOf } from "../e2e/mounted.js";
import {
  change,
  faults,
  fuseOverlay,
  kernelOverlay,
  look,
  makePlace,
  makeSource,
  makeSourceOf,
  mustRunInCi,
  noPeers,
  type Peer,
  type Place,
  type Source,
} from "./peers.js";

mustRunInCi("an upper directory of ours under other overlays");

interface Reader {
  readonly name: string;
  readonly mount: (place: Place) => Promise<Peer>;
  /** How imgfs writes for it. */
  readonly options: readonly string[];
  /** What is not to be done then: options of mutate.py. */
  readonly limits: readonly string[];
  readonly leaveOut: readonly string[];
}

const plain = { options: ["--redirect-dir=off", "--metacopy=off"], limits: ["--refused", "EXDEV"] };

const readers: Reader[] = [
  {
    name: "the kernel's overlayfs",
    mount: (place) => kernelOverlay(place),
    ...plain,
    leaveOut: faults.kernelOverOurs,
  },
  {
    name: "the kernel's overlayfs with userxattr",
    mount: (place) => kernelOverlay(place, ",userxattr"),
    ...plain,
    leaveOut: faults.kernelOverOurs,
  },
  {
    name: "the kernel's overlayfs where it follows redirects and metadata-only copies",
    mount: (place) => kernelOverlay(place, ",redirect_dir=on,metacopy=on"),
    options: [],
    limits: [],
    leaveOut: faults.kernelOverOurs,
  },
  {
    name: "fuse-overlayfs",
    mount: (place) => fuseOverlay(place),
    options: plain.options,
    // Names that begin with `.wh.` are whiteouts to it, wherever they come from.
    limits: [...plain.limits, "--without", "names"],
    leaveOut: faults.fuseOverlayfsOverOurs,
  },
];

/** Operations by name, each in a tree of its own: everything that leaves a mark in an upper directory. */
const chosen: Record<string, string> = {
  "a file removed": "rm etc/motd",
  "a directory removed": "rm -r etc",
  "a directory removed and made anew": "rm -r etc; mkdir etc; echo x > etc/x",
  "a directory in a directory removed and made anew":
    "rm -r etc/deep; mkdir -p etc/deep/er; echo x > etc/deep/er/x",
  "a directory made opaque, removed, and a file in its place":
    "rm -r opaque; mkdir opaque; rm -r opaque; echo x > opaque",
  "a file removed and a directory in its place": "rm etc/motd; mkdir etc/motd; echo x > etc/motd/x",
  "a symlink removed, a FIFO in its place": "rm links/dangling; mkfifo links/dangling",
  "a file moved over another": "mv etc/motd wide/wide-0001",
  "a file moved over a removed one": "rm etc/motd; mv wide/wide-0001 etc/motd",
  "a new directory moved over a removed one": "rm -r etc; mkdir new; echo x > new/x; mv new etc",
  "an emptied directory replaced by a new one":
    "rm user/f1; rmdir user/d; mkdir new; echo x > new/x; mv -T new user",
  "files changed, grown, cut":
    "echo x >> data/4096; truncate -s 10 data/4097; truncate -s 9000 data/4095; : > data/1",
  "metadata of everything":
    "chmod 700 etc suid; chown -h 5:6 etc/motd links/dangling fifo null; touch -h -d @5 links/sym ro",
  "xattrs of a file and a directory":
    "setfattr -n user.new -v x etc; setfattr -x user.note noted; setfattr -n trusted.x -v y capable",
  "hard links of the image changed":
    "echo x >> links/one; chmod 600 other/far; rm links/two; ln links/three links/four",
  "hard links of what was moved": "mv links/one moved; ln moved other/again; rm links/two",
  "a device, a FIFO and a socket made":
    "mknod c c 1 7; mkfifo p; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")'",
  "names of 255 bytes": "n=$(printf %0255d 1); echo x > $n; ln $n etc/$n; rm odd/n*",
  "nothing but a remount": ":",
};

describe.skipIf(noPeers)(titleOf("an upper directory that imgfs has written", noPeers), () => {
  let source: Source;
  /** The same tree in a folder for each of the chosen operations. */
  let many: Source;

  beforeAll(async () => {
    source = await makeSource();
    many = await copies(
      source,
      Object.keys(chosen).map((_, i) => `t${i}`),
    );
  });

  describe.each(readers)("under $name", ({ mount: mountReader, options, limits: without, leaveOut }) => {
    async function compare(work: (path: string) => Promise<unknown>): Promise<void> {
      const place = await makePlace(source.plain);
      const own = ["--upper", place.upper, "--work", `${place.work}.own`];
      const mounted = await mount(source.image, "--devices", ...own, ...options);
      await work(mounted.path);
      const shown = await look(mounted.path, leaveOut);
      await mounted.unmount();
      const peer = await mountReader(place);
      expect(await look(peer.path, leaveOut)).toEqual(shown);
      await peer.unmount();
    }

    it.each([1, 2])("is the same tree, seed %i", async (seed) => {
      await compare((path) => change(path, seed, 200, ...without));
    });

    it("is the same tree after each of the operations that leave marks", async () => {
      const place = await makePlace(many.plain);
      const own = ["--upper", place.upper, "--work", `${place.work}.own`];
      const mounted = await mount(many.image, "--devices", ...own, ...options);
      for (const [i, script] of Object.values(chosen).entries()) {
        await shell(`cd '${mounted.at(`t${i}`)}'\n${script}`);
      }
      const shown = await look(mounted.path, leaveOut);
      await mounted.unmount();
      const peer = await mountReader(place);
      const theirs = await look(peer.path, leaveOut);
      for (const [i, what] of Object.keys(chosen).entries()) {
        const mine = (line: string): boolean =>
          line.includes(`"path":"/t${i}/`) || line.includes(`"path":"/t${i}"`);
        expect([what, ...theirs.filter(mine)]).toEqual([what, ...shown.filter(mine)]);
      }
      expect(theirs).toEqual(shown);
      await peer.unmount();
    });
  });
});

/** An image with the same tree in several folders. */
async function copies({ plain: tree }: Source, folders: readonly string[]): Promise<Source> {
  const folder = scratchDirectory("copies");
  for (const name of folders) await shell(`cp -a '${tree}' '${folder}/${name}'`);
  return makeSourceOf(folder);
}
