import {createHash} from 'node:crypto';
import {mkdtemp, readdir, readFile, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, it, vi} from 'vitest';
import {createLoader, type LoaderState} from '../../src/data/loader.js';
import {closeShards, ensureShards} from '../../src/data/shards.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import {latestCheckpoint} from '../../src/train/checkpoint.js';
import {train} from '../../src/train/run.js';
import type {TrainRun} from '../../src/train/session.js';
import {createRng} from '../../src/util/rng.js';
import {DENSE, exactLines, MOE, startChild, tinyRun, writeModel} from './support.js';

vi.setConfig({testTimeout: 600_000, hookTimeout: 240_000}); // many new processes, on a machine that may be busy

const STEPS = 40;
/** What trains. Of low-rank terms the words of a teacher are kept beside the run, too. */
const KINDS = ['all', 'low-rank'] as const;
type Kind = (typeof KINDS)[number];

/**
 * Runs that go on beside each other, and from how many steps at least. Changes of files in the longest life are those of about
 * two checkpoints, most of which are writes of tensors.
 */
const CASES = [
  {kind: 'all', seed: 1, lives: 10, longest: 400, starts: 4},
  {kind: 'all', seed: 2, lives: 10, longest: 400, starts: 4},
  {kind: 'low-rank', seed: 3, lives: 5, longest: 500, starts: 3},
] as const;

let folder = '';
const runOf = (kind: Kind, out: string, mode: TrainRun['mode']): TrainRun =>
  tinyRun(folder, {
    ...{out, mode, engine: {device: 'wasm'}},
    train: {
      steps: STEPS,
      batch: {sequences: 4, accumulate: 2},
      validation: {every: 6, maxRows: 4},
      checkpoint: {every: 4, keep: 2, best: true},
      ema: {decay: 0.9},
      spike: {policy: 'skip', factor: 1.01, window: 3},
      ...(kind === 'low-rank' && {
        finetune: {kind: 'lora', rank: 2, targets: ['attention', 'experts'], train: ['routers']},
        distill: {from: join(folder, 'teacher'), top: 8},
      }),
    },
  });

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'downcycle-crash-'));
  await writeModel(join(folder, 'model'), MOE);
  await writeModel(join(folder, 'teacher'), DENSE);
  for (const kind of KINDS) await train(runOf(kind, `whole-${kind}`, 'new'));
});
afterAll(() => rm(folder, {recursive: true}));

/** Where a life went on: a step, and the place in the text. */
interface Start {
  readonly step: number;
  readonly loader: LoaderState | null;
}

describe('a run that is killed again and again, at any change of a file', {concurrent: true}, () => {
  it.each(CASES)('has the bytes of one that nobody disturbed: $kind, seed $seed', async (given) => {
    const {kind, seed, lives, longest} = given;
    const [out, whole] = [`killed-${seed}`, `whole-${kind}`];
    const rng = createRng(seed, 'when to die');
    const starts: Start[] = [{step: 0, loader: null}];
    for (let life = 0; life < lives; life++) {
      const step = starts.at(-1)?.step ?? 0;
      const death = life % 3 === 2 ? {dieAfterStep: step + 1 + rng.int(4)} : {dieAtChange: rng.int(longest)};
      const {signal, output} = await startChild({run: runOf(kind, out, 'resume'), ...death}).ended;
      expect(signal, `life ${life}, ${JSON.stringify(death)}: ${output}`).toBe('SIGKILL');
      const checkpoint = await latestCheckpoint(join(folder, out)).catch(() => null);
      if (checkpoint) starts.push({step: checkpoint.trainer.step, loader: checkpoint.trainer.loader});
    }
    expect(new Set(starts.map(({step}) => step)).size, 'it went on from several steps').toBeGreaterThanOrEqual(
      given.starts,
    );
    expect(await train(runOf(kind, out, 'resume'))).toMatchObject({step: STEPS, reason: 'completed'});
    expect(await exactLines(join(folder, out), ['step', 'eval', 'checkpoint'])).toEqual(
      await exactLines(join(folder, whole), ['step', 'eval', 'checkpoint']),
    );
    expect(await hashesOf(out)).toEqual(await hashesOf(whole));
    expect((await readdir(folder)).filter((name) => name.includes(out))).toEqual([out]);
    expect(await streamHash(starts)).toBe(await streamHash([{step: 0, loader: null}]));
  });
});

/** SHA-256 of every file of a run folder but those that tell the time. */
async function hashesOf(out: string): Promise<Record<string, string>> {
  const names = await readdir(join(folder, out), {recursive: true, withFileTypes: true});
  const files = names.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const told = files.filter((file) => !/(log\.jsonl|trainer\.json)$/.test(file)).sort();
  const hashes = await Promise.all(
    told.map(async (file) => [
      file.slice(join(folder, out).length),
      createHash('sha256')
        .update(await readFile(file))
        .digest('hex'),
    ]),
  );
  return Object.fromEntries(hashes) as Record<string, string>;
}

/** SHA-256 of the tokens that a run learnt from, each life read from where it went on up to where the next one did. */
async function streamHash(starts: readonly Start[]): Promise<string> {
  const {data, shards, seed, train: options} = runOf('all', 'whole', 'new');
  const sources = await ensureShards(data, await loadTokenizer(join(folder, 'model')), shards);
  const hash = createHash('sha256');
  try {
    for (const [i, {step, loader: state}] of starts.entries()) {
      const weighted = sources.map(({name, weight, train: shard}) => ({name, weight, shard}));
      const loader = createLoader({shards: weighted, sequences: options.batch.sequences, seed, ...(state && {state})});
      const end = starts[i + 1]?.step ?? STEPS;
      for (let n = step * options.batch.accumulate; n < end * options.batch.accumulate; n++) {
        hash.update((await loader.next()).tokens);
      }
    }
    return hash.digest('hex');
  } finally {
    await closeShards(sources);
  }
}
