// The config file, and in which order flags, environment and files count.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ConfigError, parseConfig as parseText, readConfigFile } from "../../src/cli/groot/config-file.js";
import { defaultStore, readSettings } from "../../src/cli/groot/settings.js";

let folder: string;
const kept = { ...process.env };

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "imgfs-config-"));
  process.env["XDG_CONFIG_HOME"] = join(folder, "xdg");
  process.env["XDG_DATA_HOME"] = join(folder, "data");
  delete process.env["IMGFS_STORE"];
  delete process.env["IMGFS_CONFIG"];
});

afterEach(() => {
  for (const name of ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "IMGFS_STORE", "IMGFS_CONFIG"]) {
    if (kept[name] === undefined) delete process.env[name];
    else process.env[name] = kept[name];
  }
  rmSync(folder, { recursive: true });
});

const parseConfig = (text: string) => parseText(text, "c.yaml");

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const problemOf = (read: () => unknown): string => {
  try {
    read();
  } catch (cause) {
    expect(cause).toBeInstanceOf(ConfigError);
    return (cause as Error).message;
  }
  return "";
};

describe("the config file", () => {
  it("has GrootFS's keys, with YAML's words for true", () => {
    const { config, unknownKeys } = parseConfig(`
store: /var/vcap/data/grootfs/store/unprivileged
tardis_bin: /var/vcap/packages/grootfs/bin/tardis
newuidmap_bin: newuidmap
newgidmap_bin: newgidmap
metron_endpoint: 127.0.0.1:3457
log_level: info
log_file: /var/log/grootfs.log
create:
  exclude_image_from_quota: yes
  skip_layer_validation: on
  with_clean: true
  clean_log_file: /var/log/clean.log
  without_mount: false
  disk_limit_size_bytes: 1048576
  insecure_registries: [one:5000, two:5000]
  remote_layer_client_certificates_path: /etc/certs
clean:
  threshold_bytes: 0
  threshold_mode: used
  ignore_images:
  - docker:///busybox
init:
  store_size_bytes: 85899345920
  with_direct_io: off
metrics:
  file: /var/lib/node_exporter/imgfs.prom
  log: /var/log/imgfs.metrics
`);
    expect(unknownKeys).toEqual([]);
    expect(config).toEqual({
      store: "/var/vcap/data/grootfs/store/unprivileged",
      tardis_bin: "/var/vcap/packages/grootfs/bin/tardis",
      newuidmap_bin: "newuidmap",
      newgidmap_bin: "newgidmap",
      metron_endpoint: "127.0.0.1:3457",
      log_level: "info",
      log_file: "/var/log/grootfs.log",
      create: {
        exclude_image_from_quota: true,
        skip_layer_validation: true,
        with_clean: true,
        clean_log_file: "/var/log/clean.log",
        without_mount: false,
        disk_limit_size_bytes: 1_048_576,
        insecure_registries: ["one:5000", "two:5000"],
        remote_layer_client_certificates_path: "/etc/certs",
      },
      clean: { threshold_bytes: 0, threshold_mode: "used", ignore_images: ["docker:///busybox"] },
      init: { store_size_bytes: 85_899_345_920, with_direct_io: false },
      metrics: { file: "/var/lib/node_exporter/imgfs.prom", log: "/var/log/imgfs.metrics" },
    });
  });

  it("names keys that are none and goes on; empty files and empty keys say nothing", () => {
    expect(
      parseConfig("log_timestamp_format: rfc3339\ncreate:\n  wiht_clean: true\nconstructor: 1\n"),
    ).toEqual({
      config: { create: {} },
      unknownKeys: ["log_timestamp_format", "create.wiht_clean", "constructor"],
      path: "c.yaml",
    });
    for (const text of ["", "# nothing\n", "---\n"]) {
      expect(parseConfig(text)).toMatchObject({ config: {}, unknownKeys: [] });
    }
    expect(parseConfig("store:\ncreate:\n").config).toEqual({});
  });

  it("is refused with the key that is wrong, and no other way", () => {
    const problem = (text: string): string => problemOf(() => parseConfig(text));
    expect(problem("store: [a]")).toBe("invalid config file: c.yaml: store is not a text");
    expect(problem("create:\n  with_clean: maybe\n")).toBe(
      "invalid config file: c.yaml: create.with_clean is not true or false",
    );
    expect(problem("clean:\n  threshold_bytes: 1.5\n")).toBe(
      "invalid config file: c.yaml: clean.threshold_bytes is not a whole number of bytes",
    );
    expect(problem("create:\n  insecure_registries: one\n")).toBe(
      "invalid config file: c.yaml: create.insecure_registries is not a list of texts",
    );
    expect(problem("clean: {threshold_mode: both}")).toBe(
      "invalid config file: c.yaml: clean.threshold_mode is not committed or used",
    );
    expect(problem("create: yes\n")).toBe(
      "invalid config file: c.yaml: create is no list of keys with values",
    );
    expect(problem("- a\n")).toBe("invalid config file: c.yaml: it is no list of keys with values");
    for (const text of ["store: 'a", "a: b: c\n", "store: &a [*a, *a]\n", "\tstore: a\n"]) {
      expect(problem(text), text).toMatch(/^invalid config file: c\.yaml: [^\n]+$/);
    }
    const levels = "bcdefgh"
      .split("")
      .map((name, i) => `${name}: &${name} [${Array(9).fill(`*${"abcdefg"[i]}`)}]\n`);
    const bomb = `a: &a [x, x, x, x, x, x, x, x, x]\n${levels.join("")}`;
    expect(problem(bomb)).toMatch(/^invalid config file: c\.yaml: yaml: .*alias/);
  });

  it("has 64 bits for bytes, of which a limit needs no more than others can have", () => {
    const bytesOf = (text: string) =>
      parseConfig(`init: {store_size_bytes: ${text}}`).config.init?.store_size_bytes;
    expect(bytesOf("9223372036854775807")).toBe(Number.MAX_SAFE_INTEGER);
    expect(bytesOf("-9223372036854775808")).toBe(-Number.MAX_SAFE_INTEGER);
    expect(problemOf(() => bytesOf("99999999999999999999"))).toBe(
      "invalid config file: c.yaml: init.store_size_bytes is not a whole number of bytes",
    );
  });

  it("must be there where it was named", () => {
    const none = join(folder, "none.yaml");
    expect(problemOf(() => readConfigFile(none))).toBe(
      `invalid config path: open ${none}: no such file or directory`,
    );
    expect(problemOf(() => readConfigFile(folder))).toBe(
      `invalid config path: read ${folder}: is a directory`,
    );
  });
});

describe("settings", () => {
  it("come from flags, then the environment, then the file, then nowhere", () => {
    const config = file("config.yaml", "store: /from/file\nlog_level: info\n");
    expect(readSettings("imgfs", { config })).toMatchObject({
      store: "/from/file",
      isDefaultStore: false,
      configFile: config,
      logLevel: "info",
    });
    process.env["IMGFS_STORE"] = "/from/environment";
    expect(readSettings("imgfs", { config }).store).toBe("/from/environment");
    expect(readSettings("imgfs", { config, store: "/from/flag", logLevel: "debug" })).toMatchObject({
      store: "/from/flag",
      logLevel: "debug",
    });
    process.env["IMGFS_CONFIG"] = file("other.yaml", "log_level: error\n");
    expect(readSettings("imgfs", {}).logLevel).toBe("error");
    expect(readSettings("imgfs", { config }).logLevel).toBe("info");
  });

  it("have a level of the log that is one, but as grootfs, where any other is fatal", () => {
    const config = file("config.yaml", "log_level: chatty\n");
    expect(problemOf(() => readSettings("imgfs", { config }))).toBe(
      `invalid config file: ${config}: log_level is none of error, warn, info, debug, trace, fatal`,
    );
    expect(readSettings("grootfs", { config }).logLevel).toBe("chatty");
  });

  it("of grootfs come from flags and the file that they name, as they always did", () => {
    const config = file("config.yaml", "log_level: info\n");
    process.env["IMGFS_STORE"] = "/from/environment";
    process.env["IMGFS_CONFIG"] = config;
    expect(readSettings("grootfs", {})).toMatchObject({
      store: "/var/lib/grootfs",
      isDefaultStore: true,
      logLevel: undefined,
    });
    expect(readSettings("grootfs", { config }).logLevel).toBe("info");
  });

  it("are those of the user's own file, where nobody names one and the user is not root", () => {
    mkdirSync(join(folder, "xdg/imgfs"), { recursive: true });
    file("xdg/imgfs/config.yaml", "store: /of/user\n");
    const euid = process.geteuid;
    process.geteuid = () => 1000;
    try {
      expect(readSettings("imgfs", {}).store).toBe("/of/user");
      rmSync(join(folder, "xdg"), { recursive: true });
      expect(readSettings("imgfs", {})).toMatchObject({
        store: join(folder, "data/imgfs"),
        isDefaultStore: true,
      });
      expect(defaultStore("grootfs")).toBe("/var/lib/grootfs");
      process.geteuid = () => 0;
      expect(defaultStore("imgfs")).toBe("/var/lib/imgfs");
    } finally {
      if (euid !== undefined) process.geteuid = euid;
    }
  });
});
