import type * as tf from '@tensorflow/tfjs';
import {ATTR, dtypeCode} from '../../native/dtype.js';
import type {TensorFlowBackend} from '../backend.js';
import type {KernelCall} from './register.js';

/** XLA's optimisation barrier inside a trace; plain aliases when operations run at once. */
export function barrier({binding, toIds, toTensor}: TensorFlowBackend, {inputs}: KernelCall): tf.TensorInfo[] {
  const tensors = Object.values(inputs).filter((tensor) => tensor !== undefined);
  const ids = toIds(tensors);
  if (!binding.trace) {
    return ids.flatMap((id, i) => {
      const T = {name: 'T', type: ATTR.TYPE, value: dtypeCode(tensors[i]?.dtype ?? 'float32')};
      return binding.executeOp('Identity', [T], [id], 1).map(toTensor);
    });
  }
  const T = {name: 'T', type: ATTR.TYPE, value: tensors.map(({dtype}) => dtypeCode(dtype))};
  return binding.executeOp('XlaOptimizationBarrier', [T], ids, ids.length).map(toTensor);
}
