import {createRng, mix} from './rng.js';

/** Where each index of a permuted sequence comes from; constant time and memory. */
export type Permutation = (index: number) => number;

/** Luby and Rackoff need four of ideal functions; more make up for simple ones and for small halves. */
const ROUNDS = 8;

/**
 * A random permutation of the numbers below `size` that is computed number by number, so that nothing is held.
 *
 * A Feistel network over the next power of two, keyed by seed and purpose; results at or above `size` are put through it
 * again until one lies below, fewer than two times on average (cycle walking; Black and Rogaway 2002).
 * @param size from 1 to 2^52.
 */
export function createPermutation(size: number, seed: number, purpose: string): Permutation {
  const rng = createRng(seed, purpose);
  const keys = Uint32Array.from({length: ROUNDS}, () => rng.uint32());
  const bits = Math.ceil(Math.log2(size));
  const highSpan = 2 ** Math.floor(bits / 2);
  const lowSpan = 2 ** Math.ceil(bits / 2);
  const scramble = (value: number): number => {
    let [high, low, span, otherSpan] = [Math.floor(value / lowSpan), value % lowSpan, highSpan, lowSpan];
    for (const key of keys) {
      [high, low] = [low, (high ^ mix(key, low)) & (span - 1)]; // the halves change places, and with them their sizes
      [span, otherSpan] = [otherSpan, span];
    }
    return high * lowSpan + low;
  };
  return (index) => {
    let value = scramble(index);
    while (value >= size) value = scramble(value);
    return value;
  };
}
