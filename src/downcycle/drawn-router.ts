// Routers drawn at random: a start for training, and the control beside routers that know their experts.
import type {Architecture} from '../model/architecture.js';
import {initialValues} from '../model/init.js';
import {type RouterTree, routerSpecs} from '../model/parameters.js';
import type {SplitOptions} from './options.js';

/** A router that is drawn, and by which seed. */
export interface RouterDraw {
  readonly router: 'random' | 'mlp';
  readonly seed: number;
}

/** What is drawn for a method; null if its routers are made of something. */
export function routerDraw(method: SplitOptions, seed: number): RouterDraw | null {
  if (method.method === 'all-shared' || (method.router !== 'random' && method.router !== 'mlp')) return null;
  return {router: method.router, seed};
}

/**
 * The matrices of a layer's router in our layout, as a model from scratch has them: see {@link initialValues}.
 *
 * Each matrix of each layer draws from a stream of its own.
 */
export function drawRouter(
  {router, seed}: RouterDraw,
  architecture: Architecture,
  layer: number,
  numExperts: number,
): RouterTree<Float32Array> {
  const kind = router === 'mlp' ? 'mlp' : 'linear';
  const specs = routerSpecs(kind, `layers.${layer}.ffn`, architecture.width, numExperts);
  return {
    router: initialValues(specs.router, architecture, seed),
    routerUp: null,
    routerOut: specs.routerOut && initialValues(specs.routerOut, architecture, seed),
  };
}
