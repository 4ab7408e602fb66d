import {readFileSync} from 'node:fs';
import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {learningRate, type Schedule} from '../../src/train/schedule.js';

const torch = JSON.parse(readFileSync('test/fixtures/train/adamw.json', 'utf8')) as {rates: number[]};
const cosine = {kind: 'cosine', warmup: 10, final: 4e-5} as const;
const constant = {kind: 'constant', warmup: 10} as const;
const rates = (schedule: Schedule, peak: number, steps: number): number[] =>
  Array.from({length: steps}, (_, i) => learningRate(schedule, peak, i + 1, steps));

describe('the learning rate', () => {
  it('rises straight to its peak at the last step of the warm-up', () => {
    for (const schedule of [cosine, constant]) {
      const expected = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((t) => 4e-4 * (t / 10));
      expect(rates(schedule, 4e-4, 100).slice(0, 10)).toBeAllClose(expected, {rtol: 1e-15, atol: 0});
    }
  });

  it('of the constant schedule stays at its peak to the last step', () => {
    expect(rates(constant, 4e-4, 100).slice(9)).toEqual(new Array(91).fill(4e-4));
    expect(rates({kind: 'constant', warmup: 0}, 4e-4, 3)).toEqual([4e-4, 4e-4, 4e-4]);
  });

  it('of the cosine schedule is half-way down half-way, and `final` at the last step', () => {
    const all = rates(cosine, 4e-4, 110);
    expect(all[59]).toBeCloseTo((4e-4 + 4e-5) / 2, 15);
    expect(all[109]).toBeCloseTo(4e-5, 15);
  });

  it('of the cosine schedule is one step below its peak at the first step where there is no warm-up', () => {
    const expected = 0.5 * 4e-4 * (1 + Math.cos(Math.PI / 4));
    expect(learningRate({kind: 'cosine', warmup: 0, final: 0}, 4e-4, 1, 4)).toBeCloseTo(expected, 15);
  });

  it('equals that of torch', () => {
    expect(rates({kind: 'cosine', warmup: 2, final: 0.005}, 0.05, 5)).toBeAllClose(torch.rates, {rtol: 1e-14, atol: 0});
  });

  it('never leaves the range between `final` and the peak after the warm-up, and never rises', () => {
    fc.assert(
      fc.property(fc.integer({min: 0, max: 20}), fc.integer({min: 1, max: 50}), (warmup, more) => {
        const after = rates({kind: 'cosine', warmup, final: 1e-5}, 1e-3, warmup + more).slice(warmup);
        for (const [i, rate] of after.entries()) {
          expect(rate).toBeGreaterThanOrEqual(1e-5);
          expect(rate).toBeLessThanOrEqual(after[i - 1] ?? 1e-3);
        }
      }),
    );
  });
});
