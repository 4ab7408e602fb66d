import {describe, expect} from 'vitest';
import {matMul} from '../../src/op/mat-mul.js';
import {recompute} from '../../src/op/recompute.js';
import {rmsNorm} from '../../src/op/rms-norm.js';
import {silu} from '../../src/op/swiglu.js';
import {onEveryEngine} from '../support/engines.js';
import {checkGradients, gradientsOf} from '../support/gradients.js';
import {type Host, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

type Args = [x: tf.Tensor2D, w: tf.Tensor2D, norm: tf.Tensor1D];

function layer(...[x, w, norm]: Args): tf.Tensor2D {
  return tf.add(x, silu(matMul(rmsNorm(x, norm, 1e-5), w)));
}

const again = (...args: Args): tf.Tensor2D =>
  recompute((...tensors) => layer(...(tensors as Args)), args) as tf.Tensor2D;

const plainChain = (...[x, w, norm]: Args): tf.Tensor => layer(layer(x, w, norm), w, norm);
const againChain = (...[x, w, norm]: Args): tf.Tensor => again(again(x, w, norm), w, norm);

const inputs: [Host, Host, Host] = [normals([4, 6], 1), normals([6, 6], 2), normals([6], 3)];
const exact = {rtol: 0, atol: 0};

describe('recompute', () => {
  onEveryEngine('changes no value', async ({run}) => {
    const [plain] = await run(plainChain, ...inputs);
    const [result] = await run(againChain, ...inputs);
    expect(result!.values).toBeAllClose(plain!.values, exact);
  });

  onEveryEngine('changes no gradient beyond the order of sums', async (engine) => {
    const w = normals([4, 6], 4);
    const plain = await gradientsOf(engine, plainChain, inputs, w);
    const result = await gradientsOf(engine, againChain, inputs, w);
    const tolerance = engine.name === 'tensorflow-compiled' ? {rtol: 1e-5, atol: 1e-6} : exact;
    for (const [i, {values}] of result.entries()) expect(values).toBeAllClose(plain[i]!.values, tolerance);
  });

  onEveryEngine('has the gradient of finite differences', (engine) =>
    checkGradients(engine, againChain, inputs, {step: 0.004}),
  );

  onEveryEngine('keeps constants made under the gradient for the second run', (engine) => {
    const scaled = (...tensors: tf.Tensor[]): tf.Tensor => tf.mul(tf.square(tensors[0]!), tensors[1]!);
    const fn = (x: tf.Tensor): tf.Tensor => recompute(scaled, [x], [tf.fill([3], 0.5)]);
    return checkGradients(engine, fn, [normals([3], 1)]);
  });

  onEveryEngine('works inside itself', async (engine) => {
    const nested = (...args: Args): tf.Tensor => recompute((...tensors) => againChain(...(tensors as Args)), args);
    const w = normals([4, 6], 4);
    const plain = await gradientsOf(engine, plainChain, inputs, w);
    const result = await gradientsOf(engine, nested, inputs, w);
    for (const [i, {values}] of result.entries()) expect(values).toBeAllClose(plain[i]!.values);
  });
});
