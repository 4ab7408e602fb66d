import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {expertRoom, missingRows} from '../../src/model/capacity.js';
import type {ExpertRoom} from '../../src/op/experts.js';

/** Experts so wide that sending rows to them always pays. */
const layoutOf = (experts: number, topK: number) => ({experts, topK, expertWidth: 100_000});

function roomOf(experts: number, topK: number, T: number): ExpertRoom {
  const room = expertRoom('dropless', T, layoutOf(experts, topK));
  if (room === 'all') throw new Error('the room is not by rows');
  return room;
}

/** Loads of a routing: T tokens choose K different experts each. */
const routing = fc
  .record({experts: fc.integer({min: 8, max: 40}), tokens: fc.integer({min: 64, max: 300})})
  .chain(({experts, tokens}) =>
    fc.record({
      tokens: fc.constant(tokens),
      topK: fc.integer({min: 1, max: Math.floor(experts / 4)}),
      taste: fc.array(fc.double({min: 0, max: 1, noNaN: true}), {minLength: experts, maxLength: experts}),
      sharpness: fc.constantFrom(0, 0.5, 2, 10),
    }),
  );

describe('a dropless room', () => {
  it('has a row for every pair of any routing, even or collapsed', () => {
    fc.assert(
      fc.property(routing, ({tokens, topK, taste, sharpness}) => {
        const load = new Array<number>(taste.length).fill(0);
        for (let t = 0; t < tokens; t++) {
          const wish = taste.map((liking, e) => ({e, score: sharpness * liking + Math.sin(1000 * (t + 1) * (e + 1))}));
          for (const {e} of wish.sort((a, b) => b.score - a.score).slice(0, topK)) load[e]!++;
        }
        expect(missingRows(load, roomOf(taste.length, topK, tokens))).toBe(0);
      }),
    );
  });

  it('holds the routing that wants most blocks, with not one to spare', () => {
    // 8 experts, one of 512 tokens each: 64 an even share, blocks of half of it. One expert takes all.
    const room = roomOf(8, 1, 512);
    expect(room).toEqual({rows: 32, blockRows: 32, blocks: 15});
    expect(missingRows([512, 0, 0, 0, 0, 0, 0, 0], room)).toBe(0);
    expect(missingRows([33, 33, 33, 33, 33, 33, 33, 281], room)).toBe(0);
    expect(missingRows([512, 0, 0, 0, 0, 0, 0, 0], {...room, blocks: 14})).toBe(32);
  });

  it('takes less than one and a half times the rows there are, but for rounding to eights', () => {
    for (const [experts, topK, T] of [
      [8, 2, 512],
      [30, 6, 2048],
      [64, 8, 4096],
    ] as const) {
      const {rows, blockRows, blocks} = roomOf(experts, topK, T);
      expect(blockRows % 8).toBe(0);
      expect(experts * rows + blocks * blockRows).toBeLessThan(1.5 * (T * topK + 16 * experts));
    }
  });

  it('is left to computing every token where that costs less', () => {
    expect(expertRoom('dropless', 2048, {experts: 4, topK: 2, expertWidth: 64})).toBe('all');
    expect(missingRows([2048, 0, 0, 0], 'all')).toBe(0);
  });
});

describe('a room of a capacity factor', () => {
  it('is an even share times the factor for each, in eights', () => {
    expect(expertRoom({factor: 1.25}, 1024, layoutOf(8, 2))).toEqual({rows: 320, blockRows: 8, blocks: 0});
    expect(expertRoom({factor: 1}, 100, layoutOf(8, 1))).toMatchObject({rows: 16});
  });

  it('drops what exceeds it, expert by expert', () => {
    const room = {rows: 16, blockRows: 8, blocks: 0};
    expect(missingRows([20, 16, 3, 25], room)).toBe(4 + 9);
  });
});
