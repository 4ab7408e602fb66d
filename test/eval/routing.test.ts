import * as fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {countTokens, emptyCounts, type LayerRouting, layerRouting} from '../../src/eval/routing.js';
import {experts} from '../train/support.js';

const NUM_TEXTS = 3;

/** Experts of some tokens, the text of each, and how many there are. */
interface Routes {
  readonly E: number;
  readonly K: number;
  readonly chosen: readonly (readonly number[])[];
  readonly text: readonly number[];
}

/** Tokens of which every text has one at least, in layers of 2 to 6 experts. */
const routes: fc.Arbitrary<Routes> = fc
  .integer({min: 2, max: 6})
  .chain((E) => fc.tuple(fc.constant(E), fc.integer({min: 1, max: E})))
  .chain(([E, K]) =>
    fc
      .array(fc.tuple(fc.shuffledSubarray([...Array(E).keys()], {minLength: K, maxLength: K}), fc.nat(NUM_TEXTS - 1)), {
        minLength: NUM_TEXTS,
        maxLength: 40,
      })
      .map((tokens) => ({
        ...{E, K, chosen: tokens.map(([some]) => some)},
        text: tokens.map(([, text], t) => (t < NUM_TEXTS ? t : text)),
      })),
  );

function statistics({E, K, chosen, text}: Routes, numTexts = NUM_TEXTS): LayerRouting {
  const counts = emptyCounts(5, experts(E, K), numTexts);
  countTokens(counts, Int32Array.from(chosen.flat()), Int32Array.from(text));
  return layerRouting(counts, text.filter((one) => one >= 0).length);
}

const sum = (row: readonly number[]): number => row.reduce((total, value) => total + value, 0);

describe('layerRouting', () => {
  it('conserves: loads sum to K, what goes together is symmetric, its rows sum to K times the use, shares sum to 1', () => {
    fc.assert(
      fc.property(routes, (given) => {
        const {load, together, share, entropy, peak} = statistics(given);
        const {K, text} = given;
        expect(sum(load)).toBeCloseTo(K, 12);
        expect(together).toEqual(together.map((row, i) => row.map((_, j) => together[j]![i])));
        expect(together.map(sum)).toEqual(together.map((row, i) => K * row[i]!));
        expect(together.map((row, i) => row[i])).toEqual(load.map((share) => Math.round(share * text.length)));
        for (const row of share) expect(sum(row)).toBeCloseTo(1, 12);
        expect(entropy).toBeLessThanOrEqual(1 + 1e-12);
        expect(peak).toBeGreaterThanOrEqual(1 - 1e-12);
      }),
    );
  });

  it('is permuted with the experts, and the measures of a layer stay', () => {
    fc.assert(
      fc.property(routes, ({E, ...rest}) => {
        const turned = (e: number): number => (e + 1) % E;
        const before = statistics({E, ...rest});
        const after = statistics({E, ...rest, chosen: rest.chosen.map((row) => row.map(turned))});
        const back = <T>(row_E: readonly T[]): T[] => row_E.map((_, e) => row_E[turned(e)]!);
        expect(back(after.load)).toEqual(before.load);
        expect(after.share.map(back)).toEqual(before.share);
        expect(back(after.lift.map(back))).toEqual(before.lift);
        expect(after.entropy).toBeCloseTo(before.entropy, 12);
        expect(after.peak).toBeCloseTo(before.peak, 12);
        expect(after.specialisation).toBeCloseTo(before.specialisation!, 12);
        expect(after.unused.length).toBe(before.unused.length);
      }),
    );
  });

  it('is known for routes made by hand', () => {
    const chosen = Array.from({length: 20}, (_, t) => (t < 10 ? [0, 1] : [2, 0]));
    const found = statistics({E: 4, K: 2, chosen, text: chosen.map((_, t) => (t < 10 ? 0 : 1))}, 2);
    expect(found).toMatchObject({layer: 5, experts: 4, topK: 2, load: [1, 0.5, 0.5, 0], peak: 2, unused: [3]});
    expect(found.entropy).toBeCloseTo(0.75, 12); // 1/2, 1/4, 1/4: 1.5 of 2 bits
    expect(found.together).toEqual([
      [20, 10, 10, 0],
      [10, 10, 0, 0],
      [10, 0, 10, 0],
      [0, 0, 0, 0],
    ]);
    expect(found.lift).toEqual([
      [1, 1, 1, null],
      [1, 2, 0, null],
      [1, 0, 2, null],
      [null, null, null, null],
    ]);
    expect(found.pairs).toEqual([]);
    expect(found.share).toEqual([
      [0.5, 0.5, 0, 0],
      [0.5, 0, 0.5, 0],
    ]);
    expect(found.specialisation).toBeCloseTo(0.5, 12); // half of what they use is shared
  });

  it('names pairs that go together more than by chance, if chance would have them at all often', () => {
    const often = Array(30).fill([0, 1]) as number[][];
    const rest = Array(30).fill([2, 3]) as number[][];
    const seldom = [[4, 5]];
    const {pairs} = statistics(
      {E: 6, K: 2, chosen: [...often, ...rest, ...seldom], text: Array(61).fill(0) as number[]},
      1,
    );
    expect(pairs.map(({experts: two, tokens}) => [two, tokens])).toEqual([
      [[0, 1], 30],
      [[2, 3], 30],
    ]);
    expect(pairs[0]!.lift).toBeCloseTo(61 / 30, 12);
  });

  it('has texts 1 apart that share no expert, 0 apart that use them alike, and none apart where there is one', () => {
    const apart = (chosen: number[][], text: number[], numTexts = 2) =>
      statistics({E: 2, K: 1, chosen, text}, numTexts).specialisation;
    expect(apart([[0], [1]], [0, 1])).toBeCloseTo(1, 12);
    expect(apart([[0], [1], [0], [1]], [0, 0, 1, 1])).toBeCloseTo(0, 12);
    expect(apart([[0], [1]], [0, 0], 1)).toBeNull();
  });

  it('leaves out tokens of no text, and experts that a top p leaves out', () => {
    const chosen = [
      [0, 1],
      [1, 2],
      [0, 2],
    ];
    const found = statistics({E: 2, K: 2, chosen, text: [-1, 0, 0]}, 1); // 2 is none of two experts
    expect(found.load).toEqual([0.5, 0.5]);
    expect(found.together).toEqual([
      [1, 0],
      [0, 1],
    ]);
  });
});
