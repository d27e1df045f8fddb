// Mounts the filesystem beside this file until Ctrl-C: node hello.js MOUNTPOINT [GREETING]
import { MountFailure, serveFileSystem } from "imgfs/fuse";

const [mountpoint = "", greeting] = process.argv.slice(2);
const module = new URL("./hello-filesystem.js", import.meta.url);

try {
  process.exitCode = await serveFileSystem(module, mountpoint, {
    readOnly: true,
    ...(greeting === undefined ? {} : { settings: { greeting } }),
  });
} catch (cause) {
  if (!(cause instanceof MountFailure)) throw cause;
  process.stderr.write(`hello: ${cause.message}\n`);
  process.exit(cause.exitCode);
}
