import * as tf from '@tensorflow/tfjs';
import {describe, expect} from 'vitest';
import {linearCrossEntropy} from '../../src/op/linear-cross-entropy.js';
import {linearDistillation, type Teacher} from '../../src/op/linear-distillation.js';
import {onEveryEngine} from '../support/engines.js';
import {checkGradients} from '../support/gradients.js';
import {type Host, normals} from '../support/host.js';

/** T rows, width D of the student and C of the teacher, V words; row 2 does not count. */
const [T, D, C, V] = [5, 4, 3, 7];
const LABELS = [3, 0, -1, 6, 2];
const [h, head, taughtBy, teacherHead] = [
  normals([T, D], 1),
  normals([V, D], 2),
  normals([T, C], 3),
  normals([V, C], 4),
];
const labels = (): tf.Tensor1D => tf.tensor1d(LABELS, 'int32');
type How = Pick<Teacher, 'temperature' | 'weight'>;

const losses =
  (how: How, maxLogits?: number) =>
  (h_TD: tf.Tensor2D, head_VD: tf.Tensor2D, hidden_TC: tf.Tensor2D, head_VC: tf.Tensor2D): tf.Tensor =>
    linearDistillation(h_TD, head_VD, labels(), {hidden_TC, head_VC, ...how}, maxLogits);

/** log softmax of a row of logits over a temperature, in float64. */
function logShares(rows: Host, words: Host, t: number, temperature: number): number[] {
  const width = rows.shape[1]!;
  const logits = Array.from({length: V}, (_, v) =>
    Array.from({length: width}, (_unused, d) => rows.values[t * width + d]! * words.values[v * width + d]!).reduce(
      (a, b) => a + b,
    ),
  ).map((logit) => logit / temperature);
  const sum = Math.log(logits.reduce((total, logit) => total + Math.exp(logit), 0));
  return logits.map((logit) => logit - sum);
}

function expected({temperature, weight}: How): number[] {
  const counted = LABELS.flatMap((label, t) => (label < 0 ? [] : [{label, t}]));
  const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  const ce = mean(counted.map(({label, t}) => -logShares(h, head, t, 1)[label]!));
  const kl = mean(
    counted.map(({t}) => {
      const [taught, learnt] = [logShares(taughtBy, teacherHead, t, temperature), logShares(h, head, t, temperature)];
      return taught.reduce((sum, log, v) => sum + Math.exp(log) * (log - learnt[v]!), 0);
    }),
  );
  return [(1 - weight) * ce + weight * temperature ** 2 * kl, ce, kl];
}

describe('linearDistillation', () => {
  onEveryEngine('is its definition in float64, whole and in chunks of rows', async ({run}) => {
    for (const how of [
      {temperature: 1, weight: 0.5},
      {temperature: 2.5, weight: 0.9},
    ]) {
      for (const maxLogits of [undefined, 2 * V]) {
        const [found] = await run(losses(how, maxLogits), h, head, taughtBy, teacherHead);
        expect(found!.values).toBeAllClose(expected(how), {rtol: 1e-5, atol: 1e-6});
      }
    }
  });

  onEveryEngine('has the gradient of finite differences to hidden states and head', async (engine) => {
    const how = {temperature: 2, weight: 0.7};
    for (const maxLogits of [undefined, 2 * V]) {
      await checkGradients(
        engine,
        (h_TD: tf.Tensor2D, head_VD: tf.Tensor2D) => {
          const [hidden_TC, head_VC] = [taughtBy, teacherHead].map(({shape, values}) => tf.tensor(values, [...shape]));
          const all = losses(how, maxLogits)(h_TD, head_VD, hidden_TC as tf.Tensor2D, head_VC as tf.Tensor2D);
          return tf.slice(all, [0], [1]);
        },
        [h, head],
      );
    }
  });

  onEveryEngine(
    'is the cross-entropy where the teacher has no weight, and nothing where it is the student',
    async ({run}) => {
      const fn = (h_TD: tf.Tensor2D, head_VD: tf.Tensor2D): tf.Tensor[] => [
        losses({temperature: 3, weight: 0})(h_TD, head_VD, h_TD, head_VD),
        linearCrossEntropy(h_TD, head_VD, labels()),
      ];
      const [own, plain] = await run(fn, h, head);
      expect(own!.values[0]).toBeCloseTo(plain!.values[0]!, 6);
      expect(own!.values[2]).toBeCloseTo(0, 6);
    },
  );
});
