import {existsSync} from 'node:fs';
import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, it, vi} from 'vitest';
import type {Architecture, FfnLayout} from '../../src/model/architecture.js';
import {estimateRun, type RunEstimate} from '../../src/train/estimate.js';
import {requireFit} from '../../src/train/fit.js';
import type {TrainInput} from '../../src/train/options.js';
import {heldTerms, outlineOf} from '../../src/train/outline.js';
import type {TrainRun} from '../../src/train/session.js';
import {EnvironmentError} from '../../src/util/errors.js';
import {runChild} from '../support/child.js';
import {missingTensorFlow} from '../support/engines.js';
import {DENSE, experts, ROUTED, tiny, tinyRun, writeModel} from './support.js';

vi.setConfig({testTimeout: 600_000, hookTimeout: 240_000}); // whole runs in processes of their own, on a busy machine

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'downcycle-estimate-'));
});
afterAll(() => rm(folder, {recursive: true}));

/** Layers of width 512, and 8192 words. */
function wide(numLayers: number, layout: FfnLayout): Architecture {
  const sizes = {vocab: 8192, width: 512, heads: 8, kvHeads: 4, headDim: 64, contextLength: 256};
  return {...tiny(Array.from({length: numLayers}, () => layout)), ...sizes};
}

async function runOf(name: string, architecture: Architecture, train: TrainInput): Promise<TrainRun> {
  if (!existsSync(join(folder, name))) await writeModel(join(folder, name), architecture);
  const validation = {every: 2, maxRows: 4};
  return tinyRun(folder, {
    model: name,
    out: `${name}-run`,
    data: {sequenceLength: 256},
    train: {steps: 2, validation, ...train},
  });
}

/** A model of rows as long as those of {@link runOf}. */
const LONG: Architecture = {...DENSE, contextLength: 256};

const DENSE_LAYER: FfnLayout = {kind: 'dense', width: 1536};
const SHAPES: Readonly<Record<string, readonly [Architecture, TrainInput]>> = {
  full: [wide(4, DENSE_LAYER), {batch: {sequences: 8}}],
  'experts and accumulation': [
    wide(2, {...experts(8, 2), expertWidth: 192, sharedWidth: 192}),
    {batch: {sequences: 4, accumulate: 2}},
  ],
};

describe.skipIf(missingTensorFlow !== null)('an estimate (skipped without TensorFlow)', () => {
  it.each(Object.keys(SHAPES))('is within 15% of the peak of a run: $0', async (name) => {
    const [architecture, train] = SHAPES[name]!;
    const run = await runOf(name, architecture, train);
    const {bytes, time, free} = await estimateRun(run);
    const env = {TF_XLA_FLAGS: ''}; // a program kept from an earlier run would not be compiled
    const peak = (await runChild(
      new URL('./peak-worker.ts', import.meta.url),
      [JSON.stringify(run)],
      env,
      500_000,
    )) as {
      bytes: number;
    };
    expect(bytes / peak.bytes).toBeGreaterThan(0.85);
    expect(bytes / peak.bytes).toBeLessThan(1.15);
    expect(free.bytes).toBeGreaterThan(0);
    expect(time?.seconds).toBeGreaterThan(0);
  });
});

describe('what a run holds', () => {
  const held = async (name: string, train: TrainInput): Promise<Record<string, number>> => {
    const run = await runOf(name, name === 'dense' ? DENSE : ROUTED, train);
    return Object.fromEntries(heldTerms(await outlineOf(run)).map(({what, bytes}) => [what, bytes / 4]));
  };
  const [D, F, V] = [32, 64, 274];
  const dense = V * D + D + 2 * (2 * D + 2 * D * D + 2 * D * 16 + 3 * D * F);

  it('of a full finetune is weights, two moments, sums and means', async () => {
    const sizes = await held('dense', {batch: {sequences: 8, accumulate: 2}, ema: {}});
    expect(sizes).toEqual({
      parameters: dense,
      'optimizer state': 2 * dense,
      'gradient sums': dense,
      'running means': dense,
    });
  });

  it('of low-rank terms is the weights once, and the terms with their moments', async () => {
    const finetune = {kind: 'lora', rank: 4, targets: ['ffn']} as const;
    const terms = 2 * 3 * 4 * (D + F);
    const sizes = await held('dense', {batch: {sequences: 8}, finetune: {...finetune, targets: ['ffn']}});
    expect(sizes).toEqual({parameters: dense, 'low-rank terms': terms, 'optimizer state': 2 * terms});
  });

  it('counts the teacher, the biases that balance experts, and less for adafactor', async () => {
    const plain = await held('routed', {});
    const sizes = await held('routed', {
      distill: {from: join(folder, 'dense')},
      balance: {kind: 'bias'},
      optimizer: {kind: 'adafactor'},
    });
    expect(sizes.teacher).toBe(dense);
    expect(sizes.parameters).toBe(plain.parameters! + 8);
    expect(sizes['optimizer state']).toBeLessThan(plain.parameters! / 4);
  });
});

describe('a run that cannot fit', () => {
  it('is known not to without a plan, and its error says what to lower', async () => {
    const run = await runOf('long', LONG, {batch: {sequences: 1e8}});
    const estimate = await estimateRun(run);
    expect(estimate.time).toBeNull();
    const check = (): void => requireFit(estimate, run);
    expect(check).toThrow(EnvironmentError);
    expect(check).toThrow(/^The run needs [\d.]+ GB, there are [\d.]+ GB of memory free\.$/);
    let hint: string | undefined;
    try {
      check();
    } catch (error) {
      hint = (error as EnvironmentError).hint;
    }
    expect(hint).toMatch(/^Lower train\.batch\.sequences \(100000000\), lower data\.sequenceLength \(256\), /);
    expect(hint).toMatch(/set train\.recompute to layer, .*kind: lora.* adafactor or take a machine with more\.$/);
  });

  it('is one whose bytes are more than are free, and no other', async () => {
    const run = await runOf('dense', DENSE, {});
    const of = (bytes: number): RunEstimate => ({
      terms: [],
      bytes,
      free: {of: 'memory', bytes: 100},
      time: null,
      notes: [],
    });
    expect(() => requireFit(of(100), run)).not.toThrow();
    expect(() => requireFit(of(101), run)).toThrow(EnvironmentError);
  });

  it('is not asked for where nothing plans: the wasm engine', async () => {
    const run = {...(await runOf('long', LONG, {})), engine: {device: 'wasm'}} as const;
    await expect(estimateRun(run)).rejects.toThrow(/^The wasm engine plans no memory/);
  });
});
