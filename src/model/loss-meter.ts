import * as tf from '@tensorflow/tfjs';
import {type Compiled, compile} from '../engine/compile.js';
import type {Precision} from '../engine/precision.js';
import type {ShardRows} from '../format/token-shard-rows.js';
import {tokenLosses} from '../op/linear-cross-entropy.js';
import {batchTensor, splitBatch} from './batch.js';
import {decode} from './decoder.js';
import type {Model} from './model.js';
import {mapTree} from './parameters.js';

/** What a model scores on some text. */
export interface Measurement {
  /** Mean loss in nats over all predicted tokens. */
  readonly loss: number;
  readonly tokens: number;
  /** The fullest expert of any layer and batch, in even shares; 0 for a dense model. */
  readonly fullest: number;
}

/** Measures a model's loss on batches of rows. */
export interface LossMeter {
  measure(batches: AsyncIterable<ShardRows>): Promise<Measurement>;
  dispose(): void;
}

/**
 * A meter for rows of `sequenceLength + 1` tokens; it reads the variables as they stand at each call.
 *
 * Every expert computes every token: exact whatever the routers choose, and one function to compile.
 */
export function createLossMeter(
  model: Pick<Model, 'architecture' | 'parameters'>,
  sequenceLength: number,
  precision: Precision,
): LossMeter {
  const run = compileMeasure(model, precision);
  return {
    measure: async (batches) => {
      let loss = 0;
      let tokens = 0;
      let fullest = 0;
      for await (const rows of batches) {
        const [sum, count, share] = await measureBatch(run, batchTensor(rows, sequenceLength));
        loss += sum;
        tokens += count;
        fullest = Math.max(fullest, share);
      }
      return {loss: loss / tokens, tokens, fullest};
    },
    dispose: () => run.dispose(),
  };
}

type Measure = Compiled<[tf.Tensor3D], {figures: tf.Tensor}>;

async function measureBatch(run: Measure, batch: tf.Tensor3D): Promise<[loss: number, tokens: number, share: number]> {
  const {figures} = await run(batch);
  const [loss = 0, tokens = 0, share = 0] = await figures.data();
  tf.dispose([batch, figures]);
  return [loss, tokens, share];
}

/** `batch → [sum of losses, predicted tokens, share of the fullest expert]`. */
function compileMeasure(
  {architecture, parameters}: Pick<Model, 'architecture' | 'parameters'>,
  precision: Precision,
): Measure {
  const measure = (batch_NBS: tf.Tensor3D): {figures: tf.Tensor} => {
    const {input, label_T} = splitBatch(batch_NBS);
    const values = mapTree(parameters, (variable) => variable.read());
    const {hidden_TD, routers} = decode(values, architecture, input, {capacityFactor: Number.POSITIVE_INFINITY});
    const losses = tokenLosses(hidden_TD, (values.head ?? values.embed) as tf.Tensor2D, label_T);
    const predicted = tf.sum(tf.cast(tf.greaterEqual(label_T, tf.scalar(0, 'int32')), 'float32'));
    const shares = routers.map(({load_E}) => tf.div(tf.max(load_E), tf.mean(tf.cast(load_E, 'float32'))));
    return {figures: tf.stack([tf.sum(losses), predicted, tf.max(tf.stack([tf.scalar(0), ...shares]))])};
  };
  return compile(measure, {name: 'measure_loss', precision});
}
