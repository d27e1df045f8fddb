// Shared libraries other than libc that may or may not be on a system, and addresses of buffers to put into the
// records they take. Nothing here fails when a library is missing: the caller has another way.
import { createRequire } from "node:module";

const koffi = createRequire(import.meta.url)("koffi") as typeof import("koffi");

/** Binds a C function; types as koffi names them. Throws when the library lacks it. */
export type BindFunction = <F extends (...args: never[]) => unknown>(
  name: string,
  result: string,
  parameters: readonly string[],
) => F;

/** Opens a shared library by its soname; undefined where the system has none that loads. */
export function openLibrary(soname: string): BindFunction | undefined {
  try {
    const library = koffi.load(soname);
    return <F extends (...args: never[]) => unknown>(
      name: string,
      result: string,
      parameters: readonly string[],
    ) => library.func(name, result, [...parameters]) as unknown as F;
  } catch {
    return undefined;
  }
}

/**
 * The address of a buffer's first byte, for a record that a C function reads. The caller keeps the buffer alive. A
 * buffer's memory does not move when it was made with `Buffer.allocUnsafeSlow`, came from a region, or is larger than
 * the 64 bytes that V8 keeps in its own heap.
 */
export function addressOf(bytes: Uint8Array): number {
  return Number(koffi.address(bytes));
}
