import type * as tf from '@tensorflow/tfjs';
import {TF} from '../../native/dtype.js';
import {boolAttr, typeAttr} from '../attributes.js';
import type {TensorFlowBackend} from '../backend.js';
import {intOneHot, intOp, intSelect, intSum, type Raw, withRaw} from './raw.js';
import {input, type KernelCall} from './register.js';

/** Slots by counting: a pair's place in its expert is the number of earlier pairs with the same expert. */
export function expertSlots({binding, toIds, toTensor}: TensorFlowBackend, call: KernelCall): tf.TensorInfo[] {
  const expert_TK = input(call, 'expert_TK');
  const {numExperts, capacity} = call.attrs as {numExperts: number; capacity: number};
  const numPairs = expert_TK.shape.reduce((a, b) => a * b, 1);
  const results = withRaw(binding, (raw) => {
    const shape = [typeAttr('T', TF.INT32), typeAttr('Tshape', TF.INT32)];
    const expert = raw.run('Reshape', shape, [...toIds([expert_TK]), raw.int([numPairs])]).id;
    const oneHot = intOneHot(raw, expert, numExperts);
    const place = placeInExpert(raw, oneHot);
    const rows = numExperts * capacity;
    const own = intOp(raw, 'AddV2', intOp(raw, 'Mul', expert, raw.int(capacity)), place);
    const slot = intSelect(raw, intOp(raw, 'Less', place, raw.int(capacity)), own, raw.int(rows));
    return [slot, sourceOfSlots(raw, slot.id, rows, numPairs), intSum(raw, oneHot, 0)];
  });
  return results.map(toTensor);
}

function placeInExpert(raw: Raw, oneHot: number): number {
  const attributes = [
    typeAttr('T', TF.INT32),
    typeAttr('Tidx', TF.INT32),
    boolAttr('exclusive', true),
    boolAttr('reverse', false),
  ];
  const before = raw.run('Cumsum', attributes, [oneHot, raw.int(0)]).id;
  return intSum(raw, intOp(raw, 'Mul', before, oneHot), 1).id;
}

/** The inverse of `slot`: one row more than needed collects the pairs that found no place, and is cut off. */
function sourceOfSlots(raw: Raw, slot: number, rows: number, numPairs: number) {
  const index = [typeAttr('T', TF.INT32), typeAttr('index_type', TF.INT32)];
  const empty = raw.run('Fill', index, [raw.int([rows + 1]), raw.int(numPairs)]).id;
  const column = raw.run(
    'Reshape',
    [typeAttr('T', TF.INT32), typeAttr('Tshape', TF.INT32)],
    [slot, raw.int([numPairs, 1])],
  ).id;
  const pairs = raw.run('Range', [typeAttr('Tidx', TF.INT32)], [raw.int(0), raw.int(numPairs), raw.int(1)]).id;
  const update = [typeAttr('T', TF.INT32), typeAttr('Tindices', TF.INT32)];
  const filled = raw.run('TensorScatterUpdate', update, [empty, column, pairs]).id;
  const cut = [typeAttr('T', TF.INT32), typeAttr('Index', TF.INT32)];
  return raw.run('Slice', cut, [filled, raw.int([0]), raw.int([rows])]);
}
