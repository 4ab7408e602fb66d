// A walk through layers that tells where their routers send tokens.
import * as tf from '../engine/tfjs.js';
import {decoderLayer} from '../model/decoder.js';
import type {LayerFunction, Walk} from '../model/walk.js';
import {passLayers} from '../model/walk-layer.js';

/** Sees the experts of some tokens in a layer that has them, int32 [T, K] with E for none, and whose tokens they are; −1 for nobody's. */
export type SeeRoutes = (layer: number, expert_TK: Int32Array, owner_T: Int32Array) => void;

/**
 * Takes all hidden states of a walk through every layer of its model, and has the routes seen.
 *
 * @param owner_T whose each token of the walk is.
 * @param onLayer told of each layer that is to come.
 */
export async function passRouted(
  walk: Walk,
  owner_T: Int32Array,
  onLayer: (layer: number) => void,
  onRoutes: SeeRoutes,
): Promise<void> {
  const routed = compileRouted(walk);
  let at = {layer: 0, token: 0};
  const pass = async (x_TD: tf.Tensor2D): Promise<tf.Tensor> => {
    const {next_TD, expert_TK} = await routed(x_TD);
    const end = at.token + x_TD.shape[0];
    if (expert_TK.size > 0) onRoutes(at.layer, await expert_TK.data<'int32'>(), owner_T.subarray(at.token, end));
    expert_TK.dispose();
    at = {...at, token: end};
    return next_TD;
  };
  await passLayers(walk, pass, (layer) => {
    at = {layer, token: 0};
    onLayer(layer);
  });
}

type RoutedLayer = LayerFunction<[tf.Tensor2D], {next_TD: tf.Tensor; expert_TK: tf.Tensor}>;

/** The layers as they are; a dense one has no experts to show. */
function compileRouted(walk: Walk): RoutedLayer {
  return walk.compile('routed_layer', ({params, layout, context}, x_TD: tf.Tensor2D) => {
    const {next_TD, router} = decoderLayer(x_TD, params, layout, walk.architecture, context);
    return {next_TD, expert_TK: router?.expert_TK ?? tf.zeros([0, 0], 'int32')};
  });
}
