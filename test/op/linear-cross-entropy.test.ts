import {describe, expect} from 'vitest';
import {linearCrossEntropy, tokenLosses} from '../../src/op/linear-cross-entropy.js';
import {onEveryEngine} from '../support/engines.js';
import {checkGradients, gradientsOf} from '../support/gradients.js';
import {floats, type Host, ints, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

const [T, D, V] = [7, 3, 5];
const h = normals([T, D], 1);
const head = normals([V, D], 2);
const LABELS = [0, 4, -1, 2, 2, -1, 3];
const label = ints([T], LABELS);

/** One chunk; chunks of 2, 2, 2 and 1 rows; a row a chunk. */
const CHUNKS = [2 ** 24, 2 * V, 1];

const mean =
  (maxLogits?: number) =>
  (x: tf.Tensor2D, w: tf.Tensor2D, y: tf.Tensor1D): tf.Tensor =>
    linearCrossEntropy(x, w, y, maxLogits);

/** The same with the labels fixed, for gradients. */
const meanOf =
  (maxLogits: number) =>
  (x: tf.Tensor2D, w: tf.Tensor2D): tf.Tensor =>
    linearCrossEntropy(x, w, tf.tensor1d(LABELS, 'int32'), maxLogits);

/** −log softmax(W·h)[label] of every row in float64; 0 where the label is negative. */
function reference(hidden: Host, weights: Host, labels: readonly number[]): number[] {
  return labels.map((y, t) => {
    if (y < 0) return 0;
    const logits = Array.from({length: V}, (_, v) => {
      let sum = 0;
      for (let i = 0; i < D; i++) sum += hidden.values[t * D + i]! * weights.values[v * D + i]!;
      return sum;
    });
    return Math.log(logits.reduce((sum, x) => sum + Math.exp(x), 0)) - logits[y]!;
  });
}

const counted = LABELS.filter((y) => y >= 0).length;
const expectedMean = reference(h, head, LABELS).reduce((a, b) => a + b, 0) / counted;

describe('linearCrossEntropy', () => {
  for (const maxLogits of CHUNKS) {
    onEveryEngine(
      `is the mean negative log likelihood of the rows that count, ${maxLogits} logits at once`,
      async ({run}) => {
        const [loss] = await run(mean(maxLogits), h, head, label);
        expect(loss!.shape).toEqual([]);
        expect(loss!.values).toBeAllClose([expectedMean]);
      },
    );
  }

  onEveryEngine('has the gradient of finite differences in one chunk', (engine) =>
    checkGradients(engine, meanOf(2 ** 24), [h, head]),
  );

  onEveryEngine('has the gradient of finite differences in chunks', (engine) =>
    checkGradients(engine, meanOf(2 * V), [h, head]),
  );

  onEveryEngine('gives rows that do not count no gradient', async (engine) => {
    const [dh] = await gradientsOf(engine, meanOf(2 * V), [h, head], floats([], [1]));
    const ofRow = (t: number): number[] => Array.from(dh!.values.subarray(t * D, (t + 1) * D));
    expect([...ofRow(2), ...ofRow(5)]).toBeAllClose([0, 0, 0, 0, 0, 0], {rtol: 0, atol: 0});
    expect(ofRow(0)).not.toBeAllClose([0, 0, 0]);
  });

  onEveryEngine('is zero, not NaN, when no row counts', async ({run}) => {
    const [loss] = await run(mean(), h, head, ints([T], new Array<number>(T).fill(-1)));
    expect(loss!.values).toBeAllClose([0]);
  });

  onEveryEngine('takes logits far apart without overflow', async ({run}) => {
    const far = floats(
      [T, D],
      h.values.map((x) => x * 1000),
    );
    const [loss] = await run(mean(), far, head, label);
    const largest = limitFarApart(far);
    expect(loss!.values).toBeAllClose([largest], {rtol: 1e-4});
  });
});

/** The limit of the loss for logits far apart: largest logit minus the label's. */
function limitFarApart(hidden: Host): number {
  const losses = LABELS.map((y, t) => {
    if (y < 0) return 0;
    const logits = Array.from({length: V}, (_, v) =>
      [0, 1, 2].reduce((sum, i) => sum + hidden.values[t * D + i]! * head.values[v * D + i]!, 0),
    );
    return Math.max(...logits) - logits[y]!;
  });
  return losses.reduce((a, b) => a + b, 0) / counted;
}

describe('tokenLosses', () => {
  for (const maxLogits of CHUNKS) {
    onEveryEngine(
      `is the loss of each row, zero for those that do not count, ${maxLogits} logits at once`,
      async ({run}) => {
        const fn = (x: tf.Tensor2D, w: tf.Tensor2D, y: tf.Tensor1D): tf.Tensor => tokenLosses(x, w, y, maxLogits);
        const [losses] = await run(fn, h, head, label);
        expect(losses!.values).toBeAllClose(reference(h, head, LABELS));
      },
    );
  }
});
