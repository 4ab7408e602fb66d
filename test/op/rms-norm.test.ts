import {describe, expect} from 'vitest';
import {rmsNorm} from '../../src/op/rms-norm.js';
import {onEveryEngine} from '../support/engines.js';
import {checkGradients} from '../support/gradients.js';
import {floats, normals} from '../support/host.js';
import type * as tf from '../support/tfjs.js';

const EPS = 1e-5;
const fn = (x: tf.Tensor2D, weight: tf.Tensor1D): tf.Tensor => rmsNorm(x, weight, EPS);

describe('rmsNorm', () => {
  onEveryEngine('divides each row by its root mean square and scales the columns', async ({run}) => {
    const [x, weight] = [normals([3, 6], 1), normals([6], 2)];
    const [result] = await run(fn, x, weight);
    const rows = [0, 1, 2].map((row) => Array.from(x.values.subarray(row * 6, row * 6 + 6)));
    const expected = rows.map((row) => {
      const rms = Math.sqrt(row.reduce((sum, v) => sum + v * v, 0) / row.length + EPS);
      return row.map((v, i) => (v / rms) * weight.values[i]!);
    });
    expect(result!.values).toBeAllClose(expected);
  });

  onEveryEngine('gives zeros, not NaN, for a row of zeros', async ({run}) => {
    const [result] = await run(fn, floats([1, 4], [0, 0, 0, 0]), normals([4], 2));
    expect(result!.values).toBeAllClose([0, 0, 0, 0]);
  });

  onEveryEngine('has the gradient of finite differences', (engine) =>
    checkGradients(engine, fn, [normals([5, 6], 1), normals([6], 2)]),
  );
});
