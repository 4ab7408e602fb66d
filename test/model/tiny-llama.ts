// A llama small enough for the repository, with the logits that transformers gives: see fixtures/model/make_tiny_llama.py.
import {readFileSync} from 'node:fs';
import {mkdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import * as fc from 'fast-check';
import type {FloatDtype} from '../../src/format/dtype.js';
import {openModelFolder, writeModelFolder} from '../../src/format/model-folder.js';
import {openSafetensors} from '../../src/format/safetensors.js';
import {
  type Architecture,
  type Dialect,
  type Family,
  type FfnLayout,
  type InnerLayout,
  PLAIN,
} from '../../src/model/architecture.js';

export const TINY_LLAMA = fileURLToPath(new URL('../fixtures/model/tiny-llama', import.meta.url));

export interface TinyGolden {
  ids: number[];
  logits: number[][];
  splitLogits: number[][];
  splitSoftmaxLogits: number[][];
}

export const tinyGolden = JSON.parse(readFileSync(join(TINY_LLAMA, 'golden.json'), 'utf8')) as TinyGolden;
export const tinyConfig = JSON.parse(readFileSync(join(TINY_LLAMA, 'config.json'), 'utf8')) as Record<string, unknown>;

export const tinyArchitecture: Architecture = {
  family: 'llama',
  ...PLAIN,
  vocab: 32,
  width: 16,
  heads: 4,
  kvHeads: 2,
  headDim: 4,
  contextLength: 64,
  normEps: 1e-5,
  ropeTheta: 5000,
  tied: false,
  ffn: [
    {kind: 'dense', width: 24},
    {kind: 'dense', width: 24},
  ],
  routing: {score: 'softmax', order: 'score-then-topk', renormalise: false, scale: 1, weight: 'score'},
};

/** What a changed copy of the fixture has that the fixture has not. */
interface Changes {
  readonly dtype?: FloatDtype;
  readonly config?: Readonly<Record<string, unknown>>;
  readonly without?: string;
  /** A tensor of zeros. */
  readonly zeroed?: string;
  readonly extra?: readonly string[];
  readonly files?: Readonly<Record<string, string>>;
}

/** Writes the fixture with changes. */
export async function writeTinyLlama(path: string, changes: Changes = {}): Promise<string> {
  const {dtype = 'F32', config = {}, without, zeroed, extra = [], files = {}} = changes;
  const folder = await openModelFolder(TINY_LLAMA);
  const {tensors} = folder;
  const names = [...tensors.names.filter((name) => name !== without), ...extra];
  const isExtra = (name: string): boolean => extra.includes(name);
  await writeModelFolder(path, {
    config: {...tinyConfig, ...config},
    entries: names.map((name) => ({name, dtype, shape: isExtra(name) ? [1] : tensors.info(name).shape})),
    read: async (name) => {
      if (isExtra(name)) return new Float32Array(1);
      const values = await tensors.read(name);
      return name === zeroed ? values.fill(0) : values;
    },
  });
  await folder.close();
  for (const [name, text] of Object.entries(files)) await writeFile(join(path, name), text);
  return path;
}

/** The integers of an I32 tensor. */
export async function readIds(path: string, name: string): Promise<number[]> {
  const file = await openSafetensors(path);
  const {buffer} = await file.readBytes(name);
  await file.close();
  return [...new Int32Array(buffer)];
}

/** An empty folder with a tokenizer. */
export async function writeTokenizer(path: string): Promise<string> {
  await mkdir(path);
  await writeFile(join(path, 'tokenizer.json'), '{"model": "é"}');
  await writeFile(join(path, 'tokenizer_config.json'), '{}');
  return path;
}

const inner: fc.Arbitrary<InnerLayout> = fc
  .record({
    experts: fc.integer({min: 1, max: 3}),
    expertWidth: fc.integer({min: 1, max: 3}),
    weight: fc.constantFrom('score', 'one'),
    less: fc.nat(2),
  })
  .map(({less, ...rest}) => ({...rest, topK: Math.max(1, rest.experts - less)}));

const layout: fc.Arbitrary<FfnLayout> = fc.oneof(
  fc.record({kind: fc.constant('dense' as const), width: fc.integer({min: 1, max: 9})}),
  fc
    .record({
      kind: fc.constant('moe' as const),
      experts: fc.integer({min: 1, max: 4}),
      expertWidth: fc.integer({min: 1, max: 5}),
      sharedWidth: fc.integer({min: 0, max: 4}),
      selectionBias: fc.boolean(),
      router: fc.oneof(
        fc.record({router: fc.constantFrom('linear', 'representative', 'mlp')}),
        fc.record({router: fc.constant('cosine' as const), temperature: fc.constantFrom(0.07, 1)}),
        fc.record({router: fc.constant('autonomy' as const), rank: fc.integer({min: 1, max: 3})}),
      ),
      isBiased: fc.boolean(),
      isGated: fc.boolean(),
      less: fc.nat(3),
      inner: fc.option(inner, {nil: null}),
    })
    .map(({less, isBiased, isGated, inner: inside, router, ...rest}) => ({
      ...rest,
      ...router,
      topK: Math.max(1, rest.experts - less),
      ...(isBiased && {expertBias: true as const}),
      ...(isGated && rest.sharedWidth > 0 && {sharedGate: true as const}),
      ...(inside && {inner: inside}),
    })),
);

const window = fc.option(fc.integer({min: 1, max: 9000}), {nil: null});
const factor = fc.constantFrom(1, 0.22, 12, 0.015625);
const multipliers = fc.record({embedding: factor, attention: factor, residual: factor, logitsDivisor: factor});
const bias = {attentionBias: fc.constantFrom('none' as const, 'qkvo' as const)};

/** What the configs of each family can say beyond the words of all. */
const DIALECTS: Readonly<Record<Family, fc.Arbitrary<Partial<Architecture>>>> = {
  llama: fc.record(bias),
  mistral: fc.record({slidingWindow: window}),
  qwen2: fc.constant({attentionBias: 'qkv' as const}),
  qwen3: fc.record({...bias, qkNorm: fc.constant('head' as const)}),
  olmo: fc.record({
    ...bias,
    norm: fc.constant<Dialect['norm']>({kind: 'layer', placement: 'before'}),
    normEps: fc.constant(1e-5),
    qkvClip: fc.option(fc.constantFrom(8, 0.5), {nil: null}),
  }),
  olmo2: fc.record({
    ...bias,
    norm: fc.constant<Dialect['norm']>({kind: 'rms', placement: 'after'}),
    qkNorm: fc.constant('width' as const),
  }),
  granite: fc.record({...bias, multipliers}),
  mixtral: fc.record({slidingWindow: window}),
  qwen2_moe: fc.record({attentionBias: fc.constantFrom('none' as const, 'qkv' as const)}),
  qwen3_moe: fc.record({...bias, qkNorm: fc.constant('head' as const)}),
  olmoe: fc.record({...bias, qkNorm: fc.constant('width' as const)}),
  flex_olmo: fc.record({
    ...bias,
    norm: fc.constant<Dialect['norm']>({kind: 'rms', placement: 'after'}),
    qkNorm: fc.constant('width' as const),
  }),
  glm4_moe: fc.record({
    attentionBias: fc.constantFrom('none' as const, 'qkv' as const),
    qkNorm: fc.constantFrom('none' as const, 'head' as const),
  }),
  granitemoeshared: fc.record({...bias, multipliers}),
  dbrx: fc.record({
    norm: fc.constant<Dialect['norm']>({kind: 'layer', placement: 'before'}),
    normEps: fc.constant(1e-5),
    qkvClip: fc.option(fc.constantFrom(8, 0.5), {nil: null}),
    tied: fc.constant(false),
    heads: fc.constant(4),
    kvHeads: fc.constantFrom(1, 2, 4),
    headDim: fc.constant(2),
    width: fc.constant(8),
  }),
};

const plainArchitecture: fc.Arbitrary<Architecture> = fc
  .record({
    vocab: fc.integer({min: 1, max: 40}),
    width: fc.integer({min: 1, max: 12}),
    kvHeads: fc.integer({min: 1, max: 3}),
    group: fc.integer({min: 1, max: 3}),
    headDim: fc.constantFrom(2, 4, 6),
    contextLength: fc.integer({min: 1, max: 4096}),
    normEps: fc.constantFrom(1e-5, 1e-6),
    ropeTheta: fc.constantFrom(1e4, 5e5, 123.5),
    tied: fc.boolean(),
    ffn: fc.array(layout, {minLength: 1, maxLength: 3}),
    routing: fc.record({
      score: fc.constantFrom('softmax' as const, 'sigmoid' as const),
      order: fc.constantFrom('score-then-topk' as const, 'topk-then-score' as const),
      renormalise: fc.boolean(),
      scale: fc.constantFrom(1, 2.5),
      weight: fc.constantFrom('score' as const, 'one' as const, 'one-plus-scaled' as const),
    }),
  })
  .map(({group, ...rest}) => ({family: 'llama', ...PLAIN, ...rest, heads: rest.kvHeads * group}));

/** Small architectures of every shape a config of a family can say. */
export function architecturesOf(family: Family): fc.Arbitrary<Architecture> {
  return fc
    .tuple(plainArchitecture, DIALECTS[family])
    .map(([architecture, dialect]) => ({...architecture, family, ...dialect}));
}

/** Small architectures of every shape a config can say. */
export const anyArchitecture: fc.Arbitrary<Architecture> = fc
  .constantFrom(...(Object.keys(DIALECTS) as Family[]))
  .chain(architecturesOf);
