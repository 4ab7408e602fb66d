import {numElements} from '../../../util/shape.js';
import {TF} from '../../native/dtype.js';
import type * as tf from '../../tfjs.js';
import {boolAttr, typeAttr} from '../attributes.js';
import type {TensorFlowBackend} from '../backend.js';
import type {Metadata} from '../binding.js';
import {intOneHot, intOp, intSelect, intSum, type Raw, withRaw} from './raw.js';
import {input, type KernelCall} from './register.js';

/** Slots by counting: a pair's place in its expert is the number of earlier pairs with the same expert. */
export function expertSlots({binding, toIds, toTensor}: TensorFlowBackend, call: KernelCall): tf.TensorInfo[] {
  const expert_TK = input(call, 'expert_TK');
  const {numExperts, ...room} = call.attrs as Room & {readonly numExperts: number} & tf.NamedAttrMap;
  const numPairs = numElements(expert_TK.shape);
  const results = withRaw(binding, (raw) => {
    const shape = [typeAttr('T', TF.INT32), typeAttr('Tshape', TF.INT32)];
    const expert = raw.run('Reshape', shape, [...toIds([expert_TK]), raw.int([numPairs])]).id;
    const oneHot = intOneHot(raw, expert, numExperts);
    const place = intSum(raw, intOp(raw, 'Mul', cumsum(raw, oneHot, true), oneHot), 1).id;
    const load = intSum(raw, oneHot, 0);
    const wanted = wantedBlocks(raw, load.id, room);
    const [firstBlock, lastBlock] = [cumsum(raw, wanted, true), cumsum(raw, wanted, false)];
    const first = intSum(raw, intOp(raw, 'Mul', oneHot, firstBlock), 1).id;
    const slot = rowOf(raw, {expert, place, first}, numExperts, room);
    const total = numExperts * room.rows + room.blocks * room.blockRows;
    return [slot, sourceOfSlots(raw, slot.id, total, numPairs), load, blockExperts(raw, lastBlock, numExperts, room)];
  });
  return results.map(toTensor);
}

/** As ExpertRoom of op/experts. */
interface Room {
  readonly rows: number;
  readonly blockRows: number;
  readonly blocks: number;
}

/** Sums of the numbers before each one, or up to it, along the first axis. */
function cumsum(raw: Raw, x: number, exclusive: boolean): number {
  const types = [typeAttr('T', TF.INT32), typeAttr('Tidx', TF.INT32)];
  return raw.run('Cumsum', [...types, boolAttr('exclusive', exclusive), boolAttr('reverse', false)], [x, raw.int(0)])
    .id;
}

/** Spare blocks that each expert wants: the rows beyond its own, in whole blocks. */
function wantedBlocks(raw: Raw, load: number, {rows, blockRows}: Room): number {
  const more = intOp(raw, 'Maximum', intOp(raw, 'Sub', load, raw.int(rows)), raw.int(0));
  return intOp(raw, 'FloorDiv', intOp(raw, 'AddV2', more, raw.int(blockRows - 1)), raw.int(blockRows));
}

/** A pair's row among its expert's own, or in the blocks that begin at `first`; one past the end where there is none. */
function rowOf(
  raw: Raw,
  {expert, place, first}: Record<'expert' | 'place' | 'first', number>,
  numExperts: number,
  {rows, blockRows, blocks}: Room,
): Metadata {
  const own = intOp(raw, 'AddV2', intOp(raw, 'Mul', expert, raw.int(rows)), place);
  const inBlocks = intOp(raw, 'AddV2', intOp(raw, 'Mul', first, raw.int(blockRows)), place);
  const spare = intOp(raw, 'AddV2', inBlocks, raw.int(numExperts * rows - rows));
  const total = raw.int(numExperts * rows + blocks * blockRows);
  const row = intSelect(raw, intOp(raw, 'Less', place, raw.int(rows)), own, spare).id;
  const inside = intOp(raw, 'Minimum', row, total);
  return intSelect(raw, intOp(raw, 'Less', expert, raw.int(numExperts)), inside, total);
}

/** The expert of each block: as many as have all their blocks before it; those nobody wants belong to the last. */
function blockExperts(raw: Raw, lastBlock_E: number, numExperts: number, {blocks}: Room): Metadata {
  const block = raw.int(
    Array.from({length: blocks}, (_, i) => i),
    [blocks, 1],
  );
  const isLater = raw.run('GreaterEqual', [typeAttr('T', TF.INT32)], [block, lastBlock_E]).id;
  const count = raw.run('Cast', [typeAttr('SrcT', TF.BOOL), typeAttr('DstT', TF.INT32)], [isLater]).id;
  return raw.run('Minimum', [typeAttr('T', TF.INT32)], [intSum(raw, count, 1).id, raw.int(numExperts - 1)]);
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
