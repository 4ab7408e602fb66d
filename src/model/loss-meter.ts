import * as tf from '@tensorflow/tfjs';
import {compile, type Compiled} from '../engine/compile.js';
import type {Precision} from '../engine/precision.js';
import type {ShardRows} from '../format/token-shard-rows.js';
import {tokenLosses} from '../op/linear-cross-entropy.js';
import {batchTensor, splitBatch} from './batch.js';
import {CAPACITY_BUCKETS} from './capacity.js';
import {decode} from './decoder.js';
import type {Model} from './model.js';
import {mapTree} from './parameters.js';

/** Measures a model's loss on batches of rows. */
export interface LossMeter {
  /** Mean loss in nats over all predicted tokens of the batches, exact whatever the routers choose. */
  measure(batches: AsyncIterable<ShardRows>): Promise<{readonly loss: number; readonly tokens: number}>;
  dispose(): void;
}

/** A meter for rows of `sequenceLength + 1` tokens; it reads the variables as they stand at each call. */
export function createLossMeter(
  model: Pick<Model, 'architecture' | 'parameters'>,
  sequenceLength: number,
  precision: Precision,
): LossMeter {
  const compiled = new Map<number, Measure>();
  let bucket = 0;
  const functionOf = (factor: number): Measure => {
    const measure = compiled.get(factor) ?? compileMeasure(model, factor, precision);
    compiled.set(factor, measure);
    return measure;
  };
  const measureBatch = async (rows: ShardRows): Promise<[sum: number, tokens: number]> => {
    const batch = batchTensor(rows, sequenceLength);
    try {
      for (;;) {
        const result = await functionOf(CAPACITY_BUCKETS[bucket] ?? Number.POSITIVE_INFINITY)(batch);
        const [sum = 0, tokens = 0, fits = 1] = await result.figures.data();
        result.figures.dispose();
        if (fits > 0) return [sum, tokens];
        bucket++;
      }
    } finally {
      batch.dispose();
    }
  };
  return {
    measure: async (batches) => {
      let loss = 0;
      let tokens = 0;
      for await (const rows of batches) {
        const [sum, count] = await measureBatch(rows);
        loss += sum;
        tokens += count;
      }
      return {loss: loss / tokens, tokens};
    },
    dispose: () => {
      for (const fn of compiled.values()) fn.dispose();
    },
  };
}

type Measure = Compiled<[tf.Tensor3D], {figures: tf.Tensor}>;

/** `batch → [sum of losses, predicted tokens, 1 if every expert had room]`. */
function compileMeasure(
  {architecture, parameters}: Pick<Model, 'architecture' | 'parameters'>,
  capacityFactor: number,
  precision: Precision,
): Measure {
  const measure = (batch_NBS: tf.Tensor3D): {figures: tf.Tensor} => {
    const {input, label_T} = splitBatch(batch_NBS);
    const values = mapTree(parameters, (variable) => variable.read());
    const {hidden_TD, routers} = decode(values, architecture, input, {capacityFactor});
    const losses = tokenLosses(hidden_TD, (values.head ?? values.embed) as tf.Tensor2D, label_T);
    const predicted = tf.sum(tf.cast(tf.greaterEqual(label_T, tf.scalar(0, 'int32')), 'float32'));
    const room = routers.map(({load_E, capacity}) =>
      tf.min(tf.cast(tf.lessEqual(load_E, tf.scalar(capacity, 'int32')), 'float32')),
    );
    return {figures: tf.stack([tf.sum(losses), predicted, tf.min(tf.stack([tf.scalar(1), ...room]))])};
  };
  return compile(measure, {name: 'measure_loss', precision});
}
