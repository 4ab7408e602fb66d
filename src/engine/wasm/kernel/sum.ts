import {numElements} from '../../../util/shape.js';
import * as tf from '../../tfjs.js';
import type {WasmKernel} from './register.js';

/**
 * Sum over axes with float64 accumulation.
 *
 * tfjs's WebAssembly kernel adds float32 numbers one after the other: 7% are lost over 28 million squares, which is what a
 * gradient norm adds up.
 */
export const sum: WasmKernel = ({x}, attrs) => reduce(x, attrs, () => 1);

/** Mean over axes, as {@link sum}. */
export const mean: WasmKernel = ({x}, attrs) => reduce(x, attrs, (count) => 1 / count);

function reduce(x: tf.Tensor | undefined, attrs: tf.NamedAttrMap, factorOf: (count: number) => number): tf.Tensor {
  if (!x) throw new Error('a reduction needs x');
  const {axis, keepDims} = attrs as {axis: number | number[]; keepDims?: boolean};
  const axes = tf.util.parseAxisParam(axis, x.shape);
  const kept = x.shape.map((_, i) => i).filter((i) => !axes.includes(i));
  const shape = x.shape.flatMap((size, i) => (axes.includes(i) ? (keepDims ? [1] : []) : [size]));
  const count = axes.reduce((product, i) => product * (x.shape[i] ?? 1), 1);
  return tf.tidy(() => {
    const isInner = kept.every((axisKept, position) => axisKept === position);
    const values = (isInner ? x : tf.transpose(x, [...kept, ...axes])).dataSync();
    const sums = x.dtype === 'float32' ? new Float32Array(numElements(shape)) : new Int32Array(numElements(shape));
    addRuns(values, count, factorOf(count), sums);
    return tf.tensor(sums, shape, x.dtype === 'float32' ? 'float32' : 'int32');
  });
}

/** Adds up every run of `count` neighbours. */
function addRuns(values: ArrayLike<number>, count: number, factor: number, sums: Float32Array | Int32Array): void {
  for (let run = 0; run < sums.length; run++) {
    let total = 0;
    for (let i = run * count; i < (run + 1) * count; i++) total += values[i] ?? 0;
    sums[run] = total * factor;
  }
}
