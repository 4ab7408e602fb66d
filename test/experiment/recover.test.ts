// A conversion that is recovered, as a user types it.
import {join, resolve} from 'node:path';
import {describe, expect, it, vi} from 'vitest';
import {recoverConfig} from '../../src/experiment/recover.js';
import {readRunLog} from '../../src/format/run-log.js';
import {spawnCli, tempFolder} from '../cli/support.js';
import {DENSE, MOE, TEXT, writeModel} from '../train/support.js';

vi.setConfig({testTimeout: 180_000});

const options = {model: 'models/moe', text: ['a/b c.txt', 'a'], samples: 2048, tokens: 512, mode: 'new'} as const;

describe('a recovery', () => {
  it('is the run of the paper, on what the model has', () => {
    const {config} = recoverConfig({...options, set: ['train.optimizer.lr=1e-4']}, MOE);
    expect(config).toMatchObject({name: 'recover-moe', model: 'models/moe'});
    expect(config.data.sources.map(({name}) => name)).toEqual(['b-c-1', 'a-2']);
    expect(config.train).toMatchObject({steps: 128, batch: {sequences: 16}, optimizer: {lr: 1e-4, weightDecay: 0}});
    const targets = ['attention', 'ffn', 'shared', 'experts'];
    expect(config.train.finetune).toMatchObject({kind: 'lora', rank: 8, alpha: 32, targets});
    expect(config.train.balance).toMatchObject({kind: 'bias', rate: 1e-3});
    const scaled = {...MOE, routing: {...MOE.routing, weight: 'one-plus-scaled'} as const};
    const {finetune, optimizer} = recoverConfig(options, scaled).config.train;
    expect(finetune).toMatchObject({targets, train: ['scales']});
    expect(optimizer).toMatchObject({lr: 5.65e-5, rates: {scales: 1e-3}});
    expect(config.train.optimizer.rates).toEqual({});
    const dense = recoverConfig(options, DENSE).config.train;
    expect(dense.finetune).toMatchObject({targets: ['attention', 'ffn']});
    expect(dense.optimizer.lr).toBe(5.65e-5);
  });

  it('needs samples for a step', () => {
    expect(() => recoverConfig({...options, samples: 15}, MOE)).toThrow('15 samples make no step of 16.');
  });

  it('is told of by the words that asked for it, never by lines of a config that nobody wrote', () => {
    const {at} = recoverConfig({...options, name: 'again', set: ['train.steps=50']}, MOE);
    expect(at(['model'])).toBe('recover models/moe');
    expect(at(['data', 'sources', 1, 'path'])).toBe('--text a');
    expect(at(['data', 'sequenceLength'])).toBe('--tokens 512');
    expect(at(['train', 'steps']), 'which gives way').toBe('--set train.steps=50');
    expect(at(['train', 'optimizer', 'lr']), 'ours').toBe('recover');
    const named = (): unknown => recoverConfig({...options, name: 'a/b'}, MOE);
    expect(named).toThrow(/^--name a\/b: name: expected letters, digits/);
    const short = (): unknown => recoverConfig({...options, set: ['train.steps=2']}, MOE);
    expect(short).toThrow(/^recover: train\.schedule\.warmup: schedule\.warmup must be less than steps/);
  });

  it('trains, and says the perplexity of parent, conversion and result', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'moe'), MOE);
    const set = ['engine.device=wasm', 'data.validation.share=0.2', 'train.optimizer.lr=0.01'].flatMap((one) => [
      '--set',
      one,
    ]);
    const args = [
      'recover',
      'moe',
      '--text',
      resolve(TEXT),
      '--samples',
      '64',
      '--tokens',
      '32',
      '--name',
      'again',
      ...set,
    ];
    const {code, stdout, stderr} = await spawnCli(args, {cwd: folder});
    expect(code, stderr).toBe(0);
    const [converted = 0, recovered = 0] = [...stdout.matchAll(/perplexity ([\d.]+)/g)].map(([, value]) =>
      Number(value),
    );
    expect(stdout).not.toContain('dense'); // it was drawn at random, and has no parent
    expect(recovered).toBeLessThan(converted);
    const log = await readRunLog(join(folder, 'checkpoints/again/model/log.jsonl'));
    expect(Math.exp(log.findLast((record) => record.kind === 'eval')!.loss!)).toBeCloseTo(recovered, 1);
    expect((await spawnCli(args, {cwd: folder})).stderr).toContain('already exists');
  });
});
