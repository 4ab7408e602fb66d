import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, it, vi} from 'vitest';
import {locateTensorFlow} from '../../src/engine/library/locate.js';
import {liveTensors} from '../../src/engine/memory.js';
import {train} from '../../src/train/run.js';
import type {TrainRun} from '../../src/train/session.js';
import {columnsOf, exactLines, RECORDED, recordedLosses, startChild, stepsOf, tinyRun, writeModel} from './support.js';

vi.setConfig({testTimeout: 240_000, hookTimeout: 240_000}); // compiling and new processes, on a machine that may be busy

const {kind} = await locateTensorFlow({device: 'cpu'});

/** Set to write test/losses anew, after a change that is meant to change the numbers. */
const isRecording = process.env.RECORD_LOSSES !== undefined;

/** Between processors with AVX2 and with AVX-512 losses differ by up to 2e-7, the norm of a small gradient by 2e-5. */
const [LOSS_NOISE, GRADIENT_NOISE] = [1e-6, 1e-4];

describe.skipIf(kind === 'missing').each(['dense', 'moe'] as const)('%s on TensorFlow (skipped without it)', (name) => {
  const {architecture, train: options} = RECORDED[name];
  let folder = '';
  const runOf = (out: string, mode: TrainRun['mode'] = 'new'): TrainRun => tinyRun(folder, {out, mode, train: options});

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'downcycle-train-'));
    await writeModel(join(folder, 'model'), architecture);
  });
  afterAll(() => rm(folder, {recursive: true}));

  it('has the recorded losses of 20 steps, and leaves no tensor behind', async () => {
    const counts = new Map<number, string>();
    await train(runOf('whole'), (event) => {
      if (event.kind === 'step') counts.set(event.step, JSON.stringify(liveTensors()));
    });
    const steps = await stepsOf(join(folder, 'whole'));
    const columns = steps.map(columnsOf);
    if (isRecording) await writeFile(`test/losses/${name}.txt`, render(columns));
    const recorded = await recordedLosses(name);
    expect(columns.map(losses)).toBeAllClose(recorded.map(losses), {rtol: LOSS_NOISE, atol: 0});
    expect(columns.map(gradientNorm)).toBeAllClose(recorded.map(gradientNorm), {rtol: GRADIENT_NOISE, atol: 0});
    expect([...counts.values()], 'tensors alive after each step').toEqual(new Array(20).fill(counts.get(1)));
    expect(steps.filter(({overflow}) => overflow > 0)).toEqual([]);
    expect(liveTensors().tfjs, 'tensors alive after the run').toBe(0);
  });

  it('killed in the middle and resumed in another process has the same bytes', async () => {
    const {signal, output} = await startChild({run: runOf('killed'), dieAfterStep: 9}).ended;
    expect(signal, output).toBe('SIGKILL');
    await train(runOf('killed', 'resume'));
    expect(await exactLines(join(folder, 'killed'))).toEqual(await exactLines(join(folder, 'whole')));
  });
});

function losses(columns: readonly number[]): readonly number[] {
  return columns.slice(0, 3);
}

function gradientNorm(columns: readonly number[]): number {
  return columns[3] ?? Number.NaN;
}

function render(columns: readonly (readonly number[])[]): string {
  const lines = columns.map((row, i) => `${i + 1} ${row.join(' ')}`);
  const how =
    '# step, loss, balance loss, z-loss, gradient norm; written by RECORD_LOSSES=1 vitest run recorded-losses';
  return `${[how, ...lines].join('\n')}\n`;
}
