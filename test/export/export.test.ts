import {existsSync} from 'node:fs';
import {copyFile, mkdir, readFile, writeFile} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {convert} from '../../src/downcycle/convert.js';
import {upcycle} from '../../src/downcycle/upcycle.js';
import {exportModel, exportPlans} from '../../src/export/export.js';
import type {Manifest} from '../../src/export/manifest.js';
import type {TargetName} from '../../src/export/names.js';
import {type Architecture, SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {readArchitecture} from '../../src/model/read-architecture.js';
import {DataError, EnvironmentError, UsageError} from '../../src/util/errors.js';
import {createRng} from '../../src/util/rng.js';
import {splitOptions} from '../downcycle/split-options.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA} from '../model/tiny-llama.js';
import {writeRun} from '../report/synthetic-run.js';
import {onEngine} from '../support/engines.js';
import {biased, EXACT, NEAR, ONES, olmo, postNorm, SHARES, SIGMOID, uneven} from './cases.js';
import {mixture, moeLayer, writeMixture} from './random-mixture.js';

const scratch = useScratch();
/** What cannot be said, why, and what would help. */
const REFUSED: readonly [name: string, architecture: Architecture, why: RegExp, hint: RegExp, to?: TargetName][] = [
  [
    'routers of neurons',
    mixture({}, [moeLayer({router: 'representative'})]),
    /computes the activation of a neuron/,
    /--router gate-mean/,
  ],
  ['routers of two layers', mixture({}, [moeLayer({router: 'mlp'})]), /two layers with a tanh/, /--router/],
  [
    'routers of directions',
    mixture({}, [moeLayer({router: 'cosine', temperature: 1})]),
    /compares directions/,
    /--router/,
  ],
  ['routers of lengths', mixture({}, [moeLayer({router: 'autonomy', rank: 2})]), /lengths of their own/, /--router/],
  [
    'biases of experts',
    mixture({}, [moeLayer({expertBias: true})]),
    /experts have biases \(layer 0\)/,
    /set them to zero/,
  ],
  [
    'experts inside experts',
    mixture({}, [moeLayer({inner: {experts: 2, topK: 1, expertWidth: 4, weight: 'one'}})]),
    /experts inside/,
    /cut out of/,
  ],
  ['a top p', mixture({routing: {...SOFTMAX_ROUTING, topP: 0.5}}), /top p/, /fixed number/],
  [
    'weights that are learnt from one',
    mixture({routing: {...ONES, weight: 'one-plus-scaled'}}),
    /1 \+ u/,
    /weights of one/,
  ],
  ['a selection bias of softmax scores', mixture({}, [biased]), /selection biases/, /sigmoid/, 'qwen2_moe'],
  ['layers that differ', mixture({}, uneven), /layers have 4 to 7 experts/, /--allocate uniform/, 'qwen2_moe'],
  ['norms without weights', mixture({...olmo, routing: SHARES}), /have no weights/, /Choose dbrx\./, 'mixtral'],
  ['norms without weights that no family can hold', mixture(olmo), /have no weights/, /--dry-run/, 'mixtral'],
  ['norms with weights', mixture(), /divide by the root mean square/, /own kind/, 'dbrx'],
  ['norms without weights, softmax and a shared expert', mixture(olmo), /fits into routed ones only/, /renormalise/],
  [
    'norms without weights and biases',
    mixture({...olmo, attentionBias: 'qkvo', routing: SHARES}),
    /have biases \(qkvo\)/,
    /--dry-run/,
    'dbrx',
  ],
  [
    'norms without weights, and wide heads',
    mixture({...olmo, headDim: 8, routing: SHARES}),
    /4 heads are 8 wide, and those of the family 16\/4/,
    /--dry-run/,
    'dbrx',
  ],
  [
    'a window where the family has none',
    mixture({family: 'mistral', slidingWindow: 7}),
    /window of 7/,
    /sliding_window/,
    'qwen2_moe',
  ],
  [
    'norms after, softmax and a shared expert',
    mixture({family: 'olmo2', ...postNorm}),
    /fits into routed ones only/,
    /renormalise/,
    'flex_olmo',
  ],
  ['softmax weights as sigmoid ones', mixture(), /weighed by softmax/, /qwen2_moe/, 'glm4_moe'],
  [
    'a layer without experts after one with',
    mixture({routing: SIGMOID}, [biased, {kind: 'dense', width: 32}]),
    /layer 1 has no experts/,
    /--dry-run/,
    'glm4_moe',
  ],
  [
    'a gate where the family has none',
    mixture({routing: SHARES}, [moeLayer({sharedGate: true})]),
    /has a gate/,
    /qwen2_moe/,
    'mixtral',
  ],
  ['latent attention', mixture(), /presses keys and values/, /glm4_moe/, 'deepseek_v3'],
];

describe('exportModel', () => {
  for (const [name, architecture, becomes, to] of EXACT) {
    onEngine('wasm', `says exactly: ${name}${to ? `, as ${to}` : ''}`, async () => {
      const model = await writeMixture(scratch('source'), architecture);
      const {target, approximation, fidelity} = await exportModel({model, out: scratch('out'), to});
      expect({target, approximation}).toEqual({target: becomes, approximation: null});
      expect(fidelity.beyond).toBe(0);
      expect(fidelity.maxLogitDifference).toBeLessThan(2e-5);
      expect(fidelity.largestLogit).toBeGreaterThan(1);
      expect((await readArchitecture(scratch('out'))).family).toBe(becomes);
    });
  }

  for (const [name, architecture, becomes, to] of NEAR) {
    onEngine('wasm', `says nearly: ${name}${to ? `, as ${to}` : ''}`, async () => {
      const model = await writeMixture(scratch('source'), architecture);
      const options = {model, out: scratch('out'), to};
      await expect(exportModel(options)).rejects.toThrow(UsageError);
      expect(existsSync(scratch('out'))).toBe(false);
      const {target, approximation, fidelity, routerFactors} = await exportModel({...options, allowsApproximate: true});
      expect(target).toBe(becomes);
      expect(approximation).toMatch(/^makes routers small/);
      expect(fidelity.maxLogitDifference).toBeGreaterThan(0);
      expect(fidelity.maxLogitDifference).toBeLessThan(2e-2);
      expect(fidelity.kl).toBeLessThan(1e-5);
      expect(fidelity.sameToken).toBeGreaterThan(0.97);
      for (const factor of routerFactors ?? [2]) {
        expect(Number.isInteger(Math.log2(factor))).toBe(true);
        expect(factor).toBeLessThan(2 ** -6);
      }
    });
  }

  for (const [name, architecture, why, hint, to] of REFUSED) {
    it(`says why not: ${name}`, async () => {
      const model = await writeMixture(scratch('source'), architecture);
      const error = await exportModel({model, out: scratch('out'), to}).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(UsageError);
      expect((error as UsageError).message).toMatch(why);
      expect((error as UsageError).hint).toMatch(hint);
      expect(existsSync(scratch('out'))).toBe(false);
    });
  }

  onEngine('wasm', 'does without biases of zeros, equal selection biases and scales of zeros', async () => {
    const layers = [moeLayer({expertBias: true, selectionBias: true})];
    const model = await writeMixture(
      scratch('source'),
      mixture({routing: {...ONES, weight: 'one-plus-scaled'}}, layers),
      {
        values: ({role, shape}) => {
          if (role === 'bias') return new Float32Array(6).fill(0.25);
          return role === 'expert-bias' || role === 'scale'
            ? new Float32Array(shape.reduce((a, b) => a * b))
            : undefined;
        },
      },
    );
    const {target, fidelity} = await exportModel({model, out: scratch('out')});
    expect(target).toBe('granitemoeshared');
    expect(fidelity.maxLogitDifference).toBeLessThan(2e-5);
  });

  onEngine(
    'wasm',
    'asks whether a factor may be rounded to 16 bits, and needs not where it is a power of two',
    async () => {
      const three = mixture({routing: ONES}, [moeLayer({topK: 3})]);
      const options = {model: await writeMixture(scratch('three'), three, {dtype: 'BF16'}), out: scratch('out')};
      await expect(exportModel(options)).rejects.toThrow(/3 times as large, which BF16 rounds/);
      const rounded = await exportModel({...options, to: 'granitemoeshared', allowsApproximate: true});
      const wide = await exportModel({...options, out: scratch('wide'), dtype: 'F32'});
      expect(wide.approximation).toBeNull();
      expect(rounded.fidelity.maxLogitDifference).toBeGreaterThan(50 * wide.fidelity.maxLogitDifference);
      const two = await writeMixture(scratch('two'), mixture({routing: ONES}), {dtype: 'BF16'});
      const {approximation, fidelity} = await exportModel({model: two, out: scratch('even')});
      expect({approximation, beyond: fidelity.beyond}).toEqual({approximation: null, beyond: 0});
    },
  );

  onEngine('wasm', 'stores a model in fewer bits where that is asked for, and measures what they cost', async () => {
    const model = await writeMixture(scratch('source'), mixture());
    const {approximation, fidelity} = await exportModel({model, out: scratch('out'), dtype: 'BF16'});
    expect(approximation).toBe('rounds the numbers of its source to BF16');
    expect(fidelity.maxLogitDifference).toBeGreaterThan(1e-3);
    expect(JSON.parse(await readFile(join(scratch('out'), 'config.json'), 'utf8'))).toMatchObject({
      torch_dtype: 'bfloat16',
    });
  });

  onEngine('wasm', 'records what it did, and the same again gives the same files', async () => {
    const model = await writeMixture(scratch('source'), mixture({routing: ONES}, uneven));
    const options = {model, to: 'glm4_moe', allowsApproximate: true} as const;
    const {out, parameters, sourceParameters, ...fields} = await exportModel({...options, out: scratch('a')});
    expect(out).toBe(scratch('a'));
    await exportModel({...options, out: scratch('b')});
    const manifest = JSON.parse(await readFile(join(scratch('a'), 'export.json'), 'utf8')) as Manifest;
    expect(manifest).toMatchObject({format: 1, ...fields});
    expect(manifest.command).toBe('downcycle export source --to glm4_moe --out a --allow-approximate');
    expect(manifest.rewritings).toEqual([
      expect.stringMatching(/^makes routers small/),
      'makes layers alike, 3 of 7 experts and 1 shared, by experts that a selection bias has chosen always or never',
    ]);
    expect(manifest.routerFactors).toHaveLength(3);
    expect(parameters.total).toBeGreaterThan(sourceParameters.total);
    for (const name of ['model.safetensors', 'config.json']) {
      expect(await readFile(join(scratch('a'), name))).toEqual(await readFile(join(scratch('b'), name)));
    }
  });

  onEngine('wasm', 'writes a card that says where the model came from, with the curves of its run', async () => {
    const split = splitOptions({method: 'random', experts: 4, shared: 2, topK: 2, outputScale: 'none'});
    const run = await writeRun(scratch('runs'), 'recover', {name: 'recover', arm: 'random', numSteps: 60});
    const model = join(run, 'step-000020', 'model');
    await mkdir(join(run, 'step-000020'));
    await convert({model: TINY_LLAMA, out: model, method: split, seed: 7});
    const {target} = await exportModel({model, out: scratch('exported')});
    const card = await readFile(join(scratch('exported'), 'README.md'), 'utf8');
    expect(card).toMatch(/^---\nlibrary_name: transformers\n/);
    expect(card).toContain('# exported');
    expect(card).toContain(`transformers runs as \`${target}\``);
    expect(card).toMatch(/cut out of \*\*tiny-llama\*\* by downcycle \S+, method `random`, seed 7/);
    expect(card).toContain(`downcycle export model --to ${target} --out exported`);
    expect(card).toContain('![loss curves](losses.svg)');
    expect(card).toContain('Trained on 41.0k tokens.'); // of 123k in all
    expect(card).not.toContain(scratch('')); // no path of this machine
    expect(await readFile(join(scratch('exported'), 'losses.svg'), 'utf8')).toMatch(/^<svg.*Training loss/s);
  });

  it('says that scores in place of logits are only nearly the same, and that float16 holds no small router', async () => {
    const sigmoid = mixture({routing: {...SIGMOID, order: 'topk-then-score'}});
    const model = await writeMixture(scratch('sigmoid'), sigmoid);
    await expect(exportModel({model, out: scratch('out')})).rejects.toThrow(
      /glm4_moe: it chooses experts by scores in place/,
    );
    const ones = await writeMixture(scratch('ones'), mixture({routing: ONES}), {dtype: 'F16'});
    const half = exportModel({model: ones, out: scratch('out'), to: 'granitemoeshared'});
    await expect(half).rejects.toThrow(/smaller than float16 holds/);
  });

  onEngine('wasm', 'chooses the right one of experts whose scores would all be one', async () => {
    const architecture = mixture({family: 'qwen3', qkNorm: 'head', routing: ONES}, [moeLayer({topK: 1})]);
    const model = await writeMixture(scratch('source'), architecture, {
      values: ({path, shape}) => (path.endsWith('ffn.router') ? loud(shape) : undefined),
    });
    const {target, fidelity, routerFactors} = await exportModel({model, out: scratch('out'), to: 'glm4_moe'});
    expect({target, beyond: fidelity.beyond}).toEqual({target: 'glm4_moe', beyond: 0});
    expect(routerFactors![0]).toBeLessThan(2 ** -4);
  });

  onEngine('wasm', 'names parents without the folders that they lie in', async () => {
    const out = scratch('up');
    const method = {method: 'sparse-upcycle', experts: 3, topK: 2, renormalise: true, from: TINY_LLAMA} as const;
    await upcycle({model: TINY_LLAMA, out, method, seed: 7});
    await exportModel({model: out, out: scratch('exported')});
    for (const name of ['README.md', 'export.json']) {
      const text = await readFile(join(scratch('exported'), name), 'utf8');
      expect(text).not.toContain(dirname(TINY_LLAMA));
      expect(text).not.toContain(dirname(out));
    }
    expect(await readFile(join(scratch('exported'), 'README.md'), 'utf8')).toContain('"from":"tiny-llama"');
  });

  it('refuses a dense model, and a place that is taken', async () => {
    await expect(exportModel({model: TINY_LLAMA, out: scratch('out')})).rejects.toThrow(
      /has no experts: it is a llama/,
    );
    const model = await writeMixture(scratch('source'), mixture());
    await writeFile(scratch('taken'), 'mine');
    await expect(exportModel({model, out: scratch('taken')})).rejects.toThrow(EnvironmentError);
    expect(await readFile(scratch('taken'), 'utf8')).toBe('mine');
  });

  onEngine('wasm', 'leaves nothing behind where the text is too short', async () => {
    const model = await writeMixture(scratch('source'), mixture());
    await copyFile(
      join(TINY_LLAMA, '..', '..', 'tokenizer', 'byte-level', 'tokenizer.json'),
      join(model, 'tokenizer.json'),
    );
    await writeFile(scratch('short.txt'), 'a');
    await expect(exportModel({model, out: scratch('out'), text: scratch('short.txt')})).rejects.toThrow(DataError);
    expect(existsSync(scratch('out'))).toBe(false);
  });
});

/** A router whose logits are far above those at which float32 has sigmoids below one. */
function loud(shape: readonly number[]): Float32Array {
  const rng = createRng(1, 'loud');
  return Float32Array.from({length: shape[0]! * shape[1]!}, () => 30 * rng.normal());
}

describe('exportPlans', () => {
  it('lists every family, the best first, and why not the others', async () => {
    const model = await writeMixture(scratch('source'), mixture({routing: SHARES}));
    const plans = await exportPlans({model});
    expect(plans.map(({target, kind}) => `${target} ${kind}`)).toEqual([
      'qwen2_moe plan',
      'granitemoeshared plan',
      'mixtral plan',
      'qwen3_moe refusal',
      'olmoe refusal',
      'flex_olmo refusal',
      'dbrx refusal',
      'glm4_moe refusal',
      'deepseek_v3 refusal',
    ]);
  });
});
