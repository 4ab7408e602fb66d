// How lists of neuron ids become a layer plan.
import type {LayerShape} from '../allocation.js';
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

/** Width of one expert: F over all chunks, which must divide it. */
export function expertWidth(numNeurons: number, {experts, shared}: LayerShape): number {
  return numNeurons / (experts + shared);
}

/** Cuts a list of all neurons into equal runs: the first `shared` of them together, then one for each routed expert. */
export function cutInOrder(ids: Int32Array, shape: LayerShape): LayerPlan {
  const width = expertWidth(ids.length, shape);
  const firstRouted = shape.shared * width;
  const run = (e: number): Int32Array => ids.slice(firstRouted + e * width, firstRouted + (e + 1) * width).sort();
  return {
    shared: ids.slice(0, firstRouted).sort(),
    experts: Array.from({length: shape.experts}, (_, e) => run(e)),
    topK: shape.topK,
  };
}

/** The ids of each cluster, in the order they are listed in. */
export function gatherClusters(ids: Int32Array, clusterOf_N: Int32Array, numClusters: number): Int32Array[] {
  return Array.from({length: numClusters}, (_, cluster) => ids.filter((_id, n) => clusterOf_N[n] === cluster));
}
