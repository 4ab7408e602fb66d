import {mkdtemp, readdir, readFile, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, it} from 'vitest';
import {liveTensors} from '../../src/engine/memory.js';
import {readRunLog} from '../../src/format/run-log.js';
import {countParameters, flopsPerToken} from '../../src/model/architecture.js';
import {createLossMeter} from '../../src/model/loss-meter.js';
import {loadModel} from '../../src/model/model.js';
import {checkpointModel, latestCheckpoint} from '../../src/train/checkpoint.js';
import type {TrainEvent} from '../../src/train/event.js';
import {train} from '../../src/train/run.js';
import type {TrainRun} from '../../src/train/session.js';
import {
  columnsOf,
  crashAfter,
  DENSE,
  exactLines,
  experts,
  RECORDED,
  ROUTED,
  type RunChanges,
  recordedLosses,
  stepsOf,
  TOKENIZER,
  tiny,
  tinyRun,
  validationLoss,
  writeModel,
} from './support.js';

const WHOLE: RunChanges = {train: {steps: 7, validation: {every: 3, maxRows: 16}, checkpoint: {every: 2, keep: 2}}};
let folder = '';

/** A run on the engine that compiles nothing. */
const wasm = (changes: RunChanges): TrainRun => tinyRun(folder, {engine: {device: 'wasm'}, ...changes});
const pathOf = (out: string): string => join(folder, out);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'downcycle-train-'));
  await writeModel(pathOf('model'), ROUTED);
  await writeModel(pathOf('dense'), DENSE);
  await train(wasm({...WHOLE, out: 'whole'}));
});
afterAll(() => rm(folder, {recursive: true}));

describe('a run', () => {
  it('logs its head, validates at step 0, every N and at the end, saves every N and at the end', async () => {
    const records = await readRunLog(join(pathOf('whole'), 'log.jsonl'));
    const order = records.map((record) => ('step' in record ? `${record.kind} ${record.step}` : record.kind));
    const middle = ['step 1', 'step 2', 'checkpoint 2', 'step 3', 'eval 3', 'step 4', 'checkpoint 4', 'step 5'];
    const last = ['step 6', 'eval 6', 'checkpoint 6', 'step 7', 'eval 7', 'checkpoint 7', 'end 7'];
    expect(order).toEqual(['run', 'eval 0', ...middle, ...last]);
    expect(records.at(-1)).toMatchObject({reason: 'completed', tokens: 7 * 8 * 32});
  });

  it('says that its routers learn nothing where what they choose weighs 1', async () => {
    await writeModel(pathOf('ones'), {...ROUTED, routing: {...ROUTED.routing, weight: 'one'}});
    const noted: string[] = [];
    const run = {...wasm({out: 'noted', train: {steps: 1}}), model: pathOf('ones')};
    await train(run, (event) => {
      if (event.kind === 'note') noted.push(event.text);
    });
    expect(noted).toEqual([expect.stringContaining('chosen experts weigh 1 (weights one).')]);
  });

  it('says what runs: config, versions, device and the counts of parameters', async () => {
    const [head] = await readRunLog(join(pathOf('whole'), 'log.jsonl'));
    const {total, active} = countParameters(ROUTED);
    expect(head).toMatchObject({kind: 'run', configHash: 'c0ffee', seed: 7, device: 'wasm'});
    expect(head).toMatchObject({parameters: {total, active, trainable: total}});
    expect(await readFile(join(pathOf('whole'), 'config.yaml'), 'utf8')).toBe('name: tiny\n');
  });

  it('counts tokens and operations, and the load of every expert', async () => {
    for (const {step, tokens, flops, load} of await stepsOf(pathOf('whole'))) {
      expect(tokens).toBe(step * 8 * 32);
      expect(flops).toBe(tokens * flopsPerToken(ROUTED, 32));
      expect(load).toHaveLength(1);
      expect(load![0]!.reduce((sum, share) => sum! + share!, 0)).toBeCloseTo(1, 12);
    }
  });

  it('counts the operations of as many experts as routing gives a token', async () => {
    const given = {steps: 1, routing: {kind: 'all-experts'}, balance: {kind: 'none'}} as const;
    const {out} = await train(wasm({out: 'all-experts', train: given}));
    const all = tiny([experts(8, 8)]);
    expect((await stepsOf(out)).map(({flops}) => flops)).toEqual([8 * 32 * flopsPerToken(all, 32)]);
  });

  it('keeps its newest checkpoints, and nothing else beside its log', async () => {
    expect((await readdir(pathOf('whole'))).sort()).toEqual(['config.yaml', 'log.jsonl', 'step-000006', 'step-000007']);
  });

  it('ends with a model folder that loads, has its tokenizer, and the validation loss that was logged', async () => {
    const checkpoint = await latestCheckpoint(pathOf('whole'));
    const path = checkpointModel(checkpoint!.path);
    const last = (await exactLines(pathOf('whole'), ['eval'])).at(-1)!;
    expect(await validationLoss(path, wasm(WHOLE))).toBe((JSON.parse(last) as {loss: number}).loss);
    for (const name of await readdir(TOKENIZER)) {
      if (name === 'golden.json') continue;
      expect(await readFile(join(path, name), 'utf8')).toBe(await readFile(join(TOKENIZER, name), 'utf8'));
    }
  });

  it('again is the same run, byte for byte', async () => {
    await train(wasm({...WHOLE, out: 'again'}));
    const kinds = ['step', 'eval', 'checkpoint'];
    expect(await exactLines(pathOf('again'), kinds)).toEqual(await exactLines(pathOf('whole'), kinds));
  });

  it('leaves no tensor behind, step after step', async () => {
    const before = liveTensors();
    const counts: string[] = [];
    const count = ({kind}: TrainEvent): unknown => kind === 'step' && counts.push(JSON.stringify(liveTensors()));
    await train(wasm({...WHOLE, out: 'tensors'}), count);
    expect(counts).toHaveLength(7);
    expect(new Set(counts).size).toBe(1);
    expect(liveTensors()).toEqual(before);
  });

  it('foretells its end by the steps after the first: what comes before is slower', async () => {
    const etas: (number | null)[] = [];
    let begun = 0;
    await train(wasm({out: 'eta', train: {steps: 4}}), ({kind, ...event}) => {
      if (kind === 'eval' && begun === 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2000);
      if (kind === 'step' && 'eta' in event) etas.push(event.eta);
      if (etas.length === 1) begun ||= performance.now();
    });
    expect([etas[0], etas[3]]).toEqual([null, 0]);
    expect(etas[1]!, 'no more than twice all that came after the first step').toBeLessThan(
      (2 * (performance.now() - begun)) / 1000,
    );
  });

  it('that is complete is left as it is when it is resumed', async () => {
    const log = await readFile(join(pathOf('whole'), 'log.jsonl'), 'utf8');
    const notes: string[] = [];
    const result = await train(wasm({...WHOLE, out: 'whole', mode: 'resume'}), (event) => {
      if (event.kind === 'note') notes.push(event.text);
    });
    expect(notes).toContain(`${pathOf('whole')} is complete: it has made its 7 steps`);
    expect(result).toEqual({out: pathOf('whole'), step: 7, tokens: 1792, reason: 'completed', signal: null});
    expect(await readFile(join(pathOf('whole'), 'log.jsonl'), 'utf8')).toBe(log);
  });

  it('that is to be overwritten starts again', async () => {
    await train(wasm({out: 'over', train: {steps: 2}}));
    await train(wasm({out: 'over', train: {steps: 1}, mode: 'overwrite', hash: 'another'}));
    expect((await readdir(pathOf('over'))).sort()).toEqual(['config.yaml', 'log.jsonl', 'step-000001']);
    expect(await stepsOf(pathOf('over'))).toHaveLength(1);
  });
});

describe('options of a run', () => {
  it('without held-out text nothing is validated', async () => {
    await train(wasm({out: 'no-validation', train: {steps: 2}, data: {validation: {share: 0}}}));
    expect(await exactLines(pathOf('no-validation'), ['eval'])).toEqual([]);
    expect(await stepsOf(pathOf('no-validation'))).toHaveLength(2);
  });

  it('without checkpoints on the way there is the last one', async () => {
    await train(wasm({out: 'last-only', train: {steps: 3}}));
    expect(await exactLines(pathOf('last-only'), ['checkpoint'])).toEqual([
      '{"kind":"checkpoint","step":3,"path":"step-000003"}',
    ]);
  });

  it('two micro-batches of 4 rows train as one batch of 8 does', async () => {
    const changes = {model: 'dense', train: {steps: 4}};
    await train(wasm({...changes, out: 'one-batch'}));
    await train(wasm({...changes, out: 'two-batches', train: {steps: 4, batch: {sequences: 4, accumulate: 2}}}));
    const [one, two] = [await stepsOf(pathOf('one-batch')), await stepsOf(pathOf('two-batches'))];
    expect(two.map(columnsOf)).toBeAllClose(one.map(columnsOf), {rtol: 2e-5, atol: 0});
    expect(two.map(({tokens}) => tokens)).toEqual(one.map(({tokens}) => tokens));
  });

  it('a fixed capacity drops rows, says how many, and trains', async () => {
    await train(wasm({out: 'dropping', train: {steps: 12, capacity: {factor: 0.5}}}));
    const steps = await stepsOf(pathOf('dropping'));
    for (const {overflow} of steps) expect(overflow).toBeGreaterThan(100);
    expect(steps.at(-1)!.loss!).toBeLessThan(steps[0]!.loss! - 0.5);
  });

  it('document boundaries that are kept are trained with, and change the loss', async () => {
    await train(wasm({out: 'bounded', train: {steps: 8}, data: {boundaries: 'keep'}}));
    await train(wasm({out: 'unbounded', train: {steps: 8}}));
    const [bounded, unbounded] = [await stepsOf(pathOf('bounded')), await stepsOf(pathOf('unbounded'))];
    expect(bounded.at(-1)!.loss!).toBeLessThan(bounded[0]!.loss! - 0.3);
    expect(bounded.map(columnsOf)).not.toEqual(unbounded.map(columnsOf));
  });

  it('a resumed run goes on saving whole models when the checkpoint it came from was pruned', async () => {
    await writeModel(pathOf('origin'), ROUTED);
    const origin = {'downcycle.json': '{"kind": "told"}', 'neurons.st': 'where they went'};
    for (const [name, text] of Object.entries(origin)) await writeFile(join(pathOf('origin'), name), text);
    const changes: RunChanges = {
      out: 'pruned',
      model: 'origin',
      train: {steps: 5, checkpoint: {every: 1, keep: 1}},
    };
    await expect(train(wasm(changes), crashAfter(3))).rejects.toThrow('crash');
    await train(wasm({...changes, mode: 'resume'}));
    const checkpoint = await latestCheckpoint(pathOf('pruned'));
    expect(checkpoint?.trainer.step).toBe(5);
    const model = checkpointModel(checkpoint!.path);
    expect(await readdir(model)).toContain('tokenizer.json');
    const copied = {...origin, 'downcycle.json': '{\n  "kind": "told",\n  "trained": true\n}\n'};
    for (const [name, text] of Object.entries(copied)) expect(await readFile(join(model, name), 'utf8')).toBe(text);
  });
});

describe('the loss of a row of two documents', () => {
  it('is that of the documents alone: nothing is predicted or seen across their boundary', async () => {
    const tokens = Int32Array.from({length: 33}, (_, i) => (i * 37) % 250);
    const segments = tokens.map((_, i) => (i < 17 ? 0 : 1));
    const both = await measure(32, {tokens, segments});
    const first = await measure(16, {tokens: tokens.slice(0, 17)});
    const second = await measure(15, {tokens: tokens.slice(17)});
    expect([both.tokens, first.tokens, second.tokens]).toEqual([31, 16, 15]);
    expect(both.loss * 31).toBeCloseTo(first.loss * 16 + second.loss * 15, 4);
    const across = await measure(32, {tokens});
    expect(across.tokens).toBe(32);
  });
});

describe('the WebAssembly engine', () => {
  it.each(['dense', 'moe'] as const)('has the first losses that TensorFlow has: %s', async (name) => {
    const {train: options} = RECORDED[name];
    const model = name === 'dense' ? 'dense' : 'model';
    const crash = (event: TrainEvent): void => {
      if (event.kind === 'step' && event.step === 5) throw new Error('enough');
    };
    await expect(train(wasm({model, out: `recorded-${name}`, train: options}), crash)).rejects.toThrow('enough');
    const steps = await stepsOf(pathOf(`recorded-${name}`));
    expect(steps.map(columnsOf)).toBeAllClose((await recordedLosses(name)).slice(0, 5), {rtol: 1e-4, atol: 0});
  });
});

/** Loss of one row under the dense model. */
async function measure(
  sequenceLength: number,
  row: {tokens: Int32Array; segments?: Int32Array},
): Promise<{loss: number; tokens: number}> {
  const model = await loadModel(pathOf('dense'));
  const meter = createLossMeter(model, sequenceLength, 'float32');
  try {
    return await meter.measure(
      (async function* () {
        yield row;
      })(),
    );
  } finally {
    meter.dispose();
    model.dispose();
  }
}
