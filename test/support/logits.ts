import {compile} from '../../src/engine/compile.js';
import {decode, logits} from '../../src/model/decoder.js';
import type {Model} from '../../src/model/model.js';
import {mapTree} from '../../src/model/parameters.js';
import * as tf from './tfjs.js';

/** Logits of every position of some sequences, one after the other, [tokens, V]; the whole model is compiled at once. */
export async function logitsOf(
  {architecture, parameters}: Pick<Model, 'architecture' | 'parameters'>,
  sequences: readonly (readonly number[])[],
): Promise<Float32Array> {
  const run = compile((token_BS: tf.Tensor2D) => {
    const params = mapTree(parameters, (variable) => variable.read());
    return logits(decode(params, architecture, {token_BS}).hidden_TD, params);
  });
  const all = new Float32Array(sequences.flat().length * architecture.vocab);
  let at = 0;
  for (const sequence of sequences) {
    const token_BS = tf.tensor2d([...sequence], [1, sequence.length], 'int32');
    const logit_TV = await run(token_BS);
    all.set(await logit_TV.data<'float32'>(), at);
    at += logit_TV.size;
    tf.dispose([token_BS, logit_TV]);
  }
  run.dispose();
  return all;
}
