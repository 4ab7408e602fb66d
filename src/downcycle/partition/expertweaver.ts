// ExpertWeaver (arXiv 2602.15521), sections 3.2 and 3.3. Shapes: J samples, F neurons, N routed neurons.
import type {Rng} from '../../util/rng.js';
import type {LayerShape} from '../allocation.js';
import {balancedKMeans, MAX_ROUNDS, type Points, spreadCentroids} from '../balanced-k-means.js';
import type {LayerPlan} from '../plan.js';
import {type CvOver, type LayerProfile, meanMagnitude, neuronCv, rankAscending} from '../statistics.js';
import {capacities, gatherClusters, idsWithout} from './cut.js';

/** The choices of the method that the paper leaves open. */
export interface ExpertWeaverSplit {
  /** What makes a neuron universal: the largest |mean activation|, or the least CV. */
  readonly sharedBy: 'mean-abs' | 'low-cv';
  readonly cv: CvOver;
  readonly assignment: 'optimal' | 'greedy';
  /** Whether each neuron's profile is brought to mean 0 and std 1, so that clusters follow its shape, not its size. */
  readonly standardise: boolean;
}

/** Universal neurons are shared; the others are clustered by what they react to, into experts of equal width, but for padding. */
export function expertWeaverSplit(
  profile: LayerProfile,
  shape: LayerShape,
  split: ExpertWeaverSplit,
  rng: Rng,
): LayerPlan {
  const {shared: numShared, capacity_E} = capacities(profile.numNeurons, shape);
  const shared = universalNeurons(profile, numShared, split);
  const routed = idsWithout(shared, profile.numNeurons);
  const points = neuronPoints(profile, routed, split.standardise);
  const {clusterOf_N} = balancedKMeans(points, spreadCentroids(points, shape.experts, rng), {
    capacity_E,
    assignment: split.assignment,
    maxRounds: MAX_ROUNDS,
  });
  return {shared, experts: gatherClusters(routed, clusterOf_N, shape.experts), topK: shape.topK};
}

/** The `count` most universal neurons, ids ascending; the lower id wins a tie. */
export function universalNeurons(
  profile: LayerProfile,
  count: number,
  {sharedBy, cv}: Pick<ExpertWeaverSplit, 'sharedBy' | 'cv'>,
): Int32Array {
  const value_F = sharedBy === 'mean-abs' ? meanMagnitude(profile).map((x) => -x) : neuronCv(profile, cv);
  return rankAscending(value_F).slice(0, count).sort();
}

/** The profiles of some neurons as points: row n is neuron ids[n] over the J samples. */
export function neuronPoints(profile: LayerProfile, ids: Int32Array, standardise: boolean): Points {
  const {gateMean_JF, taskOfSample_J, numNeurons} = profile;
  const numFeatures = taskOfSample_J.length;
  const value_NJ = new Float64Array(ids.length * numFeatures);
  ids.forEach((id, n) => {
    const row_J = value_NJ.subarray(n * numFeatures, (n + 1) * numFeatures);
    for (let j = 0; j < numFeatures; j++) row_J[j] = gateMean_JF[j * numNeurons + id] as number;
    if (standardise) standardiseInPlace(row_J);
  });
  return {value_NJ, numFeatures};
}

/** A row that never changes becomes zeros: it has no shape. */
function standardiseInPlace(row_J: Float64Array): void {
  const mean = row_J.reduce((sum, x) => sum + x, 0) / row_J.length;
  const variance = row_J.reduce((sum, x) => sum + (x - mean) ** 2, 0) / row_J.length;
  const scale = variance > 0 ? 1 / Math.sqrt(variance) : 0;
  row_J.forEach((x, j) => {
    row_J[j] = (x - mean) * scale;
  });
}
