import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {busyWarning} from '../../scripts/bench/machine.js';
import {kilobytes, ticks} from '../../scripts/bench/process-use.js';
import {ANSWERS} from '../../scripts/bench/protocol.js';
import {type CaseResult, fullestExpert, outsideShare, type SideResult} from '../../scripts/bench/result.js';
import {median, pairRatios} from '../../scripts/bench/statistics.js';
import {remarks, resultTable} from '../../scripts/bench/table.js';

const step = (ms: number, insideMs: number | null) => ({ms, insideMs, loss: 1, overflow: 0});

describe('median', () => {
  it('has at most half of the values above it and at most half below', () => {
    fc.assert(
      fc.property(fc.array(fc.integer(), {minLength: 1}), (values) => {
        const middle = median(values);
        const half = values.length / 2;
        expect(values.filter((value) => value > middle).length).toBeLessThanOrEqual(half);
        expect(values.filter((value) => value < middle).length).toBeLessThanOrEqual(half);
      }),
      {examples: [[[3, 1, 2]], [[4, 1]]]},
    );
  });

  it('of nothing is an error', () => {
    expect(() => median([])).toThrow('no values');
  });
});

describe('pairRatios', () => {
  it('compares values of the same round only', () => {
    expect(pairRatios([1, 20, 300], [2, 10, 300])).toEqual({median: 1, min: 0.5, max: 2});
  });

  it('refuses rounds without a pair', () => {
    expect(() => pairRatios([1, 2], [1])).toThrow('2 values have no pairs in 1');
  });
});

describe('outsideShare', () => {
  it('weighs steps by their time', () => {
    expect(outsideShare([step(100, 90), step(300, 300)])).toBeCloseTo(10 / 400);
  });

  it('is unknown where nothing is compiled', () => {
    expect(outsideShare([step(100, null)])).toBeNull();
  });
});

describe('fullestExpert', () => {
  it('is 1 when every expert of every layer has the same rows, and the number of experts when one has all', () => {
    expect(fullestExpert([[0.25, 0.25, 0.25, 0.25]])).toBe(1);
    expect(
      fullestExpert([
        [0.25, 0.25, 0.25, 0.25],
        [0, 1, 0, 0],
      ]),
    ).toBe(4);
  });

  it('does not exist in a dense model', () => {
    expect(fullestExpert([])).toBeNull();
  });
});

describe('the numbers of /proc', () => {
  it('VmHWM is in kB', () => {
    expect(kilobytes('Name:\tnode\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n', 'VmHWM')).toBe(2 * 2 ** 20);
  });

  it('processor time is user and system time, whatever the name of the process holds', () => {
    const stat = '42 (a) b (c)) S 1 42 42 0 -1 4194304 100 0 0 0 700 30 0 0 20 0 11 0 5 1 2';
    expect(ticks(stat)).toBe(730);
  });
});

describe('busyWarning', () => {
  const machine = {cpu: 'x', cores: 2, memoryGigabytes: 8, node: 'v20', commit: null, xlaFlags: null};

  it('doubts times taken beside other work, and only those', () => {
    expect(busyWarning({...machine, load: 0.1})).toBeNull();
    expect(busyWarning({...machine, load: 2})).toMatch(/^Load 2\.0 before the run: .*quiet machine\.$/);
  });
});

describe('an answer', () => {
  it('with an unknown key or a missing one is refused', () => {
    const good = {kind: 'steps', steps: [step(1, null)], loads: [[0.5, 0.5]], notes: []};
    expect(ANSWERS.steps.parse(good)).toEqual(good);
    expect(() => ANSWERS.steps.parse({...good, speed: 1})).toThrow('speed');
    expect(() => ANSWERS.steps.parse({kind: 'steps', steps: [{ms: 1}], loads: [], notes: []})).toThrow('loss');
  });
});

describe('resultTable', () => {
  const side = (name: string, more: Partial<SideResult>): SideResult => ({
    ...{
      name,
      version: '1',
      firstMs: 2500,
      msByRound: [100, 110, 120],
      outside: null,
      peakBytes: 1e9,
      residentBytes: 5e8,
    },
    ...{
      gflops: 50,
      matmulGflops: {eager: 90, xla: 100},
      fullest: 1.5,
      overflows: 0,
      lastLoss: 8.3,
      idleCores: 0,
      notes: [],
    },
    ...more,
  });
  const ours = side('downcycle', {outside: 0.0123});
  const result: CaseResult = {
    ...{name: 'a', title: 'small', kind: 'moe', finetune: 'full'},
    sides: [ours, side('torch eager', {msByRound: [200, 220, 240], peakBytes: 8e8})],
    ratios: {'torch eager': {median: 0.5, min: 0.4, max: 0.625}},
  };

  it('has a line a side, with ratios beside what ours is compared to', () => {
    const [, , , first, second] = resultTable([result]).split('\n');
    expect(first?.split(/ {2,}/)).toEqual([
      'a moe full',
      'downcycle',
      '110.0',
      '100.0 to 120.0',
      '1000',
      '2.5',
      '1.2%',
      '50',
      '50%',
      '1.50',
    ]);
    expect(second?.trim().split(/ {2,}/)).toEqual([
      'torch eager',
      '220.0',
      '200.0 to 240.0',
      '0.50 (0.40 to 0.63)',
      '800',
      '1.25',
      '2.5',
      '50',
      '50%',
      '1.50',
    ]);
  });

  it('stands without PyTorch too', () => {
    expect(resultTable([{...result, sides: [ours], ratios: {}}])).toContain('downcycle');
  });

  it('is followed by whatever makes a time doubtful', () => {
    const doubtful = {...result, sides: [side('downcycle', {overflows: 2, idleCores: 0.5})]};
    expect(remarks(doubtful)[0]).toMatch(/dropped rows: 2; used at most 0\.50 cores while idle\.$/);
  });
});
