import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {existsSync} from 'node:fs';
import {mkdir, readdir, readFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, it, vi} from 'vitest';
import type {TrainRun} from '../../src/train/session.js';
import {type PlanOrder, planStep} from '../../src/train/step-plan.js';
import {isAlive} from '../../src/util/alive.js';
import {ConfigError, EnvironmentError, ModelError} from '../../src/util/errors.js';
import {runChild} from '../support/child.js';
import {missingTensorFlow} from '../support/engines.js';
import {DENSE, tempFolder, tinyRun, writeModel} from './support.js';

vi.setConfig({testTimeout: 60_000}); // processes start slowly on a busy machine

const PROGRAM = new URL('./plan-worker.ts', import.meta.url);
const named = (name: string): TrainRun => ({...tinyRun('nowhere'), name});

describe('the process that plans a step', () => {
  it('that is killed is said to be, with what to lower', async () => {
    const error: unknown = await planStep(named('killed'), PROGRAM).catch((found: unknown) => found);
    expect(error).toBeInstanceOf(EnvironmentError);
    expect(error).toMatchObject({
      message: 'The process that plans a step was killed, as the system does where memory runs out.',
      hint: expect.stringMatching(/^Lower train\.batch\.sequences \(8\), lower .* or take a machine/) as string,
    });
  });

  it('tells its errors with class and hint, and what it wrote where nobody foresaw it', async () => {
    const error: unknown = await planStep(named('refused'), PROGRAM).catch((found: unknown) => found);
    expect(error).toBeInstanceOf(ConfigError);
    expect(error).toMatchObject({message: 'It cannot be.', hint: 'Let it be.'});
    await expect(planStep(named('broken'), PROGRAM)).rejects.toThrow(/ended without a plan: it broke/);
  });

  it('is ended, and its folder removed, when the one that asked leaves', async () => {
    const folder = await tempFolder();
    const run = {...named('waiting'), out: join(folder, 'pid')};
    const parent = new URL('./plan-parent-worker.ts', import.meta.url);
    await runChild(parent, [JSON.stringify(run)], {TMPDIR: folder});
    const pid = Number(await readFile(run.out, 'utf8'));
    await vi.waitFor(() => expect(isAlive(pid)).toBe(false), 5000);
    expect((await readdir(folder)).filter((name) => name.startsWith('downcycle-plan-'))).toEqual([]);
  });
});

describe.skipIf(missingTensorFlow !== null)('the program that plans a step (skipped without TensorFlow)', () => {
  it('ends itself and takes its folder away when nobody is there any more', async () => {
    const folder = await tempFolder();
    const reports = join(folder, 'reports');
    await mkdir(reports);
    await writeModel(join(folder, 'model'), DENSE);
    const child = spawn(process.execPath, ['--import', 'tsx', 'src/train/step-plan-worker.ts'], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    child.stdin.end(`${JSON.stringify({run: tinyRun(folder), planes: 2, folder: reports} satisfies PlanOrder)}\n`);
    expect(await once(child, 'close')).toEqual([null, 'SIGKILL']);
    expect(existsSync(reports)).toBe(false);
  });

  it('says what is wrong with a model as training does', async () => {
    const error: unknown = await planStep(named('real')).catch((found: unknown) => found);
    expect(error).toBeInstanceOf(ModelError);
  });
});
