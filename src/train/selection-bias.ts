// Biases that move which experts are chosen and nothing else (arXiv 2408.15664; DeepSeek-V3).
import * as tf from '../engine/tfjs.js';
import {createVariable, type Variable} from '../engine/variable.js';
import type {Architecture} from '../model/architecture.js';
import type {Model} from '../model/model.js';
import type {DecoderTree} from '../model/parameters.js';

/** A model whose MoE layers all have selection biases: zeros where they had none. */
export function withSelectionBias(model: Model): Model {
  const made: Variable[] = [];
  const layers = model.parameters.layers.map((layer, l) => {
    const layout = model.architecture.ffn[l];
    if (layer.ffn.kind !== 'moe' || layer.ffn.bias || layout?.kind !== 'moe') return layer;
    const E = layout.experts;
    const bias = createVariable(`layers.${l}.ffn.bias`, [E], new Float32Array(E));
    made.push(bias);
    return {...layer, ffn: {...layer.ffn, bias}};
  });
  const dispose = (): void => {
    for (const bias of made) bias.dispose();
    model.dispose();
  };
  return {...model, architecture: withBiases(model.architecture), parameters: {...model.parameters, layers}, dispose};
}

/** Whether a path is that of a selection bias. */
export function isSelectionBias(path: string): boolean {
  return /^layers\.\d+\.ffn\.bias$/.test(path);
}

/** Moves the bias of every expert by `rate` towards its even share: `b ← b + rate·sign(mean(load) − load)`. */
export function moveBiases(
  {layers}: DecoderTree<Variable>,
  loads: readonly tf.Tensor1D[],
  rate: number,
  isSafe: tf.Tensor,
): void {
  const biases = layers.flatMap(({ffn}) => (ffn.kind === 'moe' ? [ffn.bias] : []));
  for (const [i, bias] of biases.entries()) {
    const load_E = loads[i];
    if (!bias || !load_E) throw new Error(`MoE layer ${i} has no selection bias to move`);
    const gap_E = tf.sub(tf.mean(load_E), load_E);
    const before = bias.read();
    bias.assign(tf.where(isSafe, tf.add(before, tf.mul(tf.sign(gap_E), rate)), before));
  }
}

/** The same architecture with a selection bias in every MoE layer. */
export function withBiases(architecture: Architecture): Architecture {
  const ffn = architecture.ffn.map((layout) => (layout.kind === 'moe' ? {...layout, selectionBias: true} : layout));
  return {...architecture, ffn};
}
