import type {GluMatrix} from '../convert-gather.js';
import type {StoredMatrix} from '../convert-source.js';
import {type ExpertStreams, moments, renewNeurons} from './neurons.js';

/**
 * Drop-Upcycling (arXiv 2502.19261, section 3): `floor(ratio F)` neurons of an expert are drawn anew, each weight of a
 * matrix from a normal distribution with mean and standard deviation of the weights that this matrix loses.
 *
 * The neurons are the same in all three matrices, as the paper has it; its code draws them for each matrix apart, and
 * shuffles the neurons of every expert before, which changes nothing that is computed.
 */
export function dropNeurons(matrix: StoredMatrix, which: GluMatrix, ratio: number, streams: ExpertStreams): Uint8Array {
  return renewNeurons(matrix, which, {ratio, streams}, (values, rng) => {
    const {mean, std} = moments(values);
    for (let i = 0; i < values.length; i++) values[i] = mean + std * rng.normal();
    return values;
  });
}
