import * as tf from '@tensorflow/tfjs';
import type {WasmKernel} from './register.js';

/** Slots by one pass over the pairs in order. */
export const expertSlots: WasmKernel = ({expert_TK}, attrs) => {
  if (!expert_TK) throw new Error('expert_TK is missing');
  const {numExperts, capacity} = attrs as {numExperts: number; capacity: number};
  const experts = expert_TK.dataSync();
  const rows = numExperts * capacity;
  const slot = new Int32Array(experts.length);
  const source = new Int32Array(rows).fill(experts.length);
  const load = new Int32Array(numExperts);
  for (let pair = 0; pair < experts.length; pair++) {
    const expert = experts[pair] ?? 0;
    const place = load[expert] ?? 0;
    load[expert] = place + 1;
    const row = place < capacity ? expert * capacity + place : rows;
    slot[pair] = row;
    if (row < rows) source[row] = pair;
  }
  return [tf.tensor1d(slot, 'int32'), tf.tensor1d(source, 'int32'), tf.tensor1d(load, 'int32')];
};
