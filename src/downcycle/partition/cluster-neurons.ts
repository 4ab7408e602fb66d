import type {Rng} from '../../util/rng.js';
import {balancedKMeans, MAX_ROUNDS, type Points, spreadCentroids} from '../balanced-k-means.js';
import {gatherClusters} from './cut.js';

/** Balanced k-means of neurons, optimally assigned: row n of the points belongs to ids[n]. */
export function clusterNeurons(ids: Int32Array, points: Points, numExperts: number, rng: Rng): Int32Array[] {
  const {clusterOf_N} = balancedKMeans(points, spreadCentroids(points, numExperts, rng), {
    capacity_E: new Int32Array(numExperts).fill(ids.length / numExperts),
    assignment: 'optimal',
    maxRounds: MAX_ROUNDS,
  });
  return gatherClusters(ids, clusterOf_N, numExperts);
}
