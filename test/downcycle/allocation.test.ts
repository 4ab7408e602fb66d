import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {
  adaptiveAllocation,
  divisibleExpertCounts,
  PAPER_RULE,
  paddingOf,
  requireDivisible,
  roundHalfEven,
  sensitivityAllocation,
  sharedChunks,
  sharedRatio,
  specialisedShare,
  uniformAllocation,
} from '../../src/downcycle/allocation.js';
import {coefficientOfVariation, taskMeans} from '../../src/downcycle/statistics.js';
import {ConfigError} from '../../src/util/errors.js';
import {fixture, fixtureTensors, groupedProfile} from './golden.js';

const counts = {experts: 48, shared: 16, topK: 32};
/** F CVs of which a share r is specialised. */
const cvs = (numNeurons: number, r: number): Float64Array =>
  new Float64Array(numNeurons).map((_, i) => (i < r * numNeurons ? 0.9 : 0.3));

describe('roundHalfEven', () => {
  it('takes halves to the even neighbour, as Python does', () => {
    expect([0.5, 1.5, 2.5, 3.5, -0.5, -1.5, 2.4, 2.6].map(roundHalfEven)).toBeAllClose([0, 2, 2, 4, 0, -2, 2, 3]);
  });
});

describe('allocation', () => {
  const readings = Object.keys(fixture.allocations);
  it.each(readings)('r and alpha are those of PyTorch: %s', (reading) => {
    const [sign, , over, ddof] = reading.split('_');
    const tensor = fixtureTensors[sign === 'signed' ? 'gate_mean' : 'gate_abs_mean']!;
    const rows = over === 'tasks' ? taskMeans(groupedProfile(tensor, 256, 4)) : tensor;
    const r = specialisedShare(coefficientOfVariation(rows, 256, ddof === 'ddof1' ? 1 : 0), PAPER_RULE.cvThreshold);
    expect(r).toBe(fixture.allocations[reading]!.r);
    expect(sharedRatio(r, PAPER_RULE)).toBe(fixture.allocations[reading]!.alpha);
  });

  it('rounds to neurons first and to experts then', () => {
    // 8.6 neurons are 9, and 9 / 6 = 1.5 experts are 2. Rounded once, 8.6 / 6 is 1.
    expect(sharedChunks(8.6 / 128, 128, 6)).toBe(2);
    expect(Math.round(8.6 / 6)).toBe(1);
  });

  it('keeps the number of chunks and of active chunks the same in every layer', () => {
    fc.assert(
      fc.property(fc.double({min: 0, max: 1, noNaN: true}), (r) => {
        const cut = adaptiveAllocation(cvs(640, r), counts, PAPER_RULE, 'here');
        expect(cut.experts + cut.shared).toBe(64);
        expect(cut.topK + cut.shared).toBe(48);
        expect(cut.topK).toBeGreaterThanOrEqual(1);
        expect(cut.topK).toBeLessThanOrEqual(cut.experts);
      }),
    );
  });

  it('shares more in layers of universal neurons', () => {
    const shared = [0, 0.25, 0.5, 1].map((r) => adaptiveAllocation(cvs(640, r), counts, PAPER_RULE, '').shared);
    expect(shared).toEqual([45, 37, 29, 13]);
  });

  it('refuses a shared part that uses up the active chunks, and says how far topK is off', () => {
    const ask = (topK: number) => adaptiveAllocation(cvs(640, 0), {...counts, topK}, PAPER_RULE, 'arms.a, layer 3');
    expect(() => ask(16)).toThrow(ConfigError);
    expect(() => ask(16)).toThrow('arms.a, layer 3: adaptive allocation shares 45 of 64 chunks');
    expect(() => ask(29)).toThrow(expect.objectContaining({hint: expect.stringContaining('topK to 30') as string}));
    expect(ask(30).topK).toBe(1);
  });

  it('leaves uniform counts as they are and records r', () => {
    const cut = uniformAllocation(cvs(640, 0.25), {experts: 62, shared: 2, topK: 14});
    expect(cut).toEqual({experts: 62, shared: 2, topK: 14, specialisedShare: 0.25, sharedRatio: 1 / 32});
  });
});

describe('expert counts', () => {
  it('lists every divisor once, rising', () => {
    fc.assert(
      fc.property(fc.integer({min: 1, max: 3000}), (width) => {
        const all = Array.from({length: width}, (_, i) => i + 1).filter((count) => width % count === 0);
        expect(divisibleExpertCounts(width)).toEqual(all);
      }),
    );
  });

  it('accepts counts that cut the FFN into equal chunks', () => {
    expect(() => requireDivisible(1536, {experts: 30, shared: 2, pad: false}, 'x')).not.toThrow();
  });

  it('names the nearest possible counts below and above', () => {
    const ask = () => requireDivisible(770, {experts: 28, shared: 2, pad: false}, 'arms.downcycle');
    expect(ask).toThrow(ConfigError);
    expect(ask).toThrow(
      expect.objectContaining({
        message: 'arms.downcycle: experts + shared (= 30) must divide the FFN width 770; nearest that do: 22 and 35.',
        hint: 'Or set pad to true (--pad): neurons of zeros widen every FFN to 780, which changes nothing that it computes.',
      }),
    );
  });

  it('takes any counts up to the width if it may pad, and none above', () => {
    const ask = (experts: number) => () => requireDivisible(770, {experts, shared: 0, pad: true}, 'x');
    expect(ask(30)).not.toThrow();
    expect(ask(770)).not.toThrow();
    expect(ask(800)).toThrow('x: experts + shared (= 800) must be at most the FFN width 770.');
    expect(paddingOf(770, {experts: 28, shared: 2, pad: true})).toBe(10);
    expect(paddingOf(780, {experts: 28, shared: 2, pad: true})).toBe(0);
    expect(paddingOf(770, {experts: 28, shared: 2, pad: false})).toBe(0);
  });

  it('names the only nearest count when more experts than neurons are asked for', () => {
    expect(() => requireDivisible(770, {experts: 800, shared: 0, pad: false}, 'x')).toThrow('nearest that does: 770.');
  });
});

describe('sensitivityAllocation', () => {
  const counts = {experts: 6, shared: 2, topK: 2};
  /** 16 neurons that matter by `weight`, the first of them most. */
  const layer = (weight: number): Float32Array => Float32Array.from({length: 16}, (_, i) => weight / (i + 1));

  it('gives all layers together as many active chunks as the counts ask for, and more where it is felt more', () => {
    const cuts = sensitivityAllocation([layer(1), layer(8), layer(3)], counts, 'arms.a');
    const active = cuts.map(({shared, topK}) => shared + topK);
    expect(active.reduce((sum, count) => sum + count, 0)).toBe(3 * 4);
    expect(active[1]).toBeGreaterThan(active[2]!);
    expect(active[2]).toBeGreaterThan(active[0]!);
    for (const {experts, shared, topK} of cuts) {
      expect(experts + shared).toBe(8);
      expect(topK).toBeGreaterThanOrEqual(1);
      expect(topK).toBeLessThanOrEqual(experts);
    }
  });

  it('leaves every layer something, however little it is felt', () => {
    const cuts = sensitivityAllocation([layer(0), layer(1e9)], counts, 'arms.a');
    expect(cuts[0]!.shared + cuts[0]!.topK).toBe(1);
    expect(cuts[0]!.topK).toBeGreaterThanOrEqual(1);
  });

  it('never has more active chunks than were asked for, however few', () => {
    const one = {experts: 8, shared: 0, topK: 1};
    const cuts = sensitivityAllocation([layer(1), layer(100), layer(10)], one, 'arms.a');
    expect(cuts.map(({shared, topK}) => shared + topK)).toEqual([1, 1, 1]);
  });

  it('treats equal layers alike', () => {
    const cuts = sensitivityAllocation([layer(3), layer(3)], counts, 'arms.a');
    expect(cuts.map(({shared, topK}) => [shared, topK])).toEqual([
      [2, 2],
      [2, 2],
    ]);
  });

  it('does not depend on the order of neurons', () => {
    const reversed = [layer(1).reverse(), layer(100).reverse()];
    expect(sensitivityAllocation(reversed, counts, 'a')).toEqual(
      sensitivityAllocation([layer(1), layer(100)], counts, 'a'),
    );
  });

  it('needs gradients', () => {
    expect(() => sensitivityAllocation([null], counts, 'arms.a')).toThrow(
      'arms.a: allocation sensitivity needs a profile with gradients.',
    );
  });
});
