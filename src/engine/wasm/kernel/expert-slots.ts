import * as tf from '../../tfjs.js';
import type {WasmKernel} from './register.js';

/** Slots by two passes over the pairs in order: one counts, one places. */
export const expertSlots: WasmKernel = ({expert_TK}, attrs) => {
  if (!expert_TK) throw new Error('expert_TK is missing');
  const {numExperts, rows, blockRows, blocks} = attrs as Record<'numExperts' | 'rows' | 'blockRows' | 'blocks', number>;
  const experts = expert_TK.dataSync();
  const load = new Int32Array(numExperts);
  for (const expert of experts) load[expert] = (load[expert] ?? 0) + 1;
  const {firstBlock, expertOfBlock} = spareBlocks(load, {rows, blockRows, blocks});
  const total = numExperts * rows + blocks * blockRows;
  const slot = new Int32Array(experts.length);
  const source = new Int32Array(total).fill(experts.length);
  const placed = new Int32Array(numExperts);
  for (let pair = 0; pair < experts.length; pair++) {
    const expert = experts[pair] ?? 0;
    const place = placed[expert] ?? 0;
    placed[expert] = place + 1;
    const spare = numExperts * rows + (firstBlock[expert] ?? 0) * blockRows + place - rows;
    const row = expert < numExperts ? Math.min(place < rows ? expert * rows + place : spare, total) : total;
    slot[pair] = row;
    if (row < total) source[row] = pair;
  }
  return [slot, source, load, expertOfBlock].map((values) => tf.tensor1d(values, 'int32'));
};

/** Spare blocks are handed out expert by expert; those nobody wants belong to the last. */
function spareBlocks(load: Int32Array, {rows, blockRows, blocks}: Record<'rows' | 'blockRows' | 'blocks', number>) {
  const firstBlock = new Int32Array(load.length);
  const expertOfBlock = new Int32Array(blocks).fill(load.length - 1);
  let next = 0;
  for (const [expert, wanted] of load.entries()) {
    firstBlock[expert] = next;
    const count = Math.ceil(Math.max(0, wanted - rows) / blockRows);
    expertOfBlock.fill(expert, next, next + count);
    next += count;
  }
  return {firstBlock, expertOfBlock};
}
