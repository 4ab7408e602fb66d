// Copies of a dense matrix in which some neurons have new weights. Shapes: n neurons, D width, F FFN width.
import {narrow} from '../../format/dtype.js';
import {type Rng, shuffle} from '../../util/rng.js';
import {type GluMatrix, gatherNeurons, replaceNeurons} from '../convert-gather.js';
import {type StoredMatrix, valuesOf} from '../convert-source.js';

/** The random numbers of one expert, a stream for each purpose, so that no expert depends on another. */
export type ExpertStreams = (purpose: string) => Rng;

/** Keeps a product such as 0.29 * 100, which is 28.999999999999996, from being rounded down to 28. */
const SLACK = 1e-9;

/** Draws floor(ratio F) of F neurons without replacement, in rising order. */
export function drawNeurons(numNeurons: number, ratio: number, rng: Rng): Int32Array {
  const ids = shuffle(
    Int32Array.from({length: numNeurons}, (_, i) => i),
    rng,
  );
  return ids.subarray(0, Math.floor(ratio * numNeurons + SLACK)).sort();
}

/**
 * A copy of a matrix in which a share of the neurons, the same in all three matrices of an expert, has new weights.
 * They are rounded to the dtype once; all others keep their bits.
 *
 * @param renew makes new weights of old ones, [n, D] for gate and up, [D, n] for down; may write where it reads.
 */
export function renewNeurons(
  matrix: StoredMatrix,
  which: GluMatrix,
  {ratio, streams}: {readonly ratio: number; readonly streams: ExpertStreams},
  renew: (values: Float32Array, rng: Rng) => Float32Array,
): Uint8Array {
  const numNeurons = which === 'down' ? matrix.columns : matrix.rows;
  const neurons = drawNeurons(numNeurons, ratio, streams('neurons'));
  if (neurons.length === 0) return matrix.bytes;
  const old = valuesOf({dtype: matrix.dtype, bytes: gatherNeurons(matrix, which, neurons)});
  return replaceNeurons(matrix, which, neurons, narrow(renew(old, streams(which)), matrix.dtype));
}

/** Mean and standard deviation of some numbers, taken as the whole population. */
export function moments(values: Float32Array): {mean: number; std: number} {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] as number;
  const mean = sum / values.length;
  let squares = 0;
  for (let i = 0; i < values.length; i++) squares += ((values[i] as number) - mean) ** 2;
  return {mean, std: Math.sqrt(squares / values.length)};
}
