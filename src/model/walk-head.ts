// The end of a walk: what the head of the model makes of the hidden states after the last layer.

import {compile} from '../engine/compile.js';
import * as tf from '../engine/tfjs.js';
import {createVariable} from '../engine/variable.js';
import type {ModelFolder} from '../format/model-folder.js';
import {tokenLosses} from '../op/linear-cross-entropy.js';
import {matMul} from '../op/mat-mul.js';
import {joinFloats} from '../util/join.js';
import {finalHidden} from './decoder.js';
import {readParameter} from './load.js';
import {parameterSpecs} from './parameters.js';
import {hiddenTensor, type Walk, type WalkText} from './walk.js';

/** Final norm and head of the model of a walk. */
export interface WalkHead {
  /**
   * Loss of the next token at every position, [B·S]; 0 at the last one of a sequence.
   *
   * @param hidden_TD hidden states of a batch after the last layer.
   * @param batch which batch of the walk's text it is.
   */
  losses(hidden_TD: Float32Array, batch: number): Promise<Float32Array>;
  /** Losses of the labels given, [N], of as many hidden states after the last layer, [N, D]; 0 where a label is negative. */
  labelLosses(hidden_ND: Float32Array, label_N: Int32Array): Promise<Float32Array>;
  /** Logits of every position of a batch, [B·S, V]. */
  logits(hidden_TD: Float32Array): Promise<Float32Array>;
}

/** Reads the final norm and the head, which go with the walk. @throws ModelError naming file and tensor if one is missing or of another shape. */
export async function openHead(folder: ModelFolder, walk: Walk, {tokens, sequenceLength}: WalkText): Promise<WalkHead> {
  const {architecture} = walk;
  const specs = parameterSpecs(architecture);
  const load = async (spec: typeof specs.embed) =>
    walk.own(createVariable(spec.path, spec.shape, await readParameter(folder, architecture, spec)));
  const norm = specs.norm && (await load(specs.norm));
  const table = await load(specs.head ?? specs.embed);
  const final = (x_TD: tf.Tensor2D): tf.Tensor2D => finalHidden(x_TD, norm?.read() ?? null, architecture);
  const runLosses = walk.own(
    compile(
      (x_TD: tf.Tensor2D, label_T: tf.Tensor1D) => tokenLosses(final(x_TD), table.read() as tf.Tensor2D, label_T),
      {name: 'head_losses'},
    ),
  );
  const runLogits = walk.own(
    compile((x_TD: tf.Tensor2D) => matMul(final(x_TD), table.read() as tf.Tensor2D, {transposeB: true}), {
      name: 'head_logits',
    }),
  );
  const size = walk.batchSize * sequenceLength;
  const labelLosses: WalkHead['labelLosses'] = async (hidden_ND, label_N) => {
    const inputs = [hiddenTensor(walk, hidden_ND), tf.tensor1d(label_N, 'int32')] as const;
    const loss_N = await runLosses(...inputs);
    const losses_N = Float32Array.from(await loss_N.data());
    tf.dispose([...inputs, loss_N]);
    return losses_N;
  };
  return {
    losses: (hidden_TD, batch) => {
      const label = (_: unknown, i: number): number =>
        (i + 1) % sequenceLength === 0 ? -1 : (tokens[batch * size + i + 1] as number);
      return labelLosses(hidden_TD, Int32Array.from({length: size}, label));
    },
    labelLosses,
    logits: async (hidden_TD) => {
      const x_TD = hiddenTensor(walk, hidden_TD);
      const logit_TV = await runLogits(x_TD);
      const logits_TV = Float32Array.from(await logit_TV.data());
      tf.dispose([x_TD, logit_TV]);
      return logits_TV;
    },
  };
}

/** Logits of every position of a walk's text, [T, V], from the hidden states after its last layer. */
export async function headLogits(folder: ModelFolder, walk: Walk, text: WalkText): Promise<Float32Array> {
  const head = await openHead(folder, walk, text);
  const logits: Float32Array[] = [];
  for (const batch of walk.batches) logits.push(await head.logits(batch));
  return joinFloats(logits);
}
