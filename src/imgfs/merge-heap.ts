// What takes the layers' entries of one directory in order: a cursor for each layer, and a binary heap of cursors with
// the smallest name on top, of equal names that of the topmost layer.
import { compareBytes } from "./names.js";

/** A layer's place in the directory that is being merged, standing on one entry. */
export interface Cursor {
  layer: number;
  directory: number;
  next: number;
  end: number;
  hash: number;
  type: number;
  entry: number;
  bytes: Uint8Array;
  start: number;
  nameEnd: number;
}

function compare(a: Cursor, b: Cursor): number {
  return (
    a.hash - b.hash ||
    compareBytes(a.bytes, a.start, a.nameEnd, b.bytes, b.start, b.nameEnd) ||
    b.layer - a.layer
  );
}

export function sameName(a: Cursor, b: Cursor): boolean {
  return a.hash === b.hash && compareBytes(a.bytes, a.start, a.nameEnd, b.bytes, b.start, b.nameEnd) === 0;
}

export function pushHeap(heap: Cursor[], cursor: Cursor): void {
  let at = heap.length;
  heap.push(cursor);
  while (at > 0) {
    const up = (at - 1) >> 1;
    const parent = heap[up] as Cursor;
    if (compare(parent, cursor) <= 0) break;
    heap[at] = parent;
    at = up;
  }
  heap[at] = cursor;
}

export function popHeap(heap: Cursor[]): Cursor {
  const top = heap[0] as Cursor;
  const last = heap.pop() as Cursor;
  if (heap.length === 0) return top;
  let at = 0;
  for (;;) {
    let child = at * 2 + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && compare(heap[child + 1] as Cursor, heap[child] as Cursor) < 0) child++;
    if (compare(last, heap[child] as Cursor) <= 0) break;
    heap[at] = heap[child] as Cursor;
    at = child;
  }
  heap[at] = last;
  return top;
}
