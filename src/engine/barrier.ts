import type * as tf from '@tensorflow/tfjs';
import {runKernel} from './kernels.js';

/** The same tensors, behind a line across which the compiler neither moves nor merges work. */
export function barrier<T extends tf.Tensor>(tensors: readonly T[]): T[] {
  const named = Object.fromEntries(tensors.map((tensor, i) => [`x${i}`, tensor]));
  return runKernel('DowncycleBarrier', named, {}) as T[];
}
