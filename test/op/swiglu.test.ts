import {describe, expect} from 'vitest';
import {silu, swiglu} from '../../src/op/swiglu.js';
import {onEveryEngine} from '../support/engines.js';
import {checkGradients} from '../support/gradients.js';
import {floats, normals} from '../support/host.js';
import type * as tf from '../support/tfjs.js';

const fn = (gate: tf.Tensor, up: tf.Tensor): tf.Tensor => swiglu(gate, up);

describe('swiglu', () => {
  onEveryEngine('is gate / (1 + exp(-gate)) times up', async ({run}) => {
    const [gate, up] = [normals([2, 3, 4], 1), normals([2, 3, 4], 2)];
    const [result] = await run(fn, gate, up);
    const expected = Array.from(gate.values, (x, i) => (x / (1 + Math.exp(-x))) * up.values[i]!);
    expect(result!.shape).toEqual([2, 3, 4]);
    expect(result!.values).toBeAllClose(expected);
  });

  onEveryEngine('has the gradient of finite differences', (engine) =>
    checkGradients(engine, fn, [normals([4, 5], 1), normals([4, 5], 2)]),
  );
});

describe('silu', () => {
  onEveryEngine('stays finite far from zero', async ({run}) => {
    const [result] = await run((x: tf.Tensor) => silu(x), floats([4], [-100, -1, 0, 100]));
    expect(result!.values).toBeAllClose([0, -1 / (1 + Math.E), 0, 100]);
  });

  onEveryEngine('has the gradient of finite differences', (engine) =>
    checkGradients(engine, (x: tf.Tensor) => silu(x), [normals([7], 3)]),
  );
});
