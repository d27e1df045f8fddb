// What a library writes to descriptor 2, taken instead of shown.
import { readSync } from "node:fs";
import { closeFd, duplicateFd } from "./files.js";
import { bind } from "./libc.js";

const memfdCreate = bind<[string, number]>("memfd_create", "int", ["const char *", "uint32_t"]);
const dup2 = bind<[number, number]>("dup2", "int", ["int", "int"]);
const MFD_CLOEXEC = 1;
const TEXT_LIMIT = 4096;

/**
 * Runs `call`, and gives what was written to descriptor 2 meanwhile by this process or a child that it waits for, at
 * most 4 KiB of it. Where that cannot be had it is written as ever, and the text is empty. Rethrows nothing: what
 * `call` throws is `error`.
 */
export function takingStderr(call: () => void): { readonly text: string; readonly error: unknown } {
  const kept = duplicateFd(2);
  const memory = kept < 0 ? -1 : memfdCreate("stderr", MFD_CLOEXEC);
  if (memory >= 0) dup2(memory, 2);
  let error: unknown;
  try {
    call();
  } catch (cause) {
    error = cause;
  }
  let text = "";
  if (memory >= 0) {
    dup2(kept, 2);
    const bytes = Buffer.alloc(TEXT_LIMIT);
    text = bytes.toString("utf8", 0, readSync(memory, bytes, 0, TEXT_LIMIT, 0));
    closeFd(memory);
  }
  if (kept >= 0) closeFd(kept);
  return { text, error };
}
