import {TF} from '../../native/dtype.js';
import type * as tf from '../../tfjs.js';
import {intAttr, typeAttr} from '../attributes.js';
import type {TensorFlowBackend} from '../backend.js';
import {withRaw} from './raw.js';
import {input, type KernelCall} from './register.js';

/** `XlaDynamicUpdateSlice`, which compiled functions alone have. */
export function writeRows({binding, toIds, toTensor}: TensorFlowBackend, call: KernelCall): tf.TensorInfo {
  if (!binding.trace) throw new Error('Rows are written into a cache inside compiled functions only.');
  const [cache = 0, rows = 0, start = 0] = toIds([input(call, 'cache'), input(call, 'rows'), input(call, 'start')]);
  const [result] = withRaw(binding, (raw) => {
    const join = [intAttr('N', 3), typeAttr('T', TF.INT32), typeAttr('Tidx', TF.INT32)];
    const begin = raw.run('ConcatV2', join, [raw.int([0]), start, raw.int([0]), raw.int(0)]).id;
    const types = [typeAttr('T', TF.FLOAT), typeAttr('Tindices', TF.INT32)];
    return [raw.run('XlaDynamicUpdateSlice', types, [cache, rows, begin])];
  });
  if (!result) throw new Error('XlaDynamicUpdateSlice has no output');
  return toTensor(result);
}
