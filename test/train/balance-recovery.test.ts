import {mkdtemp, readFile, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, it, vi} from 'vitest';
import {upcycle} from '../../src/downcycle/upcycle.js';
import {locateTensorFlow} from '../../src/engine/library/locate.js';
import {startEngine} from '../../src/engine/start.js';
import {openModelFolder} from '../../src/format/model-folder.js';
import {weightsOf} from '../../src/model/adapter.js';
import {decode} from '../../src/model/decoder.js';
import {readParameter} from '../../src/model/load.js';
import {loadModel} from '../../src/model/model.js';
import {readArchitecture} from '../../src/model/read-architecture.js';
import {saveModel} from '../../src/model/save.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import type {TrainInput} from '../../src/train/options.js';
import {train as trainRun} from '../../src/train/run.js';
import * as tf from '../support/tfjs.js';
import {stepsOf, TEXT, tinyRun} from './support.js';

vi.setConfig({testTimeout: 240_000, hookTimeout: 240_000});

const {kind} = await locateTensorFlow({device: 'cpu'});

/** Set to write test/losses/balance.txt anew, after a change that is meant to change the numbers. */
const isRecording = process.env.RECORD_LOSSES !== undefined;
const RECORD = 'test/losses/balance.txt';

/** The shipped dense model. */
const DENSE = 'checkpoints/dense-2m';
const [EXPERTS, WINDOW] = [4, 10];
/** Logit that the first expert has for the mean input of its layer, above the others. */
const HEAD_START = 4;
/** Between processors a token may choose otherwise, and what is learnt from it goes its own way. */
const NOISE = 0.1;

interface Method {
  readonly balance: TrainInput['balance'];
  /** Learning rate of the routers, which alone train. */
  readonly lr: number;
  /** Steps in which the load is even again, and as many as are made. */
  readonly steps: number;
}

const METHODS: Readonly<Record<string, Method>> = {
  batch: {balance: {weight: 1, zLoss: 0}, lr: 3e-3, steps: 40},
  sequence: {balance: {weight: 1, scope: 'sequence', zLoss: 0}, lr: 3e-3, steps: 40},
  pooled: {balance: {kind: 'pooled', weight: 1}, lr: 3e-3, steps: 24},
  cv2: {balance: {kind: 'cv2', weight: 3}, lr: 2e-2, steps: 68},
  bias: {balance: {kind: 'bias', rate: 0.05}, lr: 1e-3, steps: 24},
  none: {balance: {kind: 'none', zLoss: 0}, lr: 3e-3, steps: 24},
};

describe.skipIf(kind === 'missing')('layers whose first expert gets all tokens (skipped without TensorFlow)', () => {
  let folder = '';
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'downcycle-balance-'));
    await writeCollapsed(join(folder, 'model'), join(folder, 'copies'));
  });
  afterAll(() => rm(folder, {recursive: true}));

  /** By step, the entropy of the load over the last {@link WINDOW} steps. */
  async function entropies(name: string, {balance, lr, steps}: Method): Promise<number[]> {
    const train: TrainInput = {
      ...{steps, balance, finetune: {kind: 'parts', train: ['routers']}, validation: {every: steps}},
      optimizer: {lr},
    };
    const run = tinyRun(folder, {out: name, train});
    await trainRun(run);
    const loads = (await stepsOf(run.out)).map(({load}) => load as number[][]);
    const balanced = loads.map((layers) => (name === 'pooled' ? [meanOver(layers)] : layers)); // it looks at no layer alone
    return balanced.map((_, i) => entropyOver(balanced.slice(Math.max(0, i + 1 - WINDOW), i + 1)));
  }

  it.each(Object.entries(METHODS))('are even again by %s, and not without', async (name, method) => {
    const curve = await entropies(name, method);
    if (isRecording) await record(name, curve);
    expect(curve[0]).toBeLessThan(0.1);
    if (name === 'none') expect(Math.max(...curve)).toBeLessThan(0.2);
    else expect(curve.at(-1)).toBeGreaterThan(0.95);
    expect(curve).toBeAllClose((await recorded()).get(name)!, {rtol: 0, atol: NOISE});
  });
});

/** Lines of the record: a method, then its entropies. */
async function recorded(): Promise<Map<string, number[]>> {
  const lines = (await readFile(RECORD, 'utf8').catch(() => '')).split('\n').filter((line) => /^\w/.test(line));
  return new Map(lines.map((line) => [line.split(' ')[0]!, line.split(' ').slice(1).map(Number)]));
}

async function record(name: string, curve: readonly number[]): Promise<void> {
  const all = new Map([...(await recorded()), [name, [...curve]]]);
  const lines = [...all].map(([method, values]) => `${method} ${values.map((value) => value.toFixed(4)).join(' ')}`);
  const how = '# method, entropy of the load by step; written by RECORD_LOSSES=1 vitest run balance-recovery';
  await writeFile(RECORD, `${[how, ...lines].join('\n')}\n`);
}

/** Mean of lists of equal length. */
function meanOver(lists: readonly (readonly number[])[]): number[] {
  return (lists[0] ?? []).map((_, i) => lists.reduce((sum, list) => sum + list[i]!, 0) / lists.length);
}

/** Entropy of the mean load over the largest there can be, mean over layers. */
function entropyOver(steps: readonly (readonly (readonly number[])[])[]): number {
  const entropies = (steps[0] ?? []).map((_, l) => {
    const shares = meanOver(steps.map((layers) => layers[l]!)).filter((share) => share > 0);
    return -shares.reduce((sum, share) => sum + share * Math.log(share), 0) / Math.log(EXPERTS);
  });
  return entropies.reduce((sum, entropy) => sum + entropy, 0) / entropies.length;
}

/** The shipped model with its FFN four times in every layer, top-1, and routers that send every token to the first copy. */
async function writeCollapsed(out: string, copies: string): Promise<void> {
  await upcycle({
    model: DENSE,
    out: copies,
    method: {method: 'sparse-upcycle', experts: EXPERTS, topK: 1, renormalise: false},
    seed: 7,
  });
  const architecture = await readArchitecture(copies);
  const means = await meanInputs();
  const source = await openModelFolder(copies);
  const {width: D} = architecture;
  await saveModel(out, {
    architecture,
    config: source.config,
    dtype: 'F32',
    tokenizerFrom: copies,
    read: async (spec) => {
      const values = await readParameter(source, architecture, spec);
      const mean = means[Number(/^layers\.(\d+)\.ffn\.router$/.exec(spec.path)?.[1])];
      if (!mean) return values;
      const square = mean.reduce((sum, value) => sum + value * value, 0);
      for (let d = 0; d < D; d++) values[d * EXPERTS] = (HEAD_START * mean[d]!) / square;
      return values;
    },
  });
  await source.close();
}

/** Mean input of every FFN of the dense model over the beginning of the text. */
async function meanInputs(): Promise<Float32Array[]> {
  await startEngine({device: 'cpu'});
  const tokenizer = await loadTokenizer(DENSE);
  const ids = tokenizer.encode((await readFile(TEXT, 'utf8')).slice(0, 4000)).slice(0, 512);
  const model = await loadModel(DENSE);
  const means: tf.Tensor[] = [];
  tf.tidy(() => {
    const token_BS = tf.tensor2d(Int32Array.from(ids), [1, ids.length], 'int32');
    decode(
      weightsOf(model),
      model.architecture,
      {token_BS},
      {onFfnInput: (_, y_TD) => void means.push(tf.keep(tf.mean(y_TD, 0)))},
    );
  });
  const values = await Promise.all(means.map((mean) => mean.data<'float32'>()));
  tf.dispose(means);
  model.dispose();
  return values;
}
