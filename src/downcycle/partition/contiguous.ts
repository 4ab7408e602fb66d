import type {LayerShape} from '../allocation.js';
import type {LayerPlan} from '../plan.js';
import {allIds, cutInOrder} from './cut.js';

/** Neurons in the order of the dense model: the first chunks shared, then one run for each routed expert. */
export function contiguousSplit(numNeurons: number, shape: LayerShape): LayerPlan {
  return cutInOrder(allIds(numNeurons), shape);
}
