import * as tf from '../../tfjs.js';
import type {WasmKernel} from './register.js';

/** A copy of the cache with the rows in it. */
export const writeRows: WasmKernel = ({cache, rows, start}) => {
  if (!cache || !rows || !start) throw new Error('write-rows needs cache, rows and start');
  const [N, C, d] = cache.shape as [number, number, number];
  const length = rows.size / N;
  const values = cache.dataSync().slice();
  const written = rows.dataSync();
  const offset = (start.dataSync()[0] ?? 0) * d;
  for (let n = 0; n < N; n++) values.set(written.subarray(n * length, (n + 1) * length), n * C * d + offset);
  return tf.tensor(values, cache.shape);
};
