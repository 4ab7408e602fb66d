import type {GluMatrix} from '../convert-gather.js';
import {type StoredMatrix, valuesOf} from '../convert-source.js';
import {type ExpertStreams, moments, renewNeurons} from './neurons.js';

/**
 * Noise upcycling (a baseline of Drop-Upcycling, arXiv 2502.19261): `W + noise · std(W) · N(0, 1)` on `floor(ratio F)`
 * neurons of an expert.
 *
 * The baseline's code adds noise of std 0.02 whatever the model; relative noise means the same for weights of every size.
 */
export function addNoise(
  matrix: StoredMatrix,
  which: GluMatrix,
  {noise, ratio}: {readonly noise: number; readonly ratio: number},
  streams: ExpertStreams,
): Uint8Array {
  if (noise === 0) return matrix.bytes; // adding zero would turn -0 into 0
  const std = noise * moments(valuesOf(matrix)).std;
  return renewNeurons(matrix, which, {ratio, streams}, (values, rng) => {
    for (let i = 0; i < values.length; i++) values[i] = (values[i] as number) + std * rng.normal();
    return values;
  });
}
