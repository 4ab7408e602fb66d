// How lists of neuron ids become a layer plan.
import {chunkWidth, type LayerShape} from '../allocation.js';
import type {LayerPlan} from '../plan.js';

/** Ids 0..F-1. */
export function allIds(numNeurons: number): Int32Array {
  return Int32Array.from({length: numNeurons}, (_, id) => id);
}

/** All ids but those of `shared`, ascending. */
export function idsWithout(shared: Int32Array, numNeurons: number): Int32Array {
  const isShared = new Set(shared);
  return allIds(numNeurons).filter((id) => !isShared.has(id));
}

/** Place of every neuron in a list of ids, -1 if it is not there; [F]. */
export function placesOf(ids: Int32Array, numNeurons: number): Int32Array {
  const place_F = new Int32Array(numNeurons).fill(-1);
  for (const [place, id] of ids.entries()) place_F[id] = place;
  return place_F;
}

/** How many neurons of the dense FFN the shared part and each routed expert hold. */
export interface Capacities {
  readonly shared: number;
  readonly capacity_E: Int32Array;
}

/**
 * What the parts hold of F neurons. Where chunks do not divide F, some hold one less than their width: the last routed
 * experts, and if all of them do, chunks of the shared part.
 */
export function capacities(numNeurons: number, shape: LayerShape): Capacities {
  const {experts, shared} = shape;
  const width = chunkWidth(numNeurons, shape);
  const free = (experts + shared) * width - numNeurons;
  const firstShort = Math.max(0, experts - free);
  return {
    shared: shared * width - Math.max(0, free - experts),
    capacity_E: Int32Array.from({length: experts}, (_, e) => (e < firstShort ? width : width - 1)),
  };
}

/**
 * Fills up to their width with neurons of zeros, ids F and on, what a plan of F neurons leaves short; a layer without
 * experts leaves them out.
 */
export function appendZeros(plan: LayerPlan, numNeurons: number, shape: LayerShape): LayerPlan {
  if (plan.experts.length === 0) return plan;
  const width = chunkWidth(numNeurons, shape);
  let next = numNeurons;
  const fill = (ids: Int32Array, size: number): Int32Array =>
    Int32Array.from({length: size}, (_, i) => ids[i] ?? next++);
  return {
    ...plan,
    shared: fill(plan.shared, shape.shared * width),
    experts: plan.experts.map((ids) => fill(ids, width)),
  };
}

/** Cuts a list of all neurons into runs: what is shared first, then one for each routed expert. */
export function cutInOrder(ids: Int32Array, shape: LayerShape): LayerPlan {
  const {shared, capacity_E} = capacities(ids.length, shape);
  let end = 0;
  const take = (count: number): Int32Array => {
    end += count;
    return ids.slice(end - count, end).sort();
  };
  return {shared: take(shared), experts: Array.from(capacity_E, take), topK: shape.topK};
}

/** The ids of each cluster, in the order they are listed in. */
export function gatherClusters(ids: Int32Array, clusterOf_N: Int32Array, numClusters: number): Int32Array[] {
  return Array.from({length: numClusters}, (_, cluster) => ids.filter((_id, n) => clusterOf_N[n] === cluster));
}
