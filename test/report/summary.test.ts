import {describe, expect, it} from 'vitest';
import type {RunLogRecord} from '../../src/format/run-record.js';
import {runRecords} from '../../src/report/read-run.js';
import {armCurve, groupArms, type ReportRun, reportRun} from '../../src/report/runs.js';
import {summarise, summaryText, targetSentence} from '../../src/report/summary.js';
import {type SyntheticRun, syntheticRecords} from './synthetic-run.js';

const toRun = (folder: string, records: readonly RunLogRecord[]): ReportRun =>
  reportRun(folder, runRecords(records, `${folder}/log.jsonl`), null);
const synthetic = (folder: string, run: SyntheticRun): ReportRun => toRun(folder, syntheticRecords(run));

/** A run with exactly these validation losses, one every 1000 tokens. */
function measured(arm: string, losses: readonly (number | null)[], seed = 7): ReportRun {
  const [head, first] = syntheticRecords({arm, seed, numSteps: 1}).filter(({kind}) => kind !== 'eval');
  const evals = losses.map(
    (loss, i) => ({kind: 'eval', step: i, tokens: 1000 * i, split: 'validation', loss, perplexity: null}) as const,
  );
  return toRun(`${arm}-${seed}`, [head!, first!, ...evals]);
}

describe('groupArms', () => {
  it('puts the seeds of one arm together, in order of appearance', () => {
    const arms = groupArms([
      synthetic('b-1', {arm: 'b', seed: 1}),
      synthetic('a-1', {arm: 'a', seed: 1}),
      synthetic('b-2', {arm: 'b', seed: 2}),
    ]);
    expect(arms.map(({label, runs}) => [label, runs.map(({name}) => name)])).toEqual([
      ['b', ['b-1', 'b-2']],
      ['a', ['a-1']],
    ]);
  });

  it('keeps runs of one arm and one seed apart, under the names of their folders', () => {
    const arms = groupArms([synthetic('x/lr-high', {arm: 'a'}), synthetic('x/lr-low', {arm: 'a'})]);
    expect(arms.map(({label}) => label)).toEqual(['a (lr-high)', 'a (lr-low)']);
  });

  it('tells arms of one name from different experiments apart', () => {
    const arms = groupArms([synthetic('p', {arm: 'a', name: 'tiny'}), synthetic('q', {arm: 'a', name: 'large'})]);
    expect(arms.map(({label}) => label)).toEqual(['a, tiny', 'a, large']);
  });

  it('never gives two arms one label', () => {
    const sizes = [1e6, 2e6].map((total, i) => synthetic(`r${i}`, {arm: 'a', total}));
    expect(new Set(groupArms(sizes).map(({label}) => label)).size).toBe(2);
  });
});

describe('reportRun', () => {
  it('averages the share of each expert over the last tenth of the steps', () => {
    const records = syntheticRecords({arm: 'a', numSteps: 20, experts: [2]}).map((record) =>
      record.kind === 'step'
        ? {...record, load: [record.step > 18 ? [record.step === 20 ? 3 : 1, 1] : [0, 1]]}
        : record,
    );
    const run = toRun('a', records);
    expect(run.numLoadSteps).toBe(2);
    expect(run.load[0]).toBeAllClose([(0.75 + 0.5) / 2, (0.25 + 0.5) / 2], {atol: 1e-12});
  });

  it('has no load for a dense model', () => {
    expect(synthetic('dense', {arm: 'dense'}).load).toEqual([]);
  });

  it('gives evaluations the operations that training had spent by then', () => {
    const run = synthetic('a', {arm: 'a', numSteps: 20, evalEvery: 10});
    expect(run.validation.points.map(({flops}) => flops)).toEqual([0, 10 * 2.6e10, 20 * 2.6e10]);
  });

  it('measures the validation split, not the others', () => {
    const others = [0, 1].map(
      (step) => ({kind: 'eval', step, tokens: step, split: 'train', loss: 99, perplexity: null}) as const,
    );
    const run = toRun('a', [...others, ...syntheticRecords({arm: 'a'})]);
    expect(Math.max(...run.validation.points.map(({loss}) => loss))).toBeLessThan(10);
  });

  it('takes the median speed, which a slow first step does not move', () => {
    const speeds = [1, 4000, 4100, 4200, null];
    const records = syntheticRecords({arm: 'a', numSteps: 5}).map((record) =>
      record.kind === 'step' ? {...record, tokensPerSecond: speeds[record.step - 1]!} : record,
    );
    expect(toRun('a', records).tokensPerSecond).toBe(4050);
  });

  it('goes on past a loss that is not a number, and says so if the last one is none', () => {
    const broken = (at: number): ReportRun =>
      toRun(
        'a',
        syntheticRecords({arm: 'a', numSteps: 10}).map((record) =>
          record.kind === 'step' && record.step === at ? {...record, loss: null} : record,
        ),
      );
    expect(armCurve({label: 'a', runs: [broken(4)]}, 'train', 'steps', 0.9).points).toHaveLength(9);
    expect([broken(4).hasDiverged, broken(10).hasDiverged]).toEqual([false, true]);
  });
});

describe('summarise', () => {
  const arms = groupArms([measured('good', [5, 3, 2]), measured('bad', [8, 6, 4]), measured('best', [3.5, 2, 1])]);

  it('asks when each arm reached the final loss of the worst one', () => {
    const {target, rows} = summarise(arms);
    expect(target).toEqual({arm: 'bad', loss: 4});
    expect(rows.map(({tokensToTarget}) => tokensToTarget)).toEqual([500, 2000, 0]);
  });

  it('tells where each arm began and ended', () => {
    const {rows} = summarise(arms);
    expect(rows.map(({firstLoss, lastLoss}) => [firstLoss, lastLoss])).toEqual([
      [5, 2],
      [8, 4],
      [3.5, 1],
    ]);
  });

  it('gives means over seeds, with the least and greatest', () => {
    const {rows} = summarise(groupArms([measured('a', [5, 3], 1), measured('a', [7, 4], 2)]));
    expect(rows).toMatchObject([{seeds: [1, 2], firstLoss: 6, lastLoss: 3.5, lastRange: [3, 4]}]);
    expect(summaryText(summarise(groupArms([measured('a', [5, 3], 1), measured('a', [7, 4], 2)])))).toContain(
      '3.500 (3.000-4.000)',
    );
  });

  it('does not take a diverged arm as the worst', () => {
    const records = syntheticRecords({arm: 'gone', first: 90, last: 80, numSteps: 10}).map((record) =>
      record.kind === 'step' && record.step === 10 ? {...record, loss: null} : record,
    );
    const summary = summarise(groupArms([measured('good', [5, 3]), toRun('gone', records)]));
    expect(summary.target).toEqual({arm: 'good', loss: 3});
    expect(summaryText(summary)).toMatch(/^gone .* diverged +- /m);
  });

  it('stands without any evaluation', () => {
    const summary = summarise(groupArms([measured('a', [])]));
    expect(summary).toMatchObject({target: null, rows: [{firstLoss: null, lastLoss: null, tokensToTarget: null}]});
    expect(targetSentence(summary)).toContain('No arm has a validation loss');
    expect(summaryText(summary)).toMatch(/^a +1 +4\.20M +2\.10M +- +- +- /m);
  });

  it('is a table of one line an arm, under a rule, with the target in its title', () => {
    const lines = summaryText(summarise(arms)).split('\n');
    expect(lines[1]).toMatch(/^arm +seeds +params +params +val loss +val loss +4\.000 +speed$/);
    expect(lines.slice(3, 6).map((line) => line.split(' ')[0])).toEqual(['good', 'bad', 'best']);
  });
});
