import {describe, expect} from 'vitest';
import {linearCrossEntropy} from '../../src/op/linear-cross-entropy.js';
import {type Lesson, linearDistillation, topWords} from '../../src/op/linear-distillation.js';
import {onEveryEngine} from '../support/engines.js';
import {checkGradients} from '../support/gradients.js';
import {type Host, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

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
type How = Pick<Lesson, 'temperature' | 'weight'>;

const losses =
  (how: How, maxLogits?: number) =>
  (h_TD: tf.Tensor2D, head_VD: tf.Tensor2D, hidden_TC: tf.Tensor2D, head_VC: tf.Tensor2D): tf.Tensor =>
    linearDistillation(h_TD, head_VD, labels(), {taught: {kind: 'whole', hidden_TC, head_VC}, ...how}, maxLogits);

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

describe('learning from the likeliest words', () => {
  const K = 3;
  const fromTop =
    (how: How, topK: number, maxLogits?: number) =>
    (h_TD: tf.Tensor2D, head_VD: tf.Tensor2D, hidden_TC: tf.Tensor2D, head_VC: tf.Tensor2D): tf.Tensor => {
      const words = topWords(hidden_TC, head_VC, {topK, temperature: how.temperature}, maxLogits);
      return linearDistillation(h_TD, head_VD, labels(), {taught: {kind: 'top', ...words}, ...how}, maxLogits);
    };

  /** The teacher's K likeliest words of a row, and its shares and the student's with all others as one word. */
  function pooled(t: number, temperature: number): [taught: number[], learnt: number[]] {
    const [taught, learnt] = [logShares(taughtBy, teacherHead, t, temperature), logShares(h, head, t, temperature)];
    const top = [...taught.keys()].sort((a, b) => taught[b]! - taught[a]!).slice(0, K);
    const pool = (logs: readonly number[]): number[] => {
      const shares = top.map((v) => Math.exp(logs[v]!));
      return [...shares, 1 - shares.reduce((a, b) => a + b)];
    };
    return [pool(taught), pool(learnt)];
  }

  onEveryEngine('is KL over them and one word for all others, whole and in chunks', async ({run}) => {
    for (const how of [
      {temperature: 1, weight: 0.5},
      {temperature: 2.5, weight: 0.9},
    ]) {
      const [, ce] = expected(how);
      const rows = LABELS.flatMap((label, t) => (label < 0 ? [] : [pooled(t, how.temperature)]));
      const divergences = rows.map(([p, q]) => p.reduce((sum, share, i) => sum + share * Math.log(share / q[i]!), 0));
      const kl = divergences.reduce((a, b) => a + b) / rows.length;
      for (const maxLogits of [undefined, 2 * V]) {
        const [found] = await run(fromTop(how, K, maxLogits), h, head, taughtBy, teacherHead);
        const total = (1 - how.weight) * ce! + how.weight * how.temperature ** 2 * kl;
        expect(found!.values).toBeAllClose([total, ce!, kl], {rtol: 1e-5, atol: 1e-6});
      }
    }
  });

  onEveryEngine('is learning from all words where those are all', async ({run}) => {
    const how = {temperature: 1.5, weight: 0.7};
    const [top] = await run(fromTop(how, V), h, head, taughtBy, teacherHead);
    expect(top!.values).toBeAllClose(expected(how), {rtol: 1e-5, atol: 2e-5});
  });

  onEveryEngine('has the gradient of finite differences', (engine) =>
    checkGradients(
      engine,
      (h_TD: tf.Tensor2D, head_VD: tf.Tensor2D) => {
        const [hidden_TC, head_VC] = [taughtBy, teacherHead].map(({shape, values}) => tf.tensor(values, [...shape]));
        const all = fromTop({temperature: 2, weight: 0.7}, K, 2 * V)(
          h_TD,
          head_VD,
          hidden_TC as tf.Tensor2D,
          head_VC as tf.Tensor2D,
        );
        return tf.slice(all, [0], [1]);
      },
      [h, head],
    ),
  );
});
