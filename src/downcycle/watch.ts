// What the neurons of one layer do on a batch of text. Shapes as in statistics.ts; B sequences of S tokens, T = B·S.
import * as tf from '../engine/tfjs.js';
import {addFfn, throughAttention} from '../model/decoder.js';
import type {FfnTree, GluTree} from '../model/parameters.js';
import type {LayerFunction, Walk} from '../model/walk.js';
import {matMul} from '../op/mat-mul.js';
import {silu} from '../op/swiglu.js';
import {TINY} from '../op/tiny.js';
import type {ProfileOptions} from './profile-options.js';

/** Sums and means of a batch, and the hidden states after the layer. */
export interface Watched {
  readonly next_TD: tf.Tensor2D;
  readonly gateMean_BF: tf.Tensor2D;
  readonly hMean_BF: tf.Tensor2D;
  readonly hSquare_BF: tf.Tensor2D;
  /** Means over the tokens of the batch. */
  readonly gateMagnitude_F: tf.Tensor1D;
  readonly hMagnitude_F: tf.Tensor1D;
  readonly downNorm_F: tf.Tensor1D;
  /** int32 [T, M] */
  readonly marker_TM: tf.Tensor2D;
}

/** A compiled function from the hidden states before the loaded layer to what its neurons do. */
export type Watch = LayerFunction<[tf.Tensor2D], {readonly [K in keyof Watched]: tf.Tensor}>;

/** Compiles the watching of one layer. */
export function compileWatch(walk: Walk, {markers}: Pick<ProfileOptions, 'markers'>): Watch {
  return walk.compile('profile', ({params, context}, x_TD: tf.Tensor2D) => {
    const {h_TD, y_TD} = throughAttention(x_TD, params, walk.architecture, context);
    const {gate, up, down} = denseFfn(params.ffn);
    const [gate_TF, up_TF] = [matMul(y_TD, gate), matMul(y_TD, up)];
    const act_TF = silu(gate_TF);
    const hidden_TF = tf.mul(act_TF, up_TF) as tf.Tensor2D;
    const marked_TF = markers.of === 'plain' ? hidden_TF : hiddenOfUnitRows({y_TD, gate_TF, up_TF, gate, up});
    const bySample = (x_TF: tf.Tensor): tf.Tensor2D =>
      tf.mean(tf.reshape(x_TF, [context.batch, context.sequence, -1]), 1);
    return {
      next_TD: addFfn(h_TD, matMul(hidden_TF, down), params, walk.architecture),
      gateMean_BF: bySample(act_TF),
      hMean_BF: bySample(hidden_TF),
      hSquare_BF: bySample(tf.square(hidden_TF)),
      gateMagnitude_F: tf.mean(tf.abs(act_TF), 0),
      hMagnitude_F: tf.mean(tf.abs(hidden_TF), 0),
      downNorm_F: tf.norm(down, 'euclidean', 1) as tf.Tensor1D,
      marker_TM: tf.topk(tf.abs(marked_TF), markers.count).indices,
    };
  });
}

/** The matrices of a dense layer. */
export function denseFfn(ffn: FfnTree<tf.Tensor>): GluTree<tf.Tensor2D> {
  if (ffn.kind !== 'dense') throw new Error('the layer is not dense');
  return {gate: ffn.gate as tf.Tensor2D, up: ffn.up as tf.Tensor2D, down: ffn.down as tf.Tensor2D};
}

/** h of inputs and weight rows of length one: products of unit vectors are cosines (published code of CMoE). */
function hiddenOfUnitRows({
  y_TD,
  gate_TF,
  up_TF,
  gate,
  up,
}: Readonly<Record<'y_TD' | 'gate_TF' | 'up_TF' | 'gate' | 'up', tf.Tensor2D>>): tf.Tensor2D {
  const inverse = (squares: tf.Tensor): tf.Tensor => tf.rsqrt(tf.maximum(squares, TINY));
  const inverse_T1 = inverse(tf.sum(tf.square(y_TD), 1, true));
  const unit = (product_TF: tf.Tensor2D, weight_DF: tf.Tensor2D): tf.Tensor2D =>
    tf.mul(tf.mul(product_TF, inverse_T1), inverse(tf.sum(tf.square(weight_DF), 0, true)));
  return tf.mul(silu(unit(gate_TF, gate)), unit(up_TF, up));
}
