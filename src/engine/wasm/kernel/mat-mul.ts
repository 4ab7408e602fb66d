import * as tf from '../../tfjs.js';
import type {WasmKernel} from './register.js';

/**
 * `op(a)·op(b)` with explicit transposes, one matrix at a time.
 *
 * The fast path of the WebAssembly matmul takes a single pair of untransposed matrices; any other form runs a
 * plain loop 10 to 30 times slower.
 */
export const matMul: WasmKernel = ({a, b}, attrs) => {
  if (!a || !b) throw new Error('matmul needs a and b');
  const {transposeA, transposeB} = attrs as {transposeA: boolean; transposeB: boolean};
  return tf.tidy(() => {
    const left = transposeA ? swapLastAxes(a) : a;
    const right = transposeB ? swapLastAxes(b) : b;
    if (left.rank === 2) return tf.matMul(left, right);
    return batched(left, right);
  });
};

function batched(a: tf.Tensor, b: tf.Tensor): tf.Tensor {
  const batch = a.shape.slice(0, -2);
  const [m, k] = a.shape.slice(-2) as [number, number];
  const n = b.shape.at(-1) ?? 0;
  const lefts = tf.unstack(a.reshape([-1, m, k]));
  const rights = tf.unstack(b.reshape([-1, k, n]));
  const products = lefts.map((left, i) => tf.matMul(left as tf.Tensor2D, rights[i] as tf.Tensor2D));
  return tf.stack(products).reshape([...batch, m, n]);
}

function swapLastAxes(x: tf.Tensor): tf.Tensor {
  const axes = x.shape.map((_, i) => i);
  return tf.transpose(x, [...axes.slice(0, -2), x.rank - 1, x.rank - 2]);
}
