// An image to run commands on, with a config: what `imgfs run` reads of one, and programs of this machine.
import { userland } from "./make-image.js";
import { build, scratch, shell } from "./mounted.js";
import { editLayout, writeLayout } from "./oci-writer.js";
import { layerTar, type TarEntry } from "./tar-writer.js";

const programs =
  "bash sh cat id ls stat sleep chown chmod env touch stty tty ps grep wc head tr sed sort".split(" ");

const folder = (name: string, more: Partial<TarEntry> = {}): TarEntry => ({ name, type: "dir", ...more });
const file = (name: string, text: string, more: Partial<TarEntry> = {}): TarEntry => ({
  name,
  data: Buffer.from(text),
  ...more,
});

/** Owners, an account, traps for whoever resolves a path of the image on the host. */
function tree(): Buffer {
  return layerTar([
    folder("tmp", { mode: 0o1777 }),
    folder("etc"),
    file("etc/passwd", "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n"),
    file("etc/group", "root:x:0:\nweb:x:1000:\nextra:x:2000:web\n"),
    file("etc/motd", "of the image\n"),
    file("etc/hosts", ""),
    file("etc/mail", "of mail\n", { uid: 8, gid: 8 }),
    folder("srv", { uid: 1000, gid: 1000 }),
    file("bin/no-program", "no program\n", { mode: 0o644 }),
    file("bin/no-format", "no format\n", { mode: 0o755 }),
    file("bin/no-interpreter", "#!/no/such\n", { mode: 0o755 }),
    { name: "out", type: "symlink", link: "/tmp/imgfs-run-must-not-make-this" },
  ]);
}

/** Builds it with the given part `config` of the OCI config; open to all users. */
export async function buildRunnable(
  config: object | undefined,
  layers: readonly Buffer[] = [userland(programs.map(pathOf)), tree()],
  ...options: readonly string[]
): Promise<string> {
  const layout = scratch("layout");
  writeLayout(layout, layers);
  editLayout(layout, (image) => {
    const whole = image.config as { config?: object };
    if (config === undefined) delete whole.config;
    else whole.config = config;
  });
  const image = await build(`oci:${layout}`, ...options);
  await shell(`chmod -R a+rX '${image}'`);
  return image;
}

/** Where Debian has them. */
function pathOf(program: string): string {
  const inBin = /^(bash|sh|cat|sed|grep|ls|stty|sleep|touch|chown|chmod)$/.test(program);
  return inBin ? `/bin/${program}` : `/usr/bin/${program}`;
}
