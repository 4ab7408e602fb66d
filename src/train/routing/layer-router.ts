import * as tf from '../../engine/tfjs.js';
import type {ForwardOptions} from '../../model/decoder.js';
import type {LayerRouter, Routed, RouterInput} from '../../model/router.js';
import {untaped} from '../../op/untaped.js';
import {allExperts} from './all-experts.js';
import {assignEvenly} from './base.js';
import {expertChoice} from './expert-choice.js';
import type {RoutingOptions} from './options.js';
import {dropExperts, jitter, noisy} from './perturb.js';
import {sparseMixer} from './sparse-mixer.js';

/** First word that sets the seeds of routers apart from those of dropout. */
const ROUTERS = 1;

/**
 * What routes each layer while training; nothing where the model does it by itself.
 *
 * @param seed_2 seed words of the step and pass; each layer draws from its own.
 */
export function layerRouters(
  options: RoutingOptions | undefined,
  seed_2: tf.Tensor1D,
): Pick<ForwardOptions, 'routerOf'> {
  const route = options && routeOf(options);
  if (!route) return {};
  const seedOf = (layer: number): tf.Tensor1D =>
    untaped(() => tf.add(seed_2, tf.tensor1d([ROUTERS, layer], 'int32')) as tf.Tensor1D);
  return {routerOf: (layer): LayerRouter => ({route, seed_2: seedOf(layer)})};
}

function routeOf(options: RoutingOptions): ((input: RouterInput, seed_2: tf.Tensor1D) => Routed) | null {
  switch (options.kind) {
    case 'as-is':
      return null;
    case 'jitter':
      return (input, seed_2) => jitter(input, options.amount, seed_2);
    case 'noisy':
      return (input, seed_2) => noisy(input, options.std ?? 1 / input.layout.experts, seed_2);
    case 'expert-dropout':
      return (input, seed_2) => dropExperts(input, options.share, seed_2);
    case 'all-experts':
      return (input) => allExperts(input, options.temperature);
    case 'expert-choice':
      return (input) => expertChoice(input, options.capacityFactor);
    case 'base':
      return assignEvenly;
    case 'sparse-mixer':
      return sparseMixer;
  }
}
