import {describe, expect} from 'vitest';
import {layerNorm} from '../../src/op/layer-norm.js';
import {onEveryEngine} from '../support/engines.js';
import {checkGradients} from '../support/gradients.js';
import {floats, normals} from '../support/host.js';
import type * as tf from '../support/tfjs.js';

const EPS = 1e-5;
const fn = (x: tf.Tensor2D): tf.Tensor => layerNorm(x, EPS);

describe('layerNorm', () => {
  onEveryEngine('takes the mean from each row and divides it by its standard deviation', async ({run}) => {
    const x = normals([3, 6], 1);
    const [result] = await run(fn, x);
    const rows = [0, 1, 2].map((row) => Array.from(x.values.subarray(row * 6, row * 6 + 6)));
    const expected = rows.map((row) => {
      const mean = row.reduce((sum, v) => sum + v, 0) / row.length;
      const deviation = Math.sqrt(row.reduce((sum, v) => sum + (v - mean) ** 2, 0) / row.length + EPS);
      return row.map((v) => (v - mean) / deviation);
    });
    expect(result!.values).toBeAllClose(expected);
  });

  onEveryEngine('gives zeros, not NaN, for a row of equal numbers', async ({run}) => {
    const [result] = await run(fn, floats([1, 4], [3, 3, 3, 3]));
    expect(result!.values).toBeAllClose([0, 0, 0, 0]);
  });

  onEveryEngine('has the gradient of finite differences', (engine) => checkGradients(engine, fn, [normals([5, 6], 1)]));
});
