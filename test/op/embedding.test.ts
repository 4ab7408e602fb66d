import {describe, expect} from 'vitest';
import {embed} from '../../src/op/embedding.js';
import {onEveryEngine} from '../support/engines.js';
import {checkGradients} from '../support/gradients.js';
import {ints, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

const IDS = [4, 0, 4, 2, 4, 0];
const table = normals([5, 3], 1);
const row = (values: ArrayLike<number>, i: number): number[] => Array.from(values).slice(i * 3, i * 3 + 3);

describe('embed', () => {
  onEveryEngine('picks rows of the table by id', async ({run}) => {
    const fn = (t: tf.Tensor2D, ids: tf.Tensor1D): tf.Tensor => embed(t, ids);
    const [result] = await run(fn, table, ints([6], IDS));
    expect(result!.shape).toEqual([6, 3]);
    expect(result!.values).toBeAllClose(
      IDS.map((id) => row(table.values, id)),
      {rtol: 0, atol: 0},
    );
  });

  onEveryEngine('adds up the gradients of a repeated id and gives an unused one zero', async ({run}) => {
    const dy = normals([6, 3], 2);
    const gradient = (t: tf.Tensor2D, ids: tf.Tensor1D, w: tf.Tensor2D): tf.Tensor =>
      tf.grad((x: tf.Tensor) => embed(x as tf.Tensor2D, ids))(t, w);
    const [result] = await run(gradient, table, ints([6], IDS), dy);
    const expected = [0, 1, 2, 3, 4].map((id) => {
      const uses = IDS.flatMap((used, t) => (used === id ? [row(dy.values, t)] : []));
      return [0, 1, 2].map((c) => uses.reduce((sum, use) => sum + use[c]!, 0));
    });
    expect(result!.values).toBeAllClose(expected);
  });

  onEveryEngine('has the gradient of finite differences', (engine) =>
    checkGradients(engine, (t: tf.Tensor2D) => embed(t, tf.tensor1d(IDS, 'int32')), [table]),
  );
});
