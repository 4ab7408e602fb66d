// CMoE (arXiv 2502.04416), section 3.1: neurons by the tokens that mark them. Shapes: N routed neurons, E experts.
import type {LayerShape} from '../allocation.js';
import {optimalAssignment} from '../assignment.js';
import type {LayerPlan} from '../plan.js';
import {type MarkerProfile, markerCounts} from '../statistics.js';
import {worthiest} from './all-shared.js';
import {capacities, gatherClusters, idsWithout, placesOf} from './cut.js';

/**
 * The neurons that are marked most often are shared; the next most often marked are the centroids of the experts, to
 * which the others are assigned at the least total distance of marker columns, in one round as in the published code.
 */
export function cmoeSplit(profile: MarkerProfile, shape: LayerShape): LayerPlan {
  const {shared: numShared, capacity_E} = capacities(profile.numNeurons, shape);
  const count_F = Float64Array.from(markerCounts(profile));
  const shared = worthiest(count_F, numShared);
  const routed = idsWithout(shared, profile.numNeurons);
  const centroids = mostMarked(count_F, routed, shape.experts);
  const {groupOf_N} = optimalAssignment({
    cost_NE: markerDistances(profile, routed, centroids),
    capacity_E,
  });
  return {shared, experts: gatherClusters(routed, groupOf_N, shape.experts), topK: shape.topK};
}

/** The routed neurons with the highest counts, the highest first; the lower id wins a tie. */
export function mostMarked(count_F: Float64Array, routed: Int32Array, count: number): Int32Array {
  const ranked = routed.toSorted((a, b) => (count_F[b] as number) - (count_F[a] as number) || a - b);
  return ranked.slice(0, count);
}

/**
 * L1 distances of the marker columns of neurons `ids` and `centroids`, [N, E]: tokens that mark one of the two only.
 *
 * Columns are never made: a distance is the counts of both less twice the tokens that mark both.
 */
export function markerDistances(profile: MarkerProfile, ids: Int32Array, centroids: Int32Array): Float64Array {
  const count_F = markerCounts(profile);
  const E = centroids.length;
  const rowOf_F = placesOf(ids, profile.numNeurons);
  const columnOf_F = placesOf(centroids, profile.numNeurons);
  const distance_NE = Float64Array.from(
    {length: ids.length * E},
    (_, at) =>
      (count_F[ids[Math.floor(at / E)] as number] as number) + (count_F[centroids[at % E] as number] as number),
  );
  const {marker_NM, numMarkers} = profile;
  for (let begin = 0; begin < marker_NM.length; begin += numMarkers) {
    const marked = marker_NM.subarray(begin, begin + numMarkers);
    for (const centroid of marked) {
      const column = columnOf_F[centroid] as number;
      if (column < 0) continue;
      for (const id of marked) {
        const row = rowOf_F[id] as number;
        if (row >= 0) distance_NE[row * E + column] = (distance_NE[row * E + column] as number) - 2;
      }
    }
  }
  return distance_NE;
}

/**
 * The neuron whose marker column is nearest, by L1, to the mean column of a group; the lower id wins a tie (CMoE, section
 * 3.2).
 *
 * Of the distance `Σ_t |m_t - c_t/w|` with c_t of w neurons marked by token t, only the tokens that mark a neuron differ
 * from neuron to neuron: they add `1 - 2 c_t/w` each.
 */
export function representative({marker_NM, numMarkers, numNeurons}: MarkerProfile, ids: Int32Array): number {
  const placeOf_F = placesOf(ids, numNeurons);
  const distance = new Float64Array(ids.length);
  for (let begin = 0; begin < marker_NM.length; begin += numMarkers) {
    const places = Array.from(marker_NM.subarray(begin, begin + numMarkers), (id) => placeOf_F[id] as number);
    const marked = places.filter((place) => place >= 0);
    for (const place of marked) distance[place] = (distance[place] as number) + 1 - (2 * marked.length) / ids.length;
  }
  const least = distance.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  return ids[distance.indexOf(least)] ?? 0;
}
