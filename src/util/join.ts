/** Typed arrays one after another, as one. */
export function joinFloats(parts: readonly Float32Array[]): Float32Array {
  return fill(new Float32Array(lengthOf(parts)), parts);
}

/** The same for whole numbers. */
export function joinInts(parts: readonly Int32Array[]): Int32Array {
  return fill(new Int32Array(lengthOf(parts)), parts);
}

function lengthOf(parts: readonly {readonly length: number}[]): number {
  return parts.reduce((sum, {length}) => sum + length, 0);
}

function fill<T extends Float32Array | Int32Array>(whole: T, parts: readonly T[]): T {
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
