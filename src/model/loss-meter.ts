import {type Compiled, compile} from '../engine/compile.js';
import type {Precision} from '../engine/precision.js';
import * as tf from '../engine/tfjs.js';
import type {ShardRows} from '../format/token-shard-rows.js';
import {tokenLosses} from '../op/linear-cross-entropy.js';
import {type AdaptedModel, weightsOf} from './adapter.js';
import {batchTensor, splitBatch} from './batch.js';
import {decode, headOf} from './decoder.js';

/** What a model scores on some text. */
export interface Measurement {
  /** Mean loss in nats over all predicted tokens. */
  readonly loss: number;
  readonly tokens: number;
}

/** Measures a model's loss on batches of rows. */
export interface LossMeter {
  measure(batches: AsyncIterable<ShardRows>): Promise<Measurement>;
  dispose(): void;
}

/** A meter for rows of `sequenceLength + 1` tokens; it reads the variables as they stand at each call. */
export function createLossMeter(model: AdaptedModel, sequenceLength: number, precision: Precision): LossMeter {
  const run = compileMeasure(model, precision);
  return {
    measure: async (batches) => {
      let loss = 0;
      let tokens = 0;
      for await (const rows of batches) {
        const [sum, count] = await measureBatch(run, batchTensor(rows, sequenceLength));
        loss += sum;
        tokens += count;
      }
      return {loss: loss / tokens, tokens};
    },
    dispose: () => run.dispose(),
  };
}

type Measure = Compiled<[tf.Tensor3D], {figures: tf.Tensor}>;

async function measureBatch(run: Measure, batch: tf.Tensor3D): Promise<[loss: number, tokens: number]> {
  const {figures} = await run(batch);
  const [loss = 0, tokens = 0] = await figures.data();
  tf.dispose([batch, figures]);
  return [loss, tokens];
}

/** `batch → [sum of losses, predicted tokens]`. */
function compileMeasure(model: AdaptedModel, precision: Precision): Measure {
  const measure = (batch_NBS: tf.Tensor3D): {figures: tf.Tensor} => {
    const {input, label_T} = splitBatch(batch_NBS);
    const weights = weightsOf(model);
    const {hidden_TD} = decode(weights, model.architecture, input);
    const losses = tokenLosses(hidden_TD, headOf(weights), label_T);
    const predicted = tf.sum(tf.cast(tf.greaterEqual(label_T, tf.scalar(0, 'int32')), 'float32'));
    return {figures: tf.stack([tf.sum(losses), predicted])};
  };
  return compile(measure, {name: 'measure_loss', precision});
}
