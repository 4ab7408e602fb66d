import * as tf from '@tensorflow/tfjs';
import {describe, expect} from 'vitest';
import {fitActivity} from '../../src/downcycle/ridge.js';
import {onEveryEngine} from '../support/engines.js';

/** Sums over inputs [x1, x2] and the activity of one neuron. */
function sumsOf(tokens: readonly (readonly [number, number, number])[]) {
  const sum = (of: (x: number, y: number, a: number) => number): number =>
    tokens.reduce((total, [x, y, a]) => total + of(x, y, a), 0);
  const cross = sum((x, y) => x * y);
  return {
    count: tokens.length,
    x_D: Float64Array.of(
      sum((x) => x),
      sum((_, y) => y),
    ),
    xx_DD: Float64Array.of(
      sum((x) => x * x),
      cross,
      cross,
      sum((_, y) => y * y),
    ),
    a_F: Float64Array.of(sum((_x, _y, a) => a)),
    xa_DF: Float64Array.of(
      sum((x, _, a) => x * a),
      sum((_, y, a) => y * a),
    ),
  };
}

describe('the ridge regression of activity', () => {
  onEveryEngine('holds weights down by 0.3 of the mean variance', async () => {
    // x1 is 0 or 2 (variance 1), x2 is 1 or 5 (variance 4), independent; a = 3 x1 + x2. λ = 0.3 · 2.5 = 0.75.
    const tokens = [0, 2].flatMap((x) => [1, 5].map((y) => [x, y, 3 * x + y] as const));
    const {weight_DK, intercept_K} = fitActivity(sumsOf(tokens));
    const [first, second] = [3 / 1.75, 4 / 4.75];
    expect(await weight_DK.data()).toBeAllClose([first, second], {rtol: 1e-6});
    expect(await intercept_K.data()).toBeAllClose([6 - first - 3 * second], {rtol: 1e-6}); // the mean of a is 6
    tf.dispose([weight_DK, intercept_K]);
  });
});
