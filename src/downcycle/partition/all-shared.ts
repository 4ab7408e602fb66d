// Static pruning, the control of every routed conversion: what could be had at the same cost without choosing anything.
import {chunkWidth, type LayerShape} from '../allocation.js';
import type {LayerPlan} from '../plan.js';
import {columnMeans, type LayerProfile, markerCounts, meanMagnitude, rankAscending} from '../statistics.js';

/** What makes a neuron worth its place. */
export type KeepBy = 'mean-abs' | 'magnitude' | 'variance' | 'markers' | 'sensitivity';

/**
 * The `shared + topK` chunks of most worth, for every token. Their places are all filled with neurons of the dense FFN, as
 * far as it has so many: the control is as wide as what it is compared with, and never holds padding.
 */
export function allSharedSplit(profile: LayerProfile, shape: LayerShape, keepBy: KeepBy): LayerPlan {
  const count = (shape.shared + shape.topK) * chunkWidth(profile.numNeurons, shape);
  return {shared: worthiest(neuronWorth(profile, keepBy), count), experts: [], topK: 0};
}

/** The `count` neurons of most worth, ids ascending; the lower id wins a tie. */
export function worthiest(worth_F: Float64Array, count: number): Int32Array {
  return rankAscending(worth_F.map((value) => -value))
    .slice(0, count)
    .sort();
}

/** Worth of every neuron, [F]. */
export function neuronWorth(profile: LayerProfile, keepBy: KeepBy): Float64Array {
  switch (keepBy) {
    case 'mean-abs':
      return meanMagnitude(profile);
    case 'magnitude':
      return contribution(profile);
    case 'variance':
      return flapScore(profile);
    case 'markers':
      return Float64Array.from(markerCounts(profile));
    case 'sensitivity':
      return Float64Array.from(profile.gradients?.sensitivity_F ?? []);
  }
}

/** Mean |h_i|·|Wd_i|: how long what a neuron adds to the residual stream is. */
export function contribution({hMagnitude_F, downNorm_F}: LayerProfile): Float64Array {
  return Float64Array.from(hMagnitude_F, (magnitude, i) => magnitude * (downNorm_F[i] as number));
}

/** Var(h_i)·|Wd_i|² over all tokens (FLAP, arXiv 2312.11983). */
export function flapScore({hMean_JF, hSquare_JF, downNorm_F, numNeurons}: LayerProfile): Float64Array {
  const [mean_F, square_F] = [columnMeans(hMean_JF, numNeurons), columnMeans(hSquare_JF, numNeurons)];
  const variance = (mean: number, i: number): number => Math.max(0, (square_F[i] as number) - mean * mean); // but for rounding
  return mean_F.map((mean, i) => variance(mean, i) * (downNorm_F[i] as number) ** 2);
}
