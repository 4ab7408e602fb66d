import {createRng} from '../../src/util/rng.js';

/** Values of a tensor outside every engine: what a law gives to one and gets back. */
export interface Host {
  readonly shape: readonly number[];
  readonly dtype: 'float32' | 'int32' | 'bool';
  readonly values: Float32Array | Int32Array | Uint8Array;
}

/** A float32 array in row-major order. */
export function floats(shape: readonly number[], values: ArrayLike<number>): Host {
  return {shape, dtype: 'float32', values: Float32Array.from(values)};
}

/** An int32 array in row-major order. */
export function ints(shape: readonly number[], values: ArrayLike<number>): Host {
  return {shape, dtype: 'int32', values: Int32Array.from(values)};
}

/** Standard normal float32 numbers, the same at each run. */
export function normals(shape: readonly number[], seed: number): Host {
  const rng = createRng(seed, 'test');
  return floats(
    shape,
    Float32Array.from({length: sizeOf(shape)}, () => rng.normal()),
  );
}

/** Integers below `bound`, the same at each run. */
export function integers(shape: readonly number[], bound: number, seed: number): Host {
  const rng = createRng(seed, 'test');
  return ints(
    shape,
    Int32Array.from({length: sizeOf(shape)}, () => rng.int(bound)),
  );
}

/** Product of the dimensions. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/** Σ aᵢ·bᵢ in float64. */
export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
