import {describe, expect} from 'vitest';
import {MATRIX, matMul} from '../../src/op/mat-mul.js';
import {multiplied, swigluMultiplied} from '../../src/op/product.js';
import {swiglu} from '../../src/op/swiglu.js';
import {onEveryEngine} from '../support/engines.js';
import {checkGradients, gradientsOf} from '../support/gradients.js';
import {normals} from '../support/host.js';
import type * as tf from '../support/tfjs.js';

const [T, F, D] = [5, 4, 3];
const inputs = [normals([T, F], 1), normals([T, F], 2), normals([F, D], 3)] as const;
const dy = normals([T, D], 4);

const fused = (gate: tf.Tensor2D, up: tf.Tensor2D, w: tf.Tensor2D): tf.Tensor => swigluMultiplied(gate, up, w, MATRIX);
const inParts = (gate: tf.Tensor2D, up: tf.Tensor2D, w: tf.Tensor2D): tf.Tensor => matMul(swiglu(gate, up), w);

describe('swiglu and its product in one', () => {
  onEveryEngine('have the value and the gradients of one after the other', async (engine) => {
    const [together] = await engine.run(fused, ...inputs);
    const [apart] = await engine.run(inParts, ...inputs);
    expect(together!.values).toBeAllClose(apart!.values);
    const gradients = await gradientsOf(engine, fused, [...inputs], dy);
    const expected = await gradientsOf(engine, inParts, [...inputs], dy);
    for (const [i, {values}] of gradients.entries()) expect(values).toBeAllClose(expected[i]!.values);
  });

  onEveryEngine('have the gradient of finite differences', (engine) => checkGradients(engine, fused, [...inputs]));
});

describe('a product', () => {
  onEveryEngine('with one matrix has the gradient of finite differences', (engine) =>
    checkGradients(engine, (x: tf.Tensor2D, w: tf.Tensor2D) => multiplied(x, w, MATRIX), [inputs[0], inputs[2]]),
  );
});
