/**
 * Room for the rows of each expert, as a multiple of an even share.
 *
 * A compiled step has fixed shapes, so rows are padded to a bucket; a step that overflows is run again with the next.
 * The last bucket is `Infinity`: every expert computes every token, which nothing can overflow.
 */
export const CAPACITY_BUCKETS = [1.25, 1.5, 2, 3, Number.POSITIVE_INFINITY] as const;

/** Rows are a multiple of this, for the sake of matmul kernels. */
const ROW_MULTIPLE = 8;

/** Beyond this share of the tokens, gathering rows costs more than computing every token in one plain matmul. */
const GATHER_LIMIT = 0.5;

/** Rows of one expert for T tokens choosing K of E, or `'all'` when every token is computed. */
export function expertRows(factor: number, T: number, K: number, E: number): number | 'all' {
  const rows = Math.ceil((factor * T * K) / E / ROW_MULTIPLE) * ROW_MULTIPLE;
  return rows < T * GATHER_LIMIT ? rows : 'all';
}

/** The smallest bucket that holds `load` rows, with T, K and E as in {@link expertRows}. */
export function bucketFor(load: number, T: number, K: number, E: number): number {
  const fits = CAPACITY_BUCKETS.find((factor) => {
    const rows = expertRows(factor, T, K, E);
    return rows === 'all' || rows >= load;
  });
  return fits ?? Number.POSITIVE_INFINITY;
}
