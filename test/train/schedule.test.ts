import {readFileSync} from 'node:fs';
import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {trainSchema} from '../../src/train/options.js';
import {learningRate, type Schedule} from '../../src/train/schedule.js';

interface Transformers {
  readonly steps: number;
  readonly warmup: number;
  readonly decay: number;
  readonly minRatio: number;
  readonly linear: number[];
  readonly wsd: Record<Shape, number[]>;
  readonly wsdFinal: Record<Shape, number[]>;
}
type Shape = Extract<Schedule, {kind: 'wsd'}>['shape'];
const SHAPES = ['linear', 'cosine', '1-sqrt'] as const;
const transformers = JSON.parse(readFileSync('test/fixtures/train/schedules.json', 'utf8')) as Transformers;

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

  it('of the linear schedule equals that of transformers, and ends at `final`', () => {
    const {steps, warmup, linear} = transformers;
    expect(rates({kind: 'linear', warmup, final: 0}, 1, steps)).toBeAllClose(linear, {rtol: 1e-15, atol: 1e-16});
    expect(rates({kind: 'linear', warmup: 2, final: 1}, 3, 6)).toEqual([1.5, 3, 2.5, 2, 1.5, 1]);
  });

  it.each(SHAPES)('of wsd that falls by %s equals that of transformers', (shape) => {
    const {steps, warmup, decay, minRatio: final, wsd, wsdFinal} = transformers;
    const close = {rtol: 1e-15, atol: 2e-16};
    expect(rates({kind: 'wsd', warmup, decay, shape, final: 0}, 1, steps)).toBeAllClose(wsd[shape], close);
    // Theirs begins the warm-up at `final`, ours at 0.
    const after = rates({kind: 'wsd', warmup, decay, shape, final}, 1, steps).slice(warmup);
    expect(after).toBeAllClose(wsdFinal[shape].slice(warmup), close);
  });

  it('of wsd takes a decay below 1 as a share of the steps, at least one', () => {
    const wsd = {kind: 'wsd', warmup: 2, shape: '1-sqrt', final: 0} as const;
    expect(rates({...wsd, decay: 0.3}, 1, 20)).toEqual(rates({...wsd, decay: 6}, 1, 20));
    expect(rates({...wsd, decay: 1e-9}, 1, 20)).toEqual(rates({...wsd, decay: 1}, 1, 20));
  });

  it.each([
    [{kind: 'wsd', decay: 1.5}, 'expected whole steps, or a share below 1'],
    [{kind: 'wsd', decay: 6, warmup: 5}, 'schedule.warmup and schedule.decay together must be at most steps'],
    [{kind: 'linear', final: 1}, 'schedule.final must be at most optimizer.lr'],
    [{kind: 'wsd', final: 1}, 'schedule.final must be at most optimizer.lr'],
  ] as const)('cannot be that of %j', (schedule, message) => {
    const parsed = trainSchema.safeParse({steps: 10, schedule});
    expect(parsed.error?.issues.map((issue) => issue.message).join()).toContain(message);
  });

  it.each([{kind: 'cosine'}, {kind: 'linear'}, {kind: 'wsd', decay: 0.5, shape: '1-sqrt'}] as const)(
    'of %j never leaves the range between `final` and the peak after the warm-up, and never rises',
    (schedule) => {
      fc.assert(
        fc.property(fc.integer({min: 0, max: 20}), fc.integer({min: 1, max: 50}), (warmup, more) => {
          const after = rates({...schedule, warmup, final: 1e-5}, 1e-3, warmup + more).slice(warmup);
          for (const [i, rate] of after.entries()) {
            expect(rate).toBeGreaterThanOrEqual(1e-5);
            expect(rate).toBeLessThanOrEqual(after[i - 1] ?? 1e-3);
          }
        }),
      );
    },
  );
});
