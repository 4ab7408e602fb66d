import {describe, expect} from 'vitest';
import {causalAttention} from '../../src/op/attention.js';
import {onEveryEngine} from '../support/engines.js';
import {checkGradients, gradientsOf} from '../support/gradients.js';
import {type Host, ints, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

const [N, G, S, d] = [2, 3, 5, 4];
const q = normals([N, G, S, d], 1);
const k = normals([N, S, d], 2);
const v = normals([N, S, d], 3);
const SEGMENTS = [0, 0, 1, 1, 2, 0, 1, 1, 1, 1];

type Qkv = [q: tf.Tensor4D, k: tf.Tensor3D, v: tf.Tensor3D];

const attend =
  (blockRows: number) =>
  (...[a, b, c]: Qkv): tf.Tensor =>
    causalAttention(a, b, c, {blockRows});

const attendSegments =
  (blockRows: number) =>
  (...[a, b, c]: Qkv): tf.Tensor =>
    causalAttention(a, b, c, {blockRows, segment_NS: tf.tensor2d(SEGMENTS, [N, S], 'int32')});

const WINDOW = 2;
const SCALE = 0.3;

const attendWindow =
  (blockRows: number) =>
  (...[a, b, c]: Qkv): tf.Tensor =>
    causalAttention(a, b, c, {blockRows, window: WINDOW, scale: SCALE});

/** Masked softmax attention as its definition has it, one query row at a time in float64. */
function reference(isVisible: (n: number, query: number, key: number) => boolean, scale = 1 / Math.sqrt(d)): number[] {
  const result: number[] = [];
  for (let n = 0; n < N; n++) {
    for (let g = 0; g < G; g++) {
      for (let s = 0; s < S; s++) result.push(...queryRow(n, g, s, scale, isVisible));
    }
  }
  return result;
}

function queryRow(
  n: number,
  g: number,
  s: number,
  scale: number,
  isVisible: (n: number, s: number, t: number) => boolean,
): number[] {
  const keys = Array.from({length: S}, (_, t) => t).filter((t) => isVisible(n, s, t));
  const query = vector(q, (n * G + g) * S + s);
  const scores = keys.map((t) => {
    const key = vector(k, n * S + t);
    return query.reduce((sum, x, i) => sum + x * key[i]!, 0) * scale;
  });
  const weights = scores.map(Math.exp);
  const total = weights.reduce((a, b) => a + b, 0);
  return Array.from({length: d}, (_, i) =>
    keys.reduce((sum, t, j) => sum + (weights[j]! / total) * vector(v, n * S + t)[i]!, 0),
  );
}

function vector({values}: Host, index: number): number[] {
  return Array.from(values.subarray(index * d, (index + 1) * d));
}

describe('causalAttention', () => {
  for (const blockRows of [2, 5, 64]) {
    onEveryEngine(`equals masked softmax attention in blocks of ${blockRows} rows`, async ({run}) => {
      const [result] = await run(attend(blockRows), q, k, v);
      expect(result!.shape).toEqual([N, G, S, d]);
      expect(result!.values).toBeAllClose(
        reference((_, query, key) => key <= query),
        {atol: 1e-5},
      );
    });

    onEveryEngine(`stays inside segments in blocks of ${blockRows} rows`, async ({run}) => {
      const [result] = await run(attendSegments(blockRows), q, k, v);
      const segment = (n: number, s: number): number => SEGMENTS[n * S + s]!;
      const expected = reference((n, query, key) => key <= query && segment(n, key) === segment(n, query));
      expect(result!.values).toBeAllClose(expected, {atol: 1e-5});
    });

    onEveryEngine(
      `looks back no further than its window, at its scale, in blocks of ${blockRows} rows`,
      async ({run}) => {
        const [result] = await run(attendWindow(blockRows), q, k, v);
        const expected = reference((_, query, key) => key <= query && key > query - WINDOW, SCALE);
        expect(result!.values).toBeAllClose(expected, {atol: 1e-5});
      },
    );
  }

  onEveryEngine('has the same gradients whatever the block size', async (engine) => {
    const w = normals([N, G, S, d], 4);
    const whole = await gradientsOf(engine, attend(64), [q, k, v], w);
    for (const blockRows of [2, 3]) {
      const parts = await gradientsOf(engine, attend(blockRows), [q, k, v], w);
      for (const [i, {values}] of parts.entries()) expect(values).toBeAllClose(whole[i]!.values, {atol: 1e-5});
    }
  });

  onEveryEngine('has the gradient of finite differences', (engine) => checkGradients(engine, attend(3), [q, k, v]));

  onEveryEngine('has the gradient of finite differences inside segments', (engine) =>
    checkGradients(engine, attendSegments(3), [q, k, v]),
  );

  onEveryEngine('has the gradient of finite differences in a window', (engine) =>
    checkGradients(engine, attendWindow(3), [q, k, v]),
  );

  onEveryEngine('takes scores far apart without overflow', async ({run}) => {
    const large = {...q, values: q.values.map((x) => x * 1000)};
    const [result] = await run(attend(3), large, k, v);
    expect(result!.values.every(Number.isFinite)).toBe(true);
    expect(result!.values.subarray(0, d)).toBeAllClose(v.values.subarray(0, d));
  });

  onEveryEngine('takes its segments as a tensor given from outside', async ({run}) => {
    const fn = (a: tf.Tensor4D, b: tf.Tensor3D, c: tf.Tensor3D, segment_NS: tf.Tensor2D): tf.Tensor =>
      causalAttention(a, b, c, {blockRows: 3, segment_NS});
    const [given] = await run(fn, q, k, v, ints([N, S], SEGMENTS));
    const [made] = await run(attendSegments(3), q, k, v);
    expect(given!.values).toBeAllClose(made!.values, {rtol: 0, atol: 0});
  });
});
