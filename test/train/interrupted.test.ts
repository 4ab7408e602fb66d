import {existsSync} from 'node:fs';
import {appendFile, mkdtemp, readdir, readFile, rm} from 'node:fs/promises';
import {hostname, tmpdir} from 'node:os';
import {join} from 'node:path';
import {setTimeout} from 'node:timers/promises';
import {afterAll, beforeAll, describe, expect, it, vi} from 'vitest';
import {readRunLog} from '../../src/format/run-log.js';
import {latestCheckpoint} from '../../src/train/checkpoint.js';
import type {TrainEvent} from '../../src/train/event.js';
import {train} from '../../src/train/run.js';
import {exitCodeOf, listenForStop} from '../../src/train/stop-signal.js';
import {EnvironmentError} from '../../src/util/errors.js';
import {type ChildOrder, exactLines, MOE, startChild, tinyRun, writeModel} from './support.js';

vi.setConfig({testTimeout: 240_000, hookTimeout: 240_000}); // compiling and new processes, on a machine that may be busy

const options = {
  engine: {device: 'wasm'},
  train: {steps: 8, validation: {every: 2, maxRows: 16}, checkpoint: {every: 3, keep: 2}},
} as const;

let folder = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'downcycle-train-'));
  await writeModel(join(folder, 'model'), MOE);
  await train(tinyRun(folder, {...options, out: 'whole'}));
});
afterAll(() => rm(folder, {recursive: true}));

/** Resumes a run and expects the lines of the one nobody disturbed, and nothing left of what was not finished. */
async function expectSameTail(out: string): Promise<void> {
  const {reason} = await train(tinyRun(folder, {...options, out, mode: 'resume'}));
  expect(reason).toBe('completed');
  expect(await exactLines(join(folder, out))).toEqual(await exactLines(join(folder, 'whole')));
  const names = await readdir(join(folder, out));
  expect(names.sort()).toEqual(['config.yaml', 'log.jsonl', 'step-000006', 'step-000008']);
}

/** Starts or resumes a run that kills itself. */
async function killed(out: string, order: Omit<ChildOrder, 'run'>, mode: 'new' | 'resume' = 'new'): Promise<void> {
  const {signal, output} = await startChild({run: tinyRun(folder, {...options, out, mode}), ...order}).ended;
  expect(signal, output).toBe('SIGKILL');
}

describe('a killed run', () => {
  it.each([
    ['while the weights of a checkpoint are written', {dieAtOpen: 'step-000006.part.*model.*safetensors'}],
    ['just before a checkpoint gets its marker', {dieAtOpen: 'step-000006.part.*trainer.json'}],
    ['just after a checkpoint got its name', {dieAfterRename: '/step-000006$'}],
  ])('%s goes on with the same bytes', async (out, death) => {
    await killed(out, death);
    await expectSameTail(out);
  });

  it('with a torn last line goes on with the same bytes', async () => {
    const log = join(folder, 'torn', 'log.jsonl');
    await killed('torn', {dieAfterStep: 5});
    await appendFile(log, (await readFile(log, 'utf8')).trimEnd().split('\n').at(-1)!.slice(0, 40));
    await expectSameTail('torn');
  });

  it('can be killed again, before its first checkpoint and after', async () => {
    await killed('again', {dieAfterStep: 2});
    await killed('again', {dieAfterStep: 5}, 'resume');
    await expectSameTail('again');
  });
});

describe('a run folder that a process trains in', () => {
  it('is refused to another, by the name of who has it; once that one was killed it is taken over', async () => {
    const run = tinyRun(folder, {...options, out: 'taken', train: {...options.train, steps: 400}});
    const child = startChild({run});
    await child.until((event) => event.kind === 'checkpoint');
    const lock = join(folder, '.taken.lock');
    const {pid} = JSON.parse(await readFile(lock, 'utf8')) as {pid: number};
    expect(pid).toBe(child.pid);
    const before = await readdir(join(folder, 'taken'));
    for (const mode of ['resume', 'overwrite'] as const) {
      const refused = train({...run, mode});
      await expect(refused).rejects.toBeInstanceOf(EnvironmentError);
      await expect(refused).rejects.toThrow(
        `${join(folder, 'taken')} is in use: process ${pid} on ${hostname()}, since`,
      );
    }
    expect(await readdir(join(folder, 'taken'))).toEqual(expect.arrayContaining(before.slice(0, 2)));
    child.kill('SIGKILL');
    await child.ended;
    const notes: string[] = [];
    const stop = (event: TrainEvent): void => {
      if (event.kind === 'note') notes.push(event.text);
      if (event.kind === 'step') throw new Error('enough');
    };
    await expect(train({...run, mode: 'resume'}, stop)).rejects.toThrow('enough');
    expect(notes.join()).toMatch(new RegExp(`process ${pid}, .* left ${join(folder, 'taken')} without an end`));
    expect(existsSync(lock)).toBe(false);
  });
});

describe('a run stopped by a signal', () => {
  const long = {...options, train: {...options.train, steps: 40}};

  it('finishes its step, saves, says so, and can be resumed', async () => {
    const out = join(folder, 'stopped');
    const child = startChild({run: tinyRun(folder, {...long, out: 'stopped'})});
    await child.until((event) => event.kind === 'step' && event.step === 4);
    child.kill('SIGINT');
    const {code, output} = await child.ended;
    expect(code, output).toBe(0);
    expect(output).toContain('"reason":"interrupted","signal":"SIGINT"');
    const last = (await readRunLog(join(out, 'log.jsonl'))).at(-1)!;
    expect(last).toMatchObject({kind: 'end', reason: 'interrupted'});
    const stopped = last.kind === 'end' ? last.step : 0;
    expect((await latestCheckpoint(out))?.trainer.step).toBe(stopped);
    expect(stopped).toBeLessThan(40);
    expect(await train(tinyRun(folder, {...long, out: 'stopped', mode: 'resume'}))).toMatchObject({step: 40});
    expect(await exactLines(out, ['step'])).toHaveLength(40);
  });

  it('ends at once at a second signal', async () => {
    const slow = {...long, out: 'twice', train: {...long.train, batch: {sequences: 128}}};
    const child = startChild({run: tinyRun(folder, slow)});
    await child.until((event) => event.kind === 'step');
    child.kill('SIGINT');
    await child.until((event) => event.kind === 'note' && event.text.startsWith('SIGINT'));
    await setTimeout(400); // sooner it is the first one once more
    child.kill('SIGINT');
    expect((await child.ended).code).toBe(130);
    expect(existsSync(join(folder, '.twice.lock'))).toBe(false);
    expect((await readRunLog(join(folder, 'twice', 'log.jsonl'))).at(-1)!.kind).not.toBe('end');
  });

  it.each([
    ['SIGHUP', 129],
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s asks once, and has its own exit code', (signal, code) => {
    const asked: string[] = [];
    const stop = listenForStop((name) => asked.push(name));
    expect(stop.requested()).toBeNull();
    process.emit(signal, signal);
    expect([stop.requested(), asked, exitCodeOf(signal)]).toEqual([signal, [signal], code]);
    stop.dispose();
  });

  it('takes a signal that comes twice at a time for one, as `timeout` may send it', () => {
    const asked: string[] = [];
    const exit = vi.spyOn(process, 'exit').mockReturnValue(undefined as never);
    const stop = listenForStop((name) => asked.push(name));
    process.emit('SIGTERM', 'SIGTERM');
    process.emit('SIGTERM', 'SIGTERM');
    expect([asked, exit.mock.calls]).toEqual([['SIGTERM'], []]);
    const now = performance.now();
    vi.spyOn(performance, 'now').mockReturnValue(now + 1000);
    process.emit('SIGTERM', 'SIGTERM');
    expect([asked, exit.mock.calls]).toEqual([['SIGTERM'], [[143]]]);
    stop.dispose();
    vi.restoreAllMocks();
  });

  it('ends at once at another signal than the first', () => {
    const exit = vi.spyOn(process, 'exit').mockReturnValue(undefined as never);
    const stop = listenForStop(() => undefined);
    process.emit('SIGTERM', 'SIGTERM');
    process.emit('SIGINT', 'SIGINT');
    expect(exit.mock.calls).toEqual([[130]]);
    stop.dispose();
    vi.restoreAllMocks();
  });

  it('lets a terminal be gone twice, as both its shell and the system say', () => {
    const asked: string[] = [];
    const stop = listenForStop((name) => asked.push(name));
    process.emit('SIGHUP', 'SIGHUP');
    process.emit('SIGHUP', 'SIGHUP');
    expect(asked).toEqual(['SIGHUP']);
    stop.dispose();
  });
});
