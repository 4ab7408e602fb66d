import {describe, expect} from 'vitest';
import {pickBlocks, pickColumns, topIndices} from '../../src/op/top-k.js';
import {onEveryEngine} from '../support/engines.js';
import {checkGradients} from '../support/gradients.js';
import {floats, ints, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

describe('topIndices', () => {
  onEveryEngine('names the K largest of each row, largest first', async ({run}) => {
    const scores = normals([20, 9], 1);
    const [result] = await run((s: tf.Tensor2D) => topIndices(s, 3), scores);
    const expected = Array.from({length: 20}, (_, t) => {
      const row = Array.from(scores.values.subarray(t * 9, (t + 1) * 9));
      return row
        .map((score, e) => ({score, e}))
        .sort((a, b) => b.score - a.score)
        .slice(0, 3)
        .map(({e}) => e);
    });
    expect(result!.dtype).toBe('int32');
    expect(Array.from(result!.values)).toEqual(expected.flat());
  });

  onEveryEngine('takes the lower index where scores are equal', async ({run}) => {
    const wide = Array.from({length: 40}, (_, i) => (i === 7 ? 2 : 1));
    const [few] = await run((s: tf.Tensor2D) => topIndices(s, 2), floats([3, 4], [1, 1, 1, 1, 0, 2, 2, 2, 3, 1, 3, 1]));
    const [many] = await run((s: tf.Tensor2D) => topIndices(s, 5), floats([1, 40], wide));
    expect(Array.from(few!.values)).toEqual([0, 1, 1, 2, 0, 2]);
    expect(Array.from(many!.values)).toEqual([7, 0, 1, 2, 3]);
  });

  onEveryEngine('is a constant to the gradient', async ({run}) => {
    const fn = (s: tf.Tensor2D): tf.Tensor =>
      tf.grad((x: tf.Tensor) => tf.sum(tf.mul(x, tf.oneHot(topIndices(x as tf.Tensor2D, 1).flatten(), 3))))(s);
    const [result] = await run(fn, floats([2, 3], [1, 5, 2, 7, 3, 4]));
    expect(result!.values).toBeAllClose([0, 1, 0, 1, 0, 0]);
  });
});

const COLUMNS = [2, 0, 1, 1, 3, 2];

describe('pickColumns', () => {
  onEveryEngine('picks the named columns of each row', async ({run}) => {
    const x = normals([3, 4], 1);
    const [result] = await run((t: tf.Tensor2D, c: tf.Tensor2D) => pickColumns(t, c), x, ints([3, 2], COLUMNS));
    const expected = COLUMNS.map((column, i) => x.values[Math.floor(i / 2) * 4 + column]!);
    expect(result!.values).toBeAllClose(expected, {rtol: 0, atol: 0});
  });

  onEveryEngine('has the gradient of finite differences, a column picked twice included', (engine) =>
    checkGradients(engine, (t: tf.Tensor2D) => pickColumns(t, tf.tensor2d(COLUMNS, [3, 2], 'int32')), [
      normals([3, 4], 1),
    ]),
  );
});

describe('pickBlocks', () => {
  const pick = (t: tf.Tensor3D): tf.Tensor3D => pickBlocks(t, tf.tensor2d(COLUMNS, [3, 2], 'int32'));

  onEveryEngine('picks the named blocks of each row', async ({run}) => {
    const x = normals([3, 4, 5], 1);
    const [result] = await run(pick, x);
    const expected = COLUMNS.flatMap((block, i) => {
      const begin = (Math.floor(i / 2) * 4 + block) * 5;
      return [...x.values.subarray(begin, begin + 5)];
    });
    expect(result!.shape).toEqual([3, 2, 5]);
    expect(result!.values).toBeAllClose(expected, {rtol: 0, atol: 0});
  });

  onEveryEngine('has the gradient of finite differences, a block picked twice included', (engine) =>
    checkGradients(engine, pick, [normals([3, 4, 2], 1)]),
  );
});
