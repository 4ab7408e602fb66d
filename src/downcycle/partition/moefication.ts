// MoEfication (arXiv 2110.01786): neurons whose weights look for the same inputs. Shapes: F neurons, D model width.
import type {Rng} from '../../util/rng.js';
import type {LayerShape} from '../allocation.js';
import type {LayerPlan} from '../plan.js';
import type {LayerProfile} from '../statistics.js';
import {contribution, worthiest} from './all-shared.js';
import {clusterNeurons} from './cluster-neurons.js';
import {capacities, idsWithout} from './cut.js';
import {rowPoints} from './row-points.js';

/** A layer as the methods see it that look at weights. */
export interface WeighedLayer {
  /** Read where a part is shared, and for its width. */
  readonly profile: LayerProfile;
  /** `gate_proj.weight`, [F, D]: row i belongs to neuron i. */
  readonly gate_FD: Float32Array;
}

/**
 * Balanced k-means of gate rows, brought to length one if asked for, as the paper does for the rows of its ReLU FFNs.
 *
 * The paper shares nothing; neurons of the largest mean |h|·|Wd| are, if a shared part is asked for, as in weave.
 */
export function moeficationSplit(
  {profile, gate_FD}: WeighedLayer,
  shape: LayerShape,
  {normalise}: {readonly normalise: boolean},
  rng: Rng,
): LayerPlan {
  const {numNeurons} = profile;
  const {shared: numShared, capacity_E} = capacities(numNeurons, shape);
  const shared = worthiest(contribution(profile), numShared);
  const routed = idsWithout(shared, numNeurons);
  const points = rowPoints(gate_FD, numNeurons, routed, {normalise});
  return {shared, experts: clusterNeurons(routed, points, capacity_E, rng), topK: shape.topK};
}
