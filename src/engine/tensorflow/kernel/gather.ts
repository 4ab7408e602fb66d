import {TF} from '../../native/dtype.js';
import type * as tf from '../../tfjs.js';
import {intAttr, typeAttr} from '../attributes.js';
import type {TensorFlowBackend} from '../backend.js';
import {input, type KernelCall} from './register.js';

/** `GatherV2` without tfjs-node's check of every index on the host: a traced index has no value yet. */
export function gather({binding, toIds, toTensor}: TensorFlowBackend, call: KernelCall): tf.TensorInfo {
  const x = input(call, 'x');
  const indices = input(call, 'indices');
  const {axis, batchDims} = call.attrs as {axis: number; batchDims: number};
  const axisId = binding.createTensor([], TF.INT32, Int32Array.of(axis));
  const attributes = [
    intAttr('batch_dims', batchDims),
    typeAttr('Tparams', x.dtype),
    typeAttr('Tindices', 'int32'),
    typeAttr('Taxis', 'int32'),
  ];
  const [result] = binding.executeOp('GatherV2', attributes, [...toIds([x, indices]), axisId], 1);
  binding.deleteTensor(axisId);
  if (!result) throw new Error('GatherV2 has no output');
  return toTensor(result);
}
