import {mkdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import type {EvalRecord, RunLogRecord, StepRecord} from '../../src/format/run-record.js';
import {createRng} from '../../src/util/rng.js';

/** A run whose loss falls from `first` towards `last`, for tests that need a log and not a training. */
export interface SyntheticRun {
  readonly arm: string;
  readonly seed?: number;
  readonly name?: string;
  readonly numSteps?: number;
  readonly evalEvery?: number;
  readonly first?: number;
  readonly last?: number;
  /** Experts in each MoE layer; empty for a dense model. */
  readonly experts?: readonly number[];
  readonly end?: 'completed' | 'interrupted' | 'failed' | null;
  readonly total?: number;
  readonly active?: number;
}

const TOKENS_A_STEP = 2048;

/** The records of such a run. */
export function syntheticRecords(run: SyntheticRun): RunLogRecord[] {
  const {arm, seed = 7, name = 'quickstart', numSteps = 60, evalEvery = 10, end = 'completed'} = run;
  const {total = 4_200_000, active = 2_100_000} = run;
  const rng = createRng(seed, arm);
  const steps = Array.from({length: numSteps}, (_, i) =>
    stepRecord(run, i + 1, numSteps, rng.normal(), () => rng.uniform()),
  );
  const evals = Array.from({length: Math.floor(numSteps / evalEvery) + 1}, (_, i) =>
    evalRecord(run, i * evalEvery, numSteps, rng.normal()),
  );
  return [
    {
      ...{kind: 'run', schema: 1, name, arm, configHash: `${arm.length}`.padEnd(64, 'a1b2c3d4'), seed},
      versions: {downcycle: '0.1.0', node: '20.20.2', tensorflow: '2.20.0'},
      device: 'tensorflow 2.20.0, cpu, float32',
      parameters: {total, active, trainable: total},
      startedAt: '2026-01-02T03:04:05.000Z',
    } as const,
    ...[...steps, ...evals].sort((a, b) => a.step - b.step),
    ...(end
      ? [{kind: 'end', step: numSteps, tokens: numSteps * TOKENS_A_STEP, seconds: 60, reason: end} as const]
      : []),
  ];
}

/** Writes a run folder with `log.jsonl` (and `config.yaml` if given) and returns its path. */
export async function writeRun(parent: string, folder: string, run: SyntheticRun, config?: string): Promise<string> {
  const path = join(parent, folder);
  await mkdir(path, {recursive: true});
  await writeFile(
    join(path, 'log.jsonl'),
    syntheticRecords(run)
      .map((record) => `${JSON.stringify(record)}\n`)
      .join(''),
  );
  if (config !== undefined) await writeFile(join(path, 'config.yaml'), config);
  return path;
}

function lossAt({first = 5, last = 3.5}: SyntheticRun, step: number, numSteps: number): number {
  return last + (first - last) * Math.exp((-5 * step) / numSteps);
}

function stepRecord(
  run: SyntheticRun,
  step: number,
  numSteps: number,
  noise: number,
  uniform: () => number,
): StepRecord {
  return {
    ...{kind: 'step', step, tokens: step * TOKENS_A_STEP, flops: step * 2.6e10},
    ...{loss: lossAt(run, step, numSteps) + 0.12 * noise, auxLoss: 1.01, zLoss: 0.2, gradNorm: 0.8, lr: {all: 4e-4}},
    ...(run.experts && {load: run.experts.map((count) => shares(count, uniform))}),
    ...{overflow: 0, seconds: step / 2, tokensPerSecond: 4100 + 100 * noise, utilisation: null},
  };
}

function evalRecord(run: SyntheticRun, step: number, numSteps: number, noise: number): EvalRecord {
  const loss = lossAt(run, step, numSteps) + 0.015 * noise;
  return {kind: 'eval', step, tokens: step * TOKENS_A_STEP, split: 'validation', loss, perplexity: Math.exp(loss)};
}

function shares(count: number, uniform: () => number): number[] {
  const raw = Array.from(
    {length: count},
    (_, i) => 0.4 + uniform() + (i % 7 === 0 ? 1.2 : 0) - (i % 11 === 5 ? 0.38 : 0),
  );
  const total = raw.reduce((a, b) => a + b, 0);
  return raw.map((value) => value / total);
}
