// The config.json of a bundle (runtime-spec 1.0): what the image's config says of the process, in surroundings as docker
// gives them. Without privileges it has a user namespace, the caller's network, and no limits.
import type { IdRange } from "../../daemon/id-maps.js";
import type { CommandRequest } from "../../run/request.js";

export interface RuntimeProcess {
  readonly command: CommandRequest;
  /** The words with the shell that stands in for none. */
  readonly args: readonly string[];
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  readonly terminal: boolean;
}

export interface RuntimeRequest {
  readonly process: RuntimeProcess;
  /** Absolute. */
  readonly rootfs: string;
  readonly hostname: string;
  readonly rootless: boolean;
  /** Of the user namespace; without them there is none. */
  readonly maps?: { readonly uid: readonly IdRange[]; readonly gid: readonly IdRange[] };
}

/** What docker leaves to a container's root. */
const capabilities = [
  "CAP_AUDIT_WRITE",
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_MKNOD",
  "CAP_NET_BIND_SERVICE",
  "CAP_NET_RAW",
  "CAP_SETFCAP",
  "CAP_SETGID",
  "CAP_SETPCAP",
  "CAP_SETUID",
  "CAP_SYS_CHROOT",
];

/** The config, to be written as JSON. */
export function runtimeConfig(request: RuntimeRequest): object {
  const { process, rootfs, hostname, maps } = request;
  const { command, args, uid, gid, groups, terminal } = process;
  const held = uid === 0 ? capabilities : [];
  return {
    ociVersion: "1.0.2",
    process: {
      terminal,
      user: { uid, gid, ...(groups.length === 0 ? {} : { additionalGids: groups }) },
      args,
      env: Object.entries(command.env).map(([name, value]) => `${name}=${value}`),
      cwd: command.workdir,
      capabilities: { bounding: capabilities, effective: held, permitted: held },
      rlimits: [{ type: "RLIMIT_NOFILE", hard: 1024, soft: 1024 }],
      noNewPrivileges: false,
    },
    root: { path: rootfs, readonly: false },
    hostname,
    mounts: mountsOf(request),
    linux: {
      ...(maps === undefined
        ? {}
        : { uidMappings: maps.uid.map(mappingOf), gidMappings: maps.gid.map(mappingOf) }),
      ...(request.rootless ? {} : { resources: { devices: [{ allow: false, access: "rwm" }] } }),
      namespaces: namespacesOf(request).map((type) => ({ type })),
      maskedPaths: [
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/sys/firmware",
        "/proc/scsi",
      ],
      readonlyPaths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
  };
}

function mappingOf({ image, host, count }: IdRange): object {
  return { containerID: image, hostID: host, size: count };
}

function namespacesOf({ rootless, maps }: RuntimeRequest): string[] {
  const user = maps === undefined ? [] : ["user"];
  return ["pid", ...(rootless ? [] : ["network"]), "ipc", "uts", "mount", ...user];
}

function mountsOf({ rootless, maps }: RuntimeRequest): object[] {
  const noGroupOfTty =
    maps !== undefined && !maps.gid.some(({ image, count }) => image <= 5 && 5 < image + count);
  const quiet = ["nosuid", "noexec", "nodev"];
  const pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
  return [
    { destination: "/proc", type: "proc", source: "proc" },
    {
      destination: "/dev",
      type: "tmpfs",
      source: "tmpfs",
      options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
      destination: "/dev/pts",
      type: "devpts",
      source: "devpts",
      options: noGroupOfTty ? pts : [...pts, "gid=5"],
    },
    {
      destination: "/dev/shm",
      type: "tmpfs",
      source: "shm",
      options: [...quiet, "mode=1777", "size=65536k"],
    },
    { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: quiet },
    // Who has the network of the host may not mount sysfs in a user namespace.
    rootless
      ? { destination: "/sys", type: "none", source: "/sys", options: ["rbind", ...quiet, "ro"] }
      : { destination: "/sys", type: "sysfs", source: "sysfs", options: [...quiet, "ro"] },
  ];
}
