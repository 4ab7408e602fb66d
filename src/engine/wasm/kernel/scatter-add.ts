import * as tf from '../../tfjs.js';
import type {WasmKernel} from './register.js';

/** Row by row on the host. */
export const scatterAdd: WasmKernel = ({base, index, rows}) => {
  if (!base || !index || !rows) throw new Error('scatter-add needs base, index and rows');
  const sums = base.dataSync().slice();
  const added = rows.dataSync();
  const width = base.size / (base.shape[0] ?? 1);
  for (const [row, to] of index.dataSync().entries()) {
    for (let i = 0; i < width; i++) sums[to * width + i] = (sums[to * width + i] ?? 0) + (added[row * width + i] ?? 0);
  }
  return tf.tensor(sums, base.shape);
};
