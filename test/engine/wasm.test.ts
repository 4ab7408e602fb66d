import {expect, it} from 'vitest';
import {startWasm} from '../../src/engine/wasm/backend.js';
import * as tf from '../support/tfjs.js';

it('starting the WebAssembly engine leaves the process its own handlers of uncaught errors', async () => {
  const count = (): number[] => [
    process.listenerCount('uncaughtException'),
    process.listenerCount('unhandledRejection'),
  ];
  const before = count();
  await startWasm();
  expect(count()).toEqual(before);
});

it('a sum of millions of equal numbers loses none of them, along either axis', async () => {
  await startWasm();
  const x = tf.fill([2, 2 ** 22], 0.1);
  const each = Math.fround(0.1) * 2 ** 22;
  expect(tf.sum(x, 1).dataSync()).toBeAllClose([each, each], {rtol: 1e-7});
  expect(tf.sum(tf.transpose(x), 0).dataSync()).toBeAllClose([each, each], {rtol: 1e-7});
  expect(tf.mean(x).dataSync()).toBeAllClose([Math.fround(0.1)], {rtol: 1e-7});
});

it('reductions keep axes, sum integers and give zero over nothing', async () => {
  await startWasm();
  expect(tf.sum(tf.ones([2, 3, 4]), [0, 2], true).shape).toEqual([1, 3, 1]);
  expect(tf.sum(tf.tensor1d([1, 2, 3], 'int32')).dataSync()).toEqual(Int32Array.of(6));
  expect(tf.sum(tf.zeros([0])).dataSync()).toEqual(Float32Array.of(0));
});
