import {describe, expect} from 'vitest';
import {untaped} from '../../src/op/untaped.js';
import {onEveryEngine} from '../support/engines.js';
import {floats, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

describe('untaped', () => {
  onEveryEngine('makes its result a constant to the gradient', async ({run}) => {
    const fn = (x: tf.Tensor): tf.Tensor =>
      tf.grad((t: tf.Tensor) =>
        tf.mul(
          t,
          untaped(() => tf.square(t)),
        ),
      )(x);
    const [result] = await run(fn, floats([3], [1, 2, 3]));
    expect(result!.values).toBeAllClose([1, 4, 9]); // not 3x², the slope of x³
  });

  onEveryEngine('lets indices of its argument be computed under a gradient', async ({run}) => {
    const fn = (x: tf.Tensor): tf.Tensor =>
      tf.grad((t: tf.Tensor) =>
        tf.mul(
          t,
          tf.cast(
            tf.equal(
              untaped(() => tf.argMax(t)),
              tf.range(0, 3, 1, 'int32'),
            ),
            'float32',
          ),
        ),
      )(x);
    const [result] = await run(fn, floats([3], [1, 5, 3]));
    expect(result!.values).toBeAllClose([0, 1, 0]);
  });

  onEveryEngine('puts the tape back when the function throws', async ({run}) => {
    const fn = (x: tf.Tensor): tf.Tensor =>
      tf.grad((t: tf.Tensor) => {
        expect(() =>
          untaped(() => {
            throw new Error('inside');
          }),
        ).toThrow('inside');
        return tf.square(t);
      })(x);
    const x = normals([4], 1);
    const [result] = await run(fn, x);
    expect(result!.values).toBeAllClose(x.values.map((v) => 2 * v));
  });
});
