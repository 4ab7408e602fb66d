import {describe, expect} from 'vitest';
import {cholesky, choleskySolve, lowerPanels, lowerSquare} from '../../src/op/cholesky.js';
import {onEveryEngine} from '../support/engines.js';
import {floats, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

/** x·xᵀ + 0.1: positive definite. */
function definite(x_NK: tf.Tensor2D): tf.Tensor2D {
  return tf.add(tf.matMul(x_NK, x_NK, false, true), tf.mul(tf.eye(x_NK.shape[0]), 0.1));
}

describe('cholesky', () => {
  onEveryEngine('gives a lower matrix whose square is the matrix', async ({run}) => {
    const [l, square, a] = await run(
      (x: tf.Tensor2D) => {
        const matrix = definite(x);
        const factor = cholesky(matrix);
        return [factor, tf.matMul(factor, factor, false, true), matrix];
      },
      normals([9, 9], 1),
    );
    expect(square!.values).toBeAllClose(Array.from(a!.values), {rtol: 1e-5, atol: 1e-5});
    for (let i = 0; i < 9; i++) for (let j = i + 1; j < 9; j++) expect(l!.values[i * 9 + j]).toBe(0);
  });

  onEveryEngine('of a known matrix is known', async ({run}) => {
    const [l] = await run((a: tf.Tensor2D) => cholesky(a), floats([3, 3], [4, 12, -16, 12, 37, -43, -16, -43, 98]));
    expect(l!.values).toBeAllClose([2, 0, 0, 6, 1, 0, -8, 5, 3], {atol: 1e-5});
  });
});

describe('choleskySolve', () => {
  onEveryEngine('solves, for several right sides at once', async ({run}) => {
    const [back, b] = await run(
      (x: tf.Tensor2D, right: tf.Tensor2D) => {
        const a = definite(x);
        return [tf.matMul(a, choleskySolve(lowerPanels(a), right.clone())), right];
      },
      normals([12, 12], 2),
      normals([12, 5], 3),
    );
    expect(back!.values).toBeAllClose(Array.from(b!.values), {rtol: 1e-4, atol: 1e-4});
  });

  onEveryEngine('takes what it is given: panels and right side are gone', async () => {
    const whole = tf.mul(tf.eye(600), 2) as tf.Tensor2D;
    const [panels, right] = [lowerPanels(whole), tf.ones([600, 2]) as tf.Tensor2D];
    const solved = choleskySolve(panels, right, 2);
    expect(panels.length).toBeGreaterThan(2);
    expect([right, ...panels].every(({isDisposed}) => isDisposed)).toBe(true);
    expect(await solved.data()).toBeAllClose(new Array<number>(1200).fill(0.25), {rtol: 1e-6});
    tf.dispose([whole, solved]);
  });

  onEveryEngine('solves in panels and in blocks of columns, the last ones narrower', async ({run}) => {
    const [N, M] = [1100, 300];
    const [back, b] = await run(
      (x: tf.Tensor2D, right: tf.Tensor2D) => {
        const square = lowerSquare(x);
        const shifted = tf.add(tf.matMul(x, x, true), tf.mul(tf.eye(N), 40)) as tf.Tensor2D;
        return [tf.matMul(shifted, choleskySolve(square, right.clone(), 40)), right];
      },
      normals([30, N], 4),
      normals([N, M], 5),
    );
    expect(back!.values).toBeAllClose(Array.from(b!.values), {rtol: 1e-3, atol: 1e-3});
  });
});
