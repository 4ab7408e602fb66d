// Taking a walk through its layers.
import * as tf from '../engine/tfjs.js';
import {decoderLayer} from './decoder.js';
import type {Chooser} from './moe.js';
import {hiddenTensor, type LayerFunction, type Walk} from './walk.js';

/** From the hidden states before the loaded layer to those after it, [T, D]. */
type PassLayer = (x_TD: tf.Tensor2D) => Promise<tf.Tensor>;

/** A layer as it is, compiled. */
export type PlainLayer = LayerFunction<[tf.Tensor2D], tf.Tensor>;

/** Compiles the layers of a model as they are. */
export function compileLayer(walk: Walk, options: {readonly chooser?: Chooser} = {}): PlainLayer {
  return walk.compile(
    'layer',
    ({params, layout, context}, x_TD: tf.Tensor2D) =>
      decoderLayer(x_TD, params, layout, walk.architecture, context, options).next_TD,
  );
}

/** Takes hidden states of a walk, all by default, through the loaded layer. */
export async function passLayer(
  walk: Walk,
  layer: PassLayer,
  batches: readonly Float32Array[] = walk.batches,
): Promise<void> {
  for (const batch of batches) {
    const x_TD = hiddenTensor(walk, batch);
    const next_TD = await layer(x_TD);
    batch.set(await next_TD.data());
    tf.dispose([x_TD, next_TD]);
  }
}

/** Takes all hidden states of a walk through every layer of its model. @param onLayer told of each layer that is to come. */
export async function passLayers(
  walk: Walk,
  layer: PassLayer,
  onLayer: (layer: number) => void = () => undefined,
): Promise<void> {
  for (let i = 0; i < walk.architecture.ffn.length; i++) {
    onLayer(i);
    await walk.load(i);
    await passLayer(walk, layer);
  }
}
