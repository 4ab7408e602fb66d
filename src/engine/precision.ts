/** What inputs and results of matrix products are rounded to; routers, optimizers and all else stay in float32. */
export type Precision = 'float32' | 'bfloat16';

let current: Precision = 'float32';

/** Runs `fn` with the matmul precision of the function being compiled. */
export function withPrecision<T>(precision: Precision, fn: () => T): T {
  const previous = current;
  current = precision;
  try {
    return fn();
  } finally {
    current = previous;
  }
}

/** The precision that matmul kernels use now. */
export function matmulPrecision(): Precision {
  return current;
}
