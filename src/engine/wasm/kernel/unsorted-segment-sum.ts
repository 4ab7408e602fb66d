import * as tf from '../../tfjs.js';
import type {WasmKernel} from './register.js';

/** Rows of x [N, ...] summed by segment id [N]; the gradient of gather. */
export const unsortedSegmentSum: WasmKernel = ({x, segmentIds}, attrs) => {
  if (!x || !segmentIds) throw new Error('UnsortedSegmentSum needs x and segmentIds');
  const {numSegments} = attrs as {numSegments: number};
  const segments = segmentIds.dataSync();
  const values = x.dataSync();
  const width = segments.length === 0 ? 0 : values.length / segments.length;
  const sums = new Float32Array(numSegments * width);
  for (let row = 0; row < segments.length; row++) {
    const from = row * width;
    const to = (segments[row] ?? 0) * width;
    for (let i = 0; i < width; i++) sums[to + i] = (sums[to + i] ?? 0) + (values[from + i] ?? 0);
  }
  return tf.tensor(sums, [numSegments, ...x.shape.slice(segmentIds.rank)]);
};
