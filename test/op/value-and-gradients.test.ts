import {describe, expect} from 'vitest';
import {valueAndGradients} from '../../src/op/value-and-gradients.js';
import {onEveryEngine} from '../support/engines.js';
import {floats} from '../support/host.js';
import * as tf from '../support/tfjs.js';

describe('valueAndGradients', () => {
  onEveryEngine('gives the loss, its gradient to each parameter, and what the loss function reports', async ({run}) => {
    const fn = (a: tf.Tensor, b: tf.Tensor): tf.Tensor[] => {
      const {loss, gradients, report} = valueAndGradients(
        ([x, y]) => {
          const product = tf.mul(x!, y!);
          return {loss: tf.sum(product), report: [product, tf.max(product)]};
        },
        [a, b],
      );
      return [loss, ...gradients, ...report];
    };
    const results = await run(fn, floats([3], [1, 2, 3]), floats([3], [4, -5, 6]));
    expect(results.map(({values}) => Array.from(values))).toEqual([[12], [4, -5, 6], [1, 2, 3], [4, -10, 18], [18]]);
  });
});
