import type {FfnLayout} from './architecture.js';

/**
 * Room for the rows of each expert, as a multiple of an even share.
 *
 * A compiled step has fixed shapes, so rows are padded to a bucket; a step that overflows is run again with the next.
 * The last bucket is `Infinity`: every expert computes every token, which nothing can overflow.
 */
export const CAPACITY_BUCKETS = [1.25, 1.5, 1.75, 2, 2.5, 3, Number.POSITIVE_INFINITY] as const;

/** Rows are a multiple of this, for the sake of matmul kernels. */
const ROW_MULTIPLE = 8;

/** Gathering a row and adding it back costs about as much as this many more columns of its expert (docs/log.md). */
const GATHER_COLUMNS = 64;

type MoeLayout = Pick<Extract<FfnLayout, {kind: 'moe'}>, 'experts' | 'topK' | 'expertWidth'>;

/** Rows of one expert for T tokens: an even share times `factor`. */
export function roomyRows(factor: number, T: number, {experts, topK}: MoeLayout): number {
  return Math.ceil((factor * T * topK) / experts / ROW_MULTIPLE) * ROW_MULTIPLE;
}

/** The same, or `'all'` where computing every token in plain matmuls is cheaper than gathering that many rows. */
export function expertRows(factor: number, T: number, layout: MoeLayout): number | 'all' {
  const {expertWidth: F} = layout;
  const rows = roomyRows(factor, T, layout);
  return rows * (F + GATHER_COLUMNS) < T * F ? rows : 'all';
}

/** The smallest bucket with room for `load` rows. */
export function bucketFor(load: number, T: number, layout: MoeLayout): number {
  const fits = CAPACITY_BUCKETS.find((factor) => {
    const rows = expertRows(factor, T, layout);
    return rows === 'all' || rows >= load;
  });
  return fits ?? Number.POSITIVE_INFINITY;
}
