// k-means whose clusters have given sizes. Shapes: N points, J features, E clusters.
import type {Rng} from '../util/rng.js';
import {type Assignment, greedyAssignment, optimalAssignment} from './assignment.js';

/** Points as rows, [N, J]. */
export interface Points {
  readonly value_NJ: Float64Array;
  readonly numFeatures: number;
}

/** How points are matched to centroids, and when to stop. */
export interface KMeansOptions {
  /** How many points each cluster takes at most; together at least N. */
  readonly capacity_E: ArrayLike<number>;
  readonly assignment: 'optimal' | 'greedy';
  readonly maxRounds: number;
}

/** Clusters and how they were reached. */
export interface Clustering {
  readonly clusterOf_N: Int32Array;
  /** Mean of each cluster's points, [E, J]. */
  readonly centroid_EJ: Float64Array;
  /** Sum of squared distances to the centroids each round began with. */
  readonly costPerRound: readonly number[];
}

/** Enough for profiles of a few thousand neurons; the cost hardly moves after the first three rounds. */
export const MAX_ROUNDS = 20;

/**
 * Balanced k-means: match points to centroids under the capacities, move the centroids to the means, until nothing
 * changes or `maxRounds` have run. A round costs O(N E J) for distances and the matching.
 *
 * @param start_EJ centroids to begin with, for example from {@link spreadCentroids}; not changed.
 */
export function balancedKMeans(points: Points, start_EJ: Float64Array, options: KMeansOptions): Clustering {
  const assign = options.assignment === 'optimal' ? optimalAssignment : greedyAssignment;
  const costPerRound: number[] = [];
  let price_E: Assignment['price_E'];
  let centroid_EJ = start_EJ;
  let clusterOf_N: Int32Array = new Int32Array(0);
  while (costPerRound.length < options.maxRounds) {
    const cost_NE = squaredDistances(points, centroid_EJ);
    const assigned: Assignment = assign({cost_NE, capacity_E: options.capacity_E}, price_E);
    costPerRound.push(assigned.cost);
    const isSettled = sameNumbers(assigned.groupOf_N, clusterOf_N);
    clusterOf_N = assigned.groupOf_N;
    price_E = assigned.price_E; // centroids move little, and so will prices
    centroid_EJ = clusterMeans(points, clusterOf_N, centroid_EJ);
    if (isSettled) break;
  }
  return {clusterOf_N, centroid_EJ, costPerRound};
}

/**
 * First centroids that lie apart: points drawn in proportion to their squared distance from those already drawn
 * (k-means++, Arthur and Vassilvitskii 2007). No point is drawn twice. O(N E J).
 *
 * @throws RangeError if there are fewer points than clusters.
 */
export function spreadCentroids(points: Points, numClusters: number, rng: Rng): Float64Array {
  const {value_NJ, numFeatures} = points;
  const numPoints = value_NJ.length / numFeatures;
  if (numClusters > numPoints) throw new RangeError(`${numPoints} points cannot start ${numClusters} clusters`);
  const centroid_EJ = new Float64Array(numClusters * numFeatures);
  const gap_N = new Float64Array(numPoints).fill(1);
  const isDrawn_N = new Uint8Array(numPoints);
  for (let cluster = 0; cluster < numClusters; cluster++) {
    const drawn = drawByWeight(gap_N, isDrawn_N, rng);
    isDrawn_N[drawn] = 1;
    const row = value_NJ.subarray(drawn * numFeatures, (drawn + 1) * numFeatures);
    centroid_EJ.set(row, cluster * numFeatures);
    const distance_N = squaredDistances(points, row);
    for (let n = 0; n < numPoints; n++) {
      gap_N[n] = cluster === 0 ? (distance_N[n] as number) : Math.min(gap_N[n] as number, distance_N[n] as number);
    }
  }
  return centroid_EJ;
}

/** Squared Euclidean distances [N, E], four centroids at a time so that each point's row is read once for all four. */
export function squaredDistances({value_NJ, numFeatures}: Points, centroid_EJ: Float64Array): Float64Array {
  const numPoints = value_NJ.length / numFeatures;
  const numClusters = centroid_EJ.length / numFeatures;
  const distance_NE = new Float64Array(numPoints * numClusters);
  for (let n = 0; n < numPoints; n++) {
    const row_J = value_NJ.subarray(n * numFeatures, (n + 1) * numFeatures);
    const out_E = distance_NE.subarray(n * numClusters, (n + 1) * numClusters);
    let e = 0;
    for (; e + 4 <= numClusters; e += 4) fourDistances(row_J, centroid_EJ, e, out_E);
    for (; e < numClusters; e++) out_E[e] = oneDistance(row_J, centroid_EJ, e);
  }
  return distance_NE;
}

function fourDistances(row_J: Float64Array, centroid_EJ: Float64Array, e: number, out_E: Float64Array): void {
  const width = row_J.length;
  let [a, b, c, d] = [0, 0, 0, 0];
  for (let j = 0, at = e * width; j < width; j++, at++) {
    const x = row_J[j] as number;
    const toA = x - (centroid_EJ[at] as number);
    const toB = x - (centroid_EJ[at + width] as number);
    const toC = x - (centroid_EJ[at + 2 * width] as number);
    const toD = x - (centroid_EJ[at + 3 * width] as number);
    a += toA * toA;
    b += toB * toB;
    c += toC * toC;
    d += toD * toD;
  }
  out_E[e] = a;
  out_E[e + 1] = b;
  out_E[e + 2] = c;
  out_E[e + 3] = d;
}

function oneDistance(row_J: Float64Array, centroid_EJ: Float64Array, e: number): number {
  let sum = 0;
  for (let j = 0, at = e * row_J.length; j < row_J.length; j++, at++) {
    const off = (row_J[j] as number) - (centroid_EJ[at] as number);
    sum += off * off;
  }
  return sum;
}

/** Means of the clusters' points; a cluster without points keeps its centroid. */
function clusterMeans({value_NJ, numFeatures}: Points, clusterOf_N: Int32Array, old_EJ: Float64Array): Float64Array {
  const mean_EJ = new Float64Array(old_EJ.length);
  const size_E = new Int32Array(old_EJ.length / numFeatures);
  for (let n = 0, at = 0; n < clusterOf_N.length; n++) {
    const cluster = clusterOf_N[n] as number;
    size_E[cluster] = (size_E[cluster] as number) + 1;
    for (let to = cluster * numFeatures; to < (cluster + 1) * numFeatures; to++, at++) {
      mean_EJ[to] = (mean_EJ[to] as number) + (value_NJ[at] as number);
    }
  }
  return mean_EJ.map((sum, at) => {
    const size = size_E[Math.floor(at / numFeatures)] as number;
    return size === 0 ? (old_EJ[at] as number) : sum / size;
  });
}

/** An undrawn index in proportion to its weight; the first undrawn one if no weight is left. */
export function drawByWeight(weight_N: Float64Array, isDrawn_N: Uint8Array, rng: Rng): number {
  let left = rng.uniform() * weight_N.reduce((sum, weight, n) => (isDrawn_N[n] ? sum : sum + weight), 0);
  let last = isDrawn_N.indexOf(0);
  for (let n = 0; n < weight_N.length; n++) {
    if (isDrawn_N[n] || weight_N[n] === 0) continue;
    last = n;
    left -= weight_N[n] as number;
    if (left < 0) break;
  }
  return last;
}

function sameNumbers(a: Int32Array, b: Int32Array): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}
