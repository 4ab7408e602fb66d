// Keys and values of the positions before, so that a token need not compute them again. Shapes as in architecture.ts, N rows x
// key-value heads, C positions there is room for.
import * as tf from '../engine/tfjs.js';
import {createVariable, type Variable} from '../engine/variable.js';
import {numElements} from '../util/shape.js';
import type {Architecture} from './architecture.js';

/** What one layer keeps, [N, C, d] each; keys are turned to their positions. */
export interface LayerCache {
  readonly key: Variable;
  readonly value: Variable;
}

/** Room for the keys and values of every layer. */
export interface Cache {
  /** C */
  readonly capacity: number;
  readonly layers: readonly LayerCache[];
  dispose(): void;
}

/** An empty cache for one row of text. */
export function createCache({ffn, kvHeads, headDim}: Architecture, capacity: number): Cache {
  const shape = [kvHeads, capacity, headDim];
  const empty = (name: string): Variable => createVariable(name, shape, new Float32Array(numElements(shape)));
  const layers = ffn.map((_, l) => ({key: empty(`cache.${l}.key`), value: empty(`cache.${l}.value`)}));
  return {
    capacity,
    layers,
    dispose: () => {
      for (const layer of layers) for (const variable of [layer.key, layer.value]) variable.dispose();
    },
  };
}

/** Copies what a cache holds into one of more room. */
export function copyCache(from: Cache, to: Cache): void {
  const copy = (source: Variable | undefined, target: Variable): void =>
    tf.tidy(() => {
      if (!source) throw new Error('caches are of two models');
      const behind = [0, to.capacity - from.capacity] as [number, number];
      target.assign(tf.pad3d(source.read() as tf.Tensor3D, [[0, 0], behind, [0, 0]]));
    });
  for (const [l, {key, value}] of to.layers.entries()) {
    copy(from.layers[l]?.key, key);
    copy(from.layers[l]?.value, value);
  }
}
