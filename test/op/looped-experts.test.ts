import {describe, expect, it} from 'vitest';
import {combine, dispatch, expertProduct, expertSlots} from '../../src/op/experts.js';
import {loopedProduct} from '../../src/op/looped-experts.js';
import {multiplied} from '../../src/op/product.js';
import {onEngine, onEveryEngine, withEngine} from '../support/engines.js';
import {ints, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

/** T tokens choose K of E experts, of which 0, 1 and 2 want two, two and one spare block besides a row of their own. */
const [T, K, E] = [6, 2, 4];
const CHOICE = [1, 0, 1, 2, 0, 1, 2, 1, 1, 0, 2, 0];
const choice = ints([T, K], CHOICE);
const WANTED = 5;
const room = (blocks: number) => ({rows: 1, blockRows: 2, blocks});
const weight = normals([T, K], 3);

/** Matrices above and below the size from which a compiled program loops. */
const SIZES = [
  [128, 256],
  [3, 2],
] as const;

const through =
  (blocks: number, productOf: typeof loopedProduct) =>
  (x_TD: tf.Tensor2D, w_EDF: tf.Tensor3D, weight_TK: tf.Tensor2D, chosen: tf.Tensor2D): tf.Tensor => {
    const slots = expertSlots(chosen, E, room(blocks));
    return combine(multiplied(dispatch(x_TD, slots), w_EDF, productOf(slots)), weight_TK, slots);
  };

describe('the looped product by expert', () => {
  for (const [D, F] of SIZES) {
    const [x, matrices] = [normals([T, D], 1), normals([E, D, F], 2)];

    onEveryEngine(`equals a walk over tokens and their experts, ${D} x ${F}`, async ({run}) => {
      const expected = Array.from({length: T}, (_, t) =>
        Array.from({length: F}, (_, f) =>
          [0, 1].reduce((sum, k) => {
            const start = CHOICE[t * K + k]! * D * F;
            const row = Array.from(x.values.subarray(t * D, (t + 1) * D));
            const y = row.reduce((dotted, value, d) => dotted + value * matrices.values[start + d * F + f]!, 0);
            return sum + weight.values[t * K + k]! * y;
          }, 0),
        ),
      );
      for (const blocks of [WANTED, WANTED + 2]) {
        const [result] = await run(through(blocks, loopedProduct), x, matrices, weight, choice);
        expect(result!.values).toBeAllClose(expected, {atol: 1e-4, rtol: 1e-5}); // sums of up to 128 terms of about 1
      }
    });

    onEveryEngine(`leaves out what has no block, as the other product does, ${D} x ${F}`, async ({run}) => {
      for (const blocks of [1, 3]) {
        const [found] = await run(through(blocks, loopedProduct), x, matrices, weight, choice);
        const [expected] = await run(through(blocks, expertProduct), x, matrices, weight, choice);
        expect(found!.values).toBeAllClose(expected!.values, {atol: 1e-4, rtol: 1e-5});
      }
    });
  }

  onEngine('tensorflow-compiled', 'computes no block that holds no row', async ({run}) => {
    const [[D, F], blocks] = [SIZES[0], WANTED + 2];
    const rows = (x_TD: tf.Tensor2D, w_EDF: tf.Tensor3D, chosen: tf.Tensor2D): tf.Tensor => {
      const slots = expertSlots(chosen, E, room(blocks));
      return multiplied(dispatch(x_TD, slots), w_EDF, loopedProduct(slots));
    };
    const [result] = await run(rows, normals([T, D], 1), normals([E, D, F], 2), choice);
    const isZero = (row: number): boolean => result!.values.subarray(row * F, (row + 1) * F).every((y) => y === 0);
    const untouched = Array.from({length: blocks}, (_, block) => isZero(E + 2 * block) && isZero(E + 2 * block + 1));
    expect(untouched).toEqual([false, false, false, false, false, true, true]);
  });

  it('has no gradient, and says so', () =>
    withEngine('wasm', () => {
      const [x, w] = [tf.ones([T, 3]) as tf.Tensor2D, tf.ones([E, 3, 2]) as tf.Tensor3D];
      const loss = (rows: tf.Tensor): tf.Scalar => {
        const slots = expertSlots(tf.tensor2d(CHOICE, [T, K], 'int32'), E, room(WANTED));
        return tf.sum(multiplied(dispatch(rows as tf.Tensor2D, slots), w, loopedProduct(slots)));
      };
      expect(() => tf.grad(loss)(x)).toThrow('a looped product has no gradient');
    }));
});
