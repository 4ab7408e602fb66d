import {describe, expect} from 'vitest';
import {chosenProduct} from '../../src/op/chosen-experts.js';
import {multiplied} from '../../src/op/product.js';
import {onEngine, onEveryEngine} from '../support/engines.js';
import {ints, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

const [E, D, F] = [4, 3, 5];
const EXPERTS = [2, 0, 2];
const x = normals([EXPERTS.length, D], 1);
const w = normals([E, D, F], 2);

function product(...[rows, weights, experts]: [tf.Tensor2D, tf.Tensor3D, tf.Tensor1D]): tf.Tensor {
  return multiplied(rows, weights, chosenProduct(experts));
}

describe('chosenProduct', () => {
  onEveryEngine('multiplies each row by the matrix of its expert', async ({run}) => {
    const expected = EXPERTS.flatMap((expert, row) =>
      Array.from({length: F}, (_, f) =>
        Array.from({length: D}, (_, i) => x.values[row * D + i]! * w.values[(expert * D + i) * F + f]!).reduce(
          (a, b) => a + b,
        ),
      ),
    );
    const [y] = await run(product, x, w, ints([EXPERTS.length], EXPERTS));
    expect(y!.shape).toEqual([EXPERTS.length, F]);
    expect(y!.values).toBeAllClose(expected);
  });

  onEngine('wasm', 'has no gradient, and says so', async ({run}) => {
    const gradient = (...[rows, weights, experts]: [tf.Tensor2D, tf.Tensor3D, tf.Tensor1D]): tf.Tensor =>
      tf.grad((given) => tf.sum(product(given as tf.Tensor2D, weights, experts)))(rows);
    await expect(run(gradient, x, w, ints([EXPERTS.length], EXPERTS))).rejects.toThrow('has no gradient');
  });
});
