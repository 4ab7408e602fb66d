import {expect} from 'vitest';

interface Tolerance {
  readonly rtol?: number;
  readonly atol?: number;
}

type Numbers = ArrayLike<number> | readonly unknown[] | number;

declare module 'vitest' {
  interface Matchers {
    /** Every element within `atol + rtol * |expected|`, and none NaN; nested arrays are flattened. */
    toBeAllClose(expected: Numbers, tolerance?: Tolerance): void;
  }
}

expect.extend({
  toBeAllClose(received: Numbers, expected: Numbers, {rtol = 1e-5, atol = 1e-6}: Tolerance = {}) {
    const a = flatten(received);
    const b = flatten(expected);
    if (a.length !== b.length) {
      return {pass: false, message: () => `expected ${b.length} numbers, received ${a.length}`};
    }
    const excess = (i: number): number => Math.abs(a[i]! - b[i]!) - (atol + rtol * Math.abs(b[i]!));
    let worst = -1;
    for (let i = 0; i < a.length; i++) {
      if (Object.is(a[i], b[i]) && !Number.isNaN(a[i])) continue; // infinities are alike, what is not a number is like nothing
      if (!(excess(i) <= 0) && (worst < 0 || !(excess(i) <= excess(worst)))) worst = i;
    }
    return {
      pass: worst < 0,
      message: () =>
        worst < 0
          ? 'expected the numbers to differ'
          : `element ${worst}: received ${a[worst]}, expected ${b[worst]} (rtol ${rtol}, atol ${atol})`,
    };
  },
});

function flatten(values: Numbers): number[] {
  if (typeof values === 'number') return [values];
  return Array.from(values as ArrayLike<Numbers>, flatten).flat();
}
