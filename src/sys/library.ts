// C libraries that may or may not be on a system, and addresses of buffers to put into the records they take. Node's
// program itself is one of them: what it links, it exports for addons. Nothing here fails when a library is missing:
// the caller has another way.
import { createRequire } from "node:module";

const koffi = createRequire(import.meta.url)("koffi") as typeof import("koffi");

/** A C function that can also run in a thread of libuv's pool, which then owns its buffers until the callback. */
export type CFunction<F extends (...args: never[]) => unknown> = F & {
  readonly async: (...args: [...Parameters<F>, (error: Error | null, result: ReturnType<F>) => void]) => void;
};

/** Binds a C function; types as koffi names them. Throws when the library lacks it. */
export type BindFunction = <F extends (...args: never[]) => unknown>(
  name: string,
  result: string,
  parameters: readonly string[],
) => CFunction<F>;

/** Opens a shared library by its soname, or with null what the program has; undefined where there is none that loads. */
export function openLibrary(soname: string | null): BindFunction | undefined {
  try {
    // Deep: a library must find its own functions before those of the same name in Node, which may be of another version.
    const library = koffi.load(soname, { deep: soname !== null });
    return <F extends (...args: never[]) => unknown>(
      name: string,
      result: string,
      parameters: readonly string[],
    ) => library.func(name, result, [...parameters]) as unknown as CFunction<F>;
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

/** The NUL-terminated text at an address got from a library. */
export function textAt(address: bigint): string {
  return koffi.decode(address, "char", -1) as string;
}

/** The result of a bound function's call in a thread of the pool. */
export function callAside<F extends (...args: never[]) => unknown>(
  call: CFunction<F>,
  ...args: Parameters<F>
): Promise<ReturnType<F>> {
  return new Promise((resolve, reject) => {
    call.async(...args, (error, result) => (error === null ? resolve(result) : reject(error)));
  });
}
