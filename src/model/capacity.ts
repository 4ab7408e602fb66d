import type {ExpertRoom} from '../op/experts.js';
import type {MoeLayout} from './architecture.js';

/** Room for the rows of experts: enough for any routing, or an even share times `factor` each, beyond which rows drop. */
export type Capacity = 'dropless' | {readonly factor: number};

/** Rows of a block are a multiple of this, for the sake of matmul kernels. */
const ROW_MULTIPLE = 8;

/** Gathering a row and adding it back costs about as much as this many more columns of its expert (docs/log.md). */
const GATHER_COLUMNS = 64;

/** What of a layer's experts decides how much room their rows need. */
export type ExpertSizes = Pick<MoeLayout, 'experts' | 'topK' | 'expertWidth'>;

/** Room for T tokens; `'all'` where computing every token in plain matmuls is cheaper than sending rows around. */
export function expertRoom(capacity: Capacity, T: number, layout: ExpertSizes): ExpertRoom | 'all' {
  if (capacity !== 'dropless') return droppingRoom(capacity.factor, T, layout);
  const {experts: E, expertWidth: F} = layout;
  const room = droplessRoom(T, layout);
  const numRows = E * room.rows + room.blocks * room.blockRows;
  return numRows * (F + GATHER_COLUMNS) < E * T * F ? room : 'all';
}

/**
 * Half an even share for every expert and blocks of as much for those that want more: shapes are fixed when a step is
 * compiled, and this holds any routing in less than one and a half times the rows there are, but for rounding.
 *
 * With H rows a block, all rows are at most 2·E·H. If m experts want more than their H, what they want beyond is at most
 * (2·E − m)·H rows, so fewer than 2·E − m + m blocks: 2·E − 1.
 */
export function droplessRoom(T: number, {experts: E, topK}: Pick<ExpertSizes, 'experts' | 'topK'>): ExpertRoom {
  const blockRows = multiple((T * topK) / E / 2);
  return {rows: blockRows, blockRows, blocks: 2 * E - 1};
}

function droppingRoom(factor: number, T: number, {experts, topK}: ExpertSizes): ExpertRoom {
  return {rows: multiple((factor * T * topK) / experts), blockRows: ROW_MULTIPLE, blocks: 0};
}

/** Rows that find no place in a room, given how many wanted each expert. */
export function missingRows(load_E: ArrayLike<number>, room: ExpertRoom | 'all'): number {
  if (room === 'all') return 0;
  let free = room.blocks;
  return Array.from(load_E).reduce((missing, load) => {
    const wanted = Math.max(0, load - room.rows);
    const placed = Math.min(wanted, free * room.blockRows);
    free -= Math.ceil(placed / room.blockRows);
    return missing + wanted - placed;
  }, 0);
}

function multiple(rows: number): number {
  return Math.ceil(rows / ROW_MULTIPLE) * ROW_MULTIPLE;
}
