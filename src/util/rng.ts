/** The whole state of a generator: four 32-bit words, ready for JSON. */
export type RngState = readonly [number, number, number, number];

/** A seeded stream of random numbers (xoshiro128**, Blackman and Vigna 2018). */
export interface Rng {
  /** Uniform integer in [0, 2^32). */
  uint32(): number;
  /** Uniform in [0, 1) with 53 random bits. */
  uniform(): number;
  /** Uniform integer in [0, bound). */
  int(bound: number): number;
  /** Standard normal (Box-Muller, one value a call so that the state alone resumes it). */
  normal(): number;
  /** A copy of the state, to be stored in a checkpoint. */
  state(): RngState;
}

/** A stream for one purpose, derived from the seed by name, so that streams never share numbers. */
export function createRng(seed: number, purpose: string): Rng {
  let hash = mix(seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0);
  for (let i = 0; i < purpose.length; i++) hash = mix(hash, purpose.charCodeAt(i));
  return restoreRng([mix(hash, 1), mix(hash, 2), mix(hash, 3), mix(hash, 4) | 1]);
}

/** A generator that continues where `state` was taken. */
export function restoreRng(state: RngState): Rng {
  let [a, b, c, d] = state.map((word) => word >>> 0) as [number, number, number, number];
  const uint32 = (): number => {
    const result = Math.imul(rotateLeft(Math.imul(b, 5), 7), 9) >>> 0;
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = rotateLeft(d, 11);
    return result;
  };
  const uniform = (): number => ((uint32() >>> 5) * 2 ** 26 + (uint32() >>> 6)) / 2 ** 53;
  return {
    uint32,
    uniform,
    int: (bound) => Math.floor(uniform() * bound),
    normal: () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
    state: () => [a >>> 0, b >>> 0, c >>> 0, d >>> 0],
  };
}

/** Shuffles in place (Fisher-Yates) and returns the same array. */
export function shuffle<T extends {length: number; [index: number]: number}>(values: T, rng: Rng): T {
  for (let i = values.length - 1; i > 0; i--) {
    const j = rng.int(i + 1);
    const kept = values[i] as number;
    values[i] = values[j] as number;
    values[j] = kept;
  }
  return values;
}

function rotateLeft(x: number, bits: number): number {
  return (x << bits) | (x >>> (32 - bits));
}

/** A 32-bit hash of a pair of words: the murmur3 finaliser over both. */
export function mix(hash: number, word: number): number {
  let h = Math.imul(hash ^ word, 0x9e3779b1);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
