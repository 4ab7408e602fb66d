import {describe, expect} from 'vitest';
import {writeRows} from '../../src/op/write-rows.js';
import {onEngine} from '../support/engines.js';
import {ints, normals} from '../support/host.js';
import type * as tf from '../support/tfjs.js';

const [N, C, S, d] = [2, 6, 2, 3];
const cache = normals([N, C, d], 1);
const rows = normals([N, S, d], 2);

function write(...[into, from, start]: [tf.Tensor3D, tf.Tensor3D, tf.Tensor1D]): tf.Tensor {
  return writeRows(into, from, start);
}

describe('writeRows', () => {
  for (const engine of ['tensorflow-compiled', 'wasm'] as const) {
    onEngine(engine, 'replaces the rows from a position on and no others', async ({prepare}) => {
      const written = prepare(write);
      for (const start of [0, 3, C - S]) {
        const expected = cache.values.slice();
        for (let n = 0; n < N; n++) {
          expected.set(rows.values.subarray(n * S * d, (n + 1) * S * d), (n * C + start) * d);
        }
        const [result] = await written(cache, rows, ints([1], [start]));
        expect(result!.values).toEqual(expected);
      }
      written.dispose();
    });
  }

  onEngine('tensorflow-eager', 'is refused outside a compiled function', async ({run}) => {
    await expect(run(write, cache, rows, ints([1], [0]))).rejects.toThrow('inside compiled functions only');
  });
});
