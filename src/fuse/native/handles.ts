// Open files. The addon carries a handle of 32 bits, and 0 stands for none.

export interface Handle {
  readonly nodeid: number;
  /** The filesystem's own handle. */
  readonly fh: number;
}

export class Handles {
  private readonly open: Array<Handle | undefined> = [undefined];
  private readonly free: number[] = [];

  add(handle: Handle): number {
    const number = this.free.pop() ?? this.open.length;
    this.open[number] = handle;
    return number;
  }

  get(number: number): Handle | undefined {
    return this.open[number];
  }

  remove(number: number): Handle | undefined {
    const handle = this.open[number];
    if (handle === undefined) return undefined;
    this.open[number] = undefined;
    this.free.push(number);
    return handle;
  }
}
