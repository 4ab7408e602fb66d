import {describe, expect} from 'vitest';
import {causalAttention} from '../../src/op/attention.js';
import {cachedAttention} from '../../src/op/cached-attention.js';
import {onEveryEngine} from '../support/engines.js';
import {ints, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

const [N, G, S, d] = [2, 3, 5, 4];
/** Positions behind the last one hold whatever was there. */
const C = 8;
const q = normals([N, G, S, d], 1);
const k = normals([N, C, d], 2);
const v = normals([N, C, d], 3);

describe('cachedAttention', () => {
  for (const options of [{}, {window: 2, scale: 0.3}]) {
    onEveryEngine(
      `gives the rows of causal attention from a position on: ${JSON.stringify(options)}`,
      async ({run}) => {
        const fn = (...[queries, keys, values, start]: [tf.Tensor4D, tf.Tensor3D, tf.Tensor3D, tf.Tensor1D]) => {
          const seen = (x: tf.Tensor3D): tf.Tensor3D => tf.slice(x, [0, 0, 0], [N, S, d]);
          const whole = causalAttention(queries, seen(keys), seen(values), {blockRows: S, ...options});
          const last = tf.slice(queries, [0, 0, 3, 0], [N, G, 2, d]);
          return [cachedAttention(last, keys, values, start, options), tf.slice(whole, [0, 0, 3, 0], [N, G, 2, d])];
        };
        const [cached, expected] = await run(fn, q, k, v, ints([1], [3]));
        expect(cached!.values).toBeAllClose(expected!.values);
      },
    );
  }
});
