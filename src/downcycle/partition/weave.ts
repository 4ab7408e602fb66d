// Weave: experts of neurons that a router can foresee together.
import type {Rng} from '../../util/rng.js';
import type {LayerShape} from '../allocation.js';
import {balancedKMeans, MAX_ROUNDS, type Points, spreadCentroids} from '../balanced-k-means.js';
import type {LayerPlan} from '../plan.js';
import type {LayerProfile} from '../statistics.js';
import {contribution, worthiest} from './all-shared.js';
import {allIds, expertWidth, gatherClusters} from './cut.js';

/**
 * Neurons that add most to the residual stream are shared; the others are clustered by the direction of what the input
 * foresees of their activity, for an expert is chosen by what is foreseen of it.
 */
export function weaveSplit(profile: LayerProfile, shape: LayerShape, rng: Rng): LayerPlan {
  const width = expertWidth(profile.numNeurons, shape);
  const shared = worthiest(contribution(profile), shape.shared * width);
  const isShared = new Set(shared);
  const routed = allIds(profile.numNeurons).filter((id) => !isShared.has(id));
  const points = directions(profile, routed);
  const {clusterOf_N} = balancedKMeans(points, spreadCentroids(points, shape.experts, rng), {
    capacity_E: new Int32Array(shape.experts).fill(width),
    assignment: 'optimal',
    maxRounds: MAX_ROUNDS,
  });
  return {shared, experts: gatherClusters(routed, clusterOf_N, shape.experts), topK: shape.topK};
}

/** Predicted profiles of some neurons, brought to length one; one of length zero stays. */
function directions({predicted, numNeurons}: LayerProfile, ids: Int32Array): Points {
  const profile_FP = predicted?.profile_FP ?? new Float32Array(0);
  const numFeatures = profile_FP.length / numNeurons;
  const value_NJ = new Float64Array(ids.length * numFeatures);
  ids.forEach((id, n) => {
    const row_P = profile_FP.subarray(id * numFeatures, (id + 1) * numFeatures);
    const length = Math.hypot(...row_P);
    row_P.forEach((value, p) => {
      value_NJ[n * numFeatures + p] = length > 0 ? value / length : 0;
    });
  });
  return {value_NJ, numFeatures};
}
