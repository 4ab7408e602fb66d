import {TF} from '../../native/dtype.js';
import type * as tf from '../../tfjs.js';
import {typeAttr} from '../attributes.js';
import type {TensorFlowBackend} from '../backend.js';
import {withRaw} from './raw.js';
import {input, type KernelCall} from './register.js';

/** `TensorScatterAdd`, which XLA does in the buffer of `base` where that is not needed any more. */
export function scatterAdd({binding, toIds, toTensor}: TensorFlowBackend, call: KernelCall): tf.TensorInfo {
  const [base, index, rows] = [input(call, 'base'), input(call, 'index'), input(call, 'rows')];
  const [baseId = 0, indexId = 0, rowsId = 0] = toIds([base, index, rows]);
  const [result] = withRaw(binding, (raw) => {
    const shape = [typeAttr('T', TF.INT32), typeAttr('Tshape', TF.INT32)];
    const column = raw.run('Reshape', shape, [indexId, raw.int([index.shape[0] ?? 0, 1])]).id;
    const types = [typeAttr('T', TF.FLOAT), typeAttr('Tindices', TF.INT32)];
    return [raw.run('TensorScatterAdd', types, [baseId, column, rowsId])];
  });
  if (!result) throw new Error('TensorScatterAdd has no output');
  return toTensor(result);
}
