import type {Rng} from '../../util/rng.js';
import {balancedKMeans, MAX_ROUNDS, type Points, spreadCentroids} from '../balanced-k-means.js';
import {gatherClusters} from './cut.js';

/** Balanced k-means of neurons into experts that hold so many, optimally assigned: row n of the points belongs to ids[n]. */
export function clusterNeurons(ids: Int32Array, points: Points, capacity_E: Int32Array, rng: Rng): Int32Array[] {
  const numExperts = capacity_E.length;
  const {clusterOf_N} = balancedKMeans(points, spreadCentroids(points, numExperts, rng), {
    capacity_E,
    assignment: 'optimal',
    maxRounds: MAX_ROUNDS,
  });
  return gatherClusters(ids, clusterOf_N, numExperts);
}
