import {describe, expect, it} from 'vitest';
import {type Architecture, flopsPerToken} from '../../src/model/architecture.js';
import {droplessRoom} from '../../src/model/capacity.js';
import {expertRows, trainingFlops} from '../../src/train/expert-rows.js';
import type {TrainInput} from '../../src/train/options.js';
import {DENSE, experts, tiny, tinyTrain} from './support.js';

const T = 1024;
const WIDE = {...experts(8, 2), expertWidth: 4096};
const NARROW = {...WIDE, expertWidth: 8};
const rowsOf = (layout: typeof WIDE, train: TrainInput = {}) => expertRows(layout, tinyTrain(train), T);

/** Rows of the room that holds any routing, for a token. */
function roomy(topK: number): number {
  const {rows, blocks, blockRows} = droplessRoom(T, {...WIDE, topK});
  return (8 * rows + blocks * blockRows) / T;
}

describe('rows of experts for a token', () => {
  it('are K where they are sent, and as many as there is room for where they are computed', () => {
    expect(rowsOf(WIDE)).toEqual({sent: 2, computed: roomy(2)});
    expect(roomy(2)).toBeGreaterThan(2);
    expect(rowsOf(WIDE, {capacity: {factor: 1.5}})).toEqual({sent: 2, computed: 3});
  });

  it('are of all experts where that costs less, and where all compute every token', () => {
    expect(rowsOf(NARROW)).toEqual({sent: 2, computed: 8});
    expect(rowsOf(WIDE, {routing: {kind: 'all-experts'}})).toEqual({sent: 8, computed: 8});
  });

  it('are a factor of K, and none of them empty, where experts choose', () => {
    const routing = {kind: 'expert-choice', capacityFactor: 1.25} as const;
    expect(rowsOf(WIDE, {routing, balance: {kind: 'none'}})).toEqual({sent: 2.5, computed: 2.5});
  });
});

describe('operations of training a token', () => {
  const of = (topK: number): Architecture =>
    tiny([
      {...WIDE, topK},
      {kind: 'dense', width: 64},
    ]);
  const flops = (architecture: Architecture, train: TrainInput, which: 'sent' | 'computed' = 'sent'): number =>
    trainingFlops(architecture, {train: tinyTrain(train), data: {sequenceLength: 32}}, which);

  it('are those of the model where its own router sends rows', () => {
    expect(flops(of(2), {})).toBe(flopsPerToken(of(2), 32));
    expect(flops(DENSE, {}, 'computed')).toBe(flopsPerToken(DENSE, 32));
  });

  it('are those of a model with as many experts a token as routing has', () => {
    expect(flops(of(2), {routing: {kind: 'all-experts'}})).toBe(flopsPerToken(of(8), 32));
    const routing = {kind: 'expert-choice', capacityFactor: 0.5} as const;
    expect(flops(of(4), {routing})).toBe(flopsPerToken(of(2), 32));
  });

  it('count empty rows, those of experts inside too', () => {
    const inner = {experts: 2, topK: 1, expertWidth: 4096, weight: 'one'} as const;
    const nested = tiny([{...WIDE, inner}]);
    const layouts = [WIDE, {...WIDE, experts: 16}];
    const empty = layouts.map((layout) => expertRows(layout, tinyTrain(), 256).computed - 2);
    const beyond = flops(nested, {}, 'computed') - flopsPerToken(nested, 32);
    expect(beyond / (6 * 3 * 32 * 4096)).toBeCloseTo(empty[0]! + empty[1]!, 9);
    expect(empty[1]).toBeGreaterThan(0);
  });
});
