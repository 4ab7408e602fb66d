// Neurons that mark the same tokens, together. Shapes: N grouped neurons, M markers a token, E groups.
import type {Rng} from '../../util/rng.js';
import {optimalAssignment} from '../assignment.js';
import {drawByWeight, MAX_ROUNDS} from '../balanced-k-means.js';
import type {LayerProfile} from '../statistics.js';
import {gatherClusters, placesOf} from './cut.js';

/** Who marks whom, in both directions; neurons by their place in a list of ids. */
interface Marks {
  readonly tokensOfNeurons: readonly number[][];
  readonly neuronsOfTokens: readonly Int32Array[];
}

/**
 * Groups of given sizes and much co-activation, which of two neurons is the number of tokens that mark both.
 *
 * LLaMA-MoE leaves open how its graph of co-activations is cut; this is ours. Groups are grown one after the other, then
 * evened out in rounds: all neurons at once go where their mean co-activation with the others of the group is largest,
 * by an optimal assignment, as long as that gains anything. Markers are sparse, so growing costs M² for each token and
 * N², a round M² for each token and the assignment. Neurons that no token marks fill what is left.
 */
export function coActivationGroups(
  profile: LayerProfile,
  ids: Int32Array,
  capacity_E: Int32Array,
  rng: Rng,
): Int32Array[] {
  const numGroups = capacity_E.length;
  const marks = marksOf(profile, ids);
  let groupOf_N = grownGroups(marks, capacity_E, rng);
  let best = {groupOf_N, value: Number.NEGATIVE_INFINITY};
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const mean_NE = meanCoActivation(marks, groupOf_N, capacity_E);
    const value = groupOf_N.reduce((sum, group, n) => sum + (mean_NE[n * numGroups + group] as number), 0);
    if (value <= best.value) break;
    best = {groupOf_N, value};
    groupOf_N = optimalAssignment({cost_NE: mean_NE.map((mean) => -mean), capacity_E}).groupOf_N;
  }
  return gatherClusters(ids, best.groupOf_N, numGroups);
}

function marksOf({marker_NM, numMarkers, numNeurons}: LayerProfile, ids: Int32Array): Marks {
  const placeOf_F = placesOf(ids, numNeurons);
  const tokensOfNeurons: number[][] = Array.from(ids, () => []);
  const neuronsOfTokens: Int32Array[] = [];
  for (let begin = 0; begin < marker_NM.length; begin += numMarkers) {
    const places = marker_NM.subarray(begin, begin + numMarkers).map((id) => placeOf_F[id] as number);
    const neurons = places.filter((place) => place >= 0);
    for (const n of neurons) tokensOfNeurons[n]?.push(neuronsOfTokens.length);
    neuronsOfTokens.push(neurons);
  }
  return {tokensOfNeurons, neuronsOfTokens};
}

/**
 * Group of every neuron, [N]: each begins with a neuron drawn in proportion to its marks, and takes of those left the
 * one of most co-activation with it until it is full; the lower id wins a tie.
 */
function grownGroups({tokensOfNeurons, neuronsOfTokens}: Marks, capacity_E: Int32Array, rng: Rng): Int32Array {
  const numNeurons = tokensOfNeurons.length;
  const count_N = Float64Array.from(tokensOfNeurons, ({length}) => length);
  const groupOf_N = new Int32Array(numNeurons);
  const isTaken_N = new Uint8Array(numNeurons);
  for (const [group, capacity] of capacity_E.entries()) {
    const with_N = new Float64Array(numNeurons);
    for (let size = 0; size < capacity; size++) {
      const next = size === 0 ? drawByWeight(count_N, isTaken_N, rng) : largestLeft(with_N, isTaken_N);
      groupOf_N[next] = group;
      isTaken_N[next] = 1;
      for (const token of tokensOfNeurons[next] ?? []) addOne(with_N, neuronsOfTokens[token] ?? []);
    }
  }
  return groupOf_N;
}

function largestLeft(value_N: Float64Array, isTaken_N: Uint8Array): number {
  let best = isTaken_N.indexOf(0);
  for (let n = best + 1; n < value_N.length; n++) {
    if (!isTaken_N[n] && (value_N[n] as number) > (value_N[best] as number)) best = n;
  }
  return best;
}

function addOne(count_N: Float64Array, neurons: Iterable<number>): void {
  for (const n of neurons) count_N[n] = (count_N[n] as number) + 1;
}

/** Mean co-activation of each neuron with the members of each group but itself, [N, E]. */
function meanCoActivation(
  {tokensOfNeurons, neuronsOfTokens}: Marks,
  groupOf_N: Int32Array,
  capacity_E: Int32Array,
): Float64Array {
  const numGroups = capacity_E.length;
  const sum_NE = new Float64Array(groupOf_N.length * numGroups);
  for (const [n, group] of groupOf_N.entries()) sum_NE[n * numGroups + group] = -(tokensOfNeurons[n]?.length ?? 0);
  for (const neurons of neuronsOfTokens) {
    for (const other of neurons) {
      const group = groupOf_N[other] as number;
      for (const n of neurons) sum_NE[n * numGroups + group] = (sum_NE[n * numGroups + group] as number) + 1;
    }
  }
  return sum_NE.map((sum, at) => {
    const group = at % numGroups;
    const size = capacity_E[group] as number; // groups are full
    return sum / (groupOf_N[Math.floor(at / numGroups)] === group ? Math.max(size - 1, 1) : size);
  });
}
