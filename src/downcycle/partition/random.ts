import {type Rng, shuffle} from '../../util/rng.js';
import type {LayerShape} from '../allocation.js';
import type {LayerPlan} from '../plan.js';
import {allIds, cutInOrder} from './cut.js';

/** The control of every split: neurons go to the shared and the routed experts by lot. */
export function randomSplit(numNeurons: number, shape: LayerShape, rng: Rng): LayerPlan {
  return cutInOrder(shuffle(allIds(numNeurons), rng), shape);
}
