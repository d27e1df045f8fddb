// Credential helpers: programs `docker-credential-NAME` that get a registry on stdin and answer with JSON
// (docker/docker-credential-helpers). What they print is a secret, and goes nowhere but into the result.
import { spawn } from "node:child_process";
import * as v from "valibot";
import { RegistryError } from "./errors.js";

const Answer = v.object({ Username: v.string(), Secret: v.string() });

const notFound = /credentials not found|no credentials server URL|not found in native keychain/i;
/** Time that a helper may take, ms; one that asks a person needs some. */
const patience = 120_000;
const maxOutput = 1 << 20;

/**
 * What helper `name` has for a registry; undefined where it has nothing. Throws a RegistryError that names the program
 * when it is missing or fails.
 */
export async function askHelper(
  name: string,
  server: string,
  environment: NodeJS.ProcessEnv,
): Promise<{ readonly username: string; readonly secret: string } | undefined> {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name)) {
    throw new RegistryError(
      "configuration",
      `${JSON.stringify(name)} is not the name of a credential helper`,
    );
  }
  const program = `docker-credential-${name}`;
  const fail = (why: string): RegistryError =>
    new RegistryError("configuration", `credential helper ${program} for ${server}: ${why}`);
  const { code, output } = await run(program, server, environment, fail);
  if (code !== 0) {
    if (notFound.test(output)) return undefined;
    throw fail(`it ended with exit code ${code}`);
  }
  let answer: unknown;
  try {
    answer = JSON.parse(output);
  } catch {
    throw fail("its answer is not JSON");
  }
  const parsed = v.safeParse(Answer, answer);
  if (!parsed.success) throw fail("its answer has no Username and Secret");
  const { Username: username, Secret: secret } = parsed.output;
  return username === "" && secret === "" ? undefined : { username, secret };
}

function run(
  program: string,
  server: string,
  environment: NodeJS.ProcessEnv,
  fail: (why: string) => RegistryError,
): Promise<{ readonly code: number | string; readonly output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, ["get"], {
      stdio: ["pipe", "pipe", "ignore"],
      env: environment,
      timeout: patience,
    });
    let output = "";
    child.on("error", ({ code }: NodeJS.ErrnoException) =>
      reject(fail(code === "ENOENT" ? "there is no such program" : `it cannot be run (${code})`)),
    );
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      if (output.length > maxOutput) child.kill();
    });
    // A helper that reads nothing has closed its end.
    child.stdin.on("error", () => {});
    child.stdin.end(`${server}\n`);
    child.on("close", (code, signal) => resolve({ code: code ?? (signal as string), output }));
  });
}
