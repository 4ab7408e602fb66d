import {runKernel} from '../engine/kernels.js';
import type * as tf from '../engine/tfjs.js';

/**
 * The cache with rows written into it from position `start` on; a compiled function does it in the cache's own buffer where
 * that is assigned again. No gradient.
 *
 * @param cache_NCd float32 [N, C, d]; `row_NSd` [N, S, d], of which all must find room.
 * @param start_1 int32 [1]
 */
export function writeRows(cache_NCd: tf.Tensor3D, row_NSd: tf.Tensor3D, start_1: tf.Tensor1D): tf.Tensor3D {
  return runKernel('DowncycleWriteRows', {cache: cache_NCd, rows: row_NSd, start: start_1}, {}) as tf.Tensor3D;
}
