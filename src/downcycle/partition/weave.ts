// Weave: experts of neurons that a router can foresee together.
import type {Rng} from '../../util/rng.js';
import type {LayerShape} from '../allocation.js';
import type {LayerPlan} from '../plan.js';
import type {LayerProfile} from '../statistics.js';
import {contribution, worthiest} from './all-shared.js';
import {clusterNeurons} from './cluster-neurons.js';
import {capacities, idsWithout} from './cut.js';
import {rowPoints} from './row-points.js';

/** A layer as weave sees it. */
export interface ForeseenLayer {
  readonly profile: LayerProfile;
  /** What the input foresees of each neuron, see `PredictedActivity`; [F, P]. */
  readonly foreseen_FP: Float32Array;
}

/**
 * Neurons that add most to the residual stream are shared; the others are clustered by the direction of what the input
 * foresees of their activity, for an expert is chosen by what is foreseen of it.
 */
export function weaveSplit({profile, foreseen_FP}: ForeseenLayer, shape: LayerShape, rng: Rng): LayerPlan {
  const {shared: numShared, capacity_E} = capacities(profile.numNeurons, shape);
  const shared = worthiest(contribution(profile), numShared);
  const routed = idsWithout(shared, profile.numNeurons);
  const points = rowPoints(foreseen_FP, profile.numNeurons, routed, {normalise: true});
  return {shared, experts: clusterNeurons(routed, points, capacity_E, rng), topK: shape.topK};
}
