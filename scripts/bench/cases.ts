import {adapterShapes} from '../../src/model/adapter.js';
import {type Architecture, type FfnLayout, PLAIN, SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {leavesOf, type ParameterSpec, parameterSpecs} from '../../src/model/parameters.js';
import {type FinetuneOptions, selectParameters} from '../../src/train/finetune.js';
import {isMatrix} from '../../src/train/part.js';
import {createRng} from '../../src/util/rng.js';
import type {ParameterSetup, Setup} from './protocol.js';

/** What the feed-forward part is made of. */
export type Kind = 'dense' | 'moe';

/** What trains: all weights, low-rank terms as in CMoE's recovery, or routers. */
export type Finetune = keyof typeof FINETUNES;

const FINETUNES = {
  full: () => ({kind: 'full'}),
  lora: (kind) => ({
    ...{kind: 'lora', rank: 8, alpha: 32, dropout: 0, train: [], merge: true},
    targets: ['attention', kind === 'moe' ? 'experts' : 'ffn'],
  }),
  routers: () => ({kind: 'parts', train: ['routers']}),
} as const satisfies Record<string, (kind: Kind) => FinetuneOptions>;

/** A model shape and a batch shape to time. */
export interface Case {
  readonly name: string;
  readonly title: string;
  readonly shape: Shape;
  readonly batch: number;
  readonly sequence: number;
  /** Steps a side takes a turn unless told otherwise: about two seconds. */
  readonly steps: number;
}

/** Where both sides compute, and how precisely. */
export type Place = Pick<Setup, 'threads' | 'device' | 'precision'>;

interface Shape {
  readonly vocab: number;
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly ffn: number;
  readonly experts: number;
  readonly ropeTheta: number;
}

const TOP_K = 2;
const NUM_BATCHES = 4;
/** As in src/model/init.ts, which draws our side's weights. */
const STD = 0.02;

const SMOLLM2: Shape = {
  vocab: 49152,
  layers: 30,
  width: 576,
  heads: 9,
  kvHeads: 3,
  ffn: 1536,
  experts: 8,
  ropeTheta: 1e5,
};

/** The measured cases. */
export const CASES = {
  a: {
    name: 'a',
    title: 'width 256, 4 layers, FFN 1024, vocabulary 4096, 4 heads; batch 8 x 128',
    shape: {vocab: 4096, layers: 4, width: 256, heads: 4, kvHeads: 4, ffn: 1024, experts: 8, ropeTheta: 1e4},
    batch: 8,
    sequence: 128,
    steps: 6,
  },
  b: {
    name: 'b',
    title: 'SmolLM2-135M: width 576, 30 layers, FFN 1536, vocabulary 49152, 9 heads on 3; batch 2 x 256',
    shape: SMOLLM2,
    batch: 2,
    sequence: 256,
    steps: 1,
  },
  c: {
    name: 'c',
    title: 'as b, for a GPU; batch 16 x 512',
    shape: SMOLLM2,
    batch: 16,
    sequence: 512,
    steps: 10,
  },
} as const satisfies Record<string, Case>;

/** A model small enough to send its weights, for the proof that both sides train the same way. */
export const TINY: Case = {
  name: 'tiny',
  title: 'width 32, 2 layers; batch 2 x 16',
  shape: {vocab: 97, layers: 2, width: 32, heads: 4, kvHeads: 2, ffn: 64, experts: 4, ropeTheta: 1e4},
  batch: 2,
  sequence: 16,
  steps: 6,
};

/** The model of a case; experts of width FFN / E, top-2, tied embeddings. */
export function architectureOf({shape, sequence}: Case, kind: Kind): Architecture {
  const {vocab, layers, width, heads, kvHeads, ropeTheta} = shape;
  return {
    family: 'llama',
    ...PLAIN,
    ...{vocab, width, heads, kvHeads, ropeTheta, headDim: width / heads, contextLength: sequence},
    normEps: 1e-5,
    tied: true,
    ffn: Array.from({length: layers}, () => layoutOf(shape, kind)),
    routing: SOFTMAX_ROUTING,
  };
}

function layoutOf({ffn, experts}: Shape, kind: Kind): FfnLayout {
  if (kind === 'dense') return {kind, width: ffn};
  return {
    kind,
    experts,
    topK: TOP_K,
    expertWidth: ffn / experts,
    sharedWidth: 0,
    selectionBias: false,
    router: 'linear',
  };
}

/** Whether a model of a kind has what would train. */
export function trains(kind: Kind, finetune: Finetune): boolean {
  return kind === 'moe' || finetune !== 'routers';
}

/** What both sides are told: model, AdamW without clipping, the same random tokens. */
export function setupOf(one: Case, kind: Kind, finetune: Finetune, place: Place): Setup {
  const architecture = architectureOf(one, kind);
  const options: FinetuneOptions = FINETUNES[finetune](kind);
  const {whole, adapted} = selectParameters(architecture, options);
  const own = leavesOf(parameterSpecs(architecture)).map((spec) => parameterSetup(spec, one.shape.layers));
  const factors = options.kind === 'lora' ? adapted.flatMap((spec) => factorSetups(spec, options.rank)) : [];
  return {
    architecture,
    parameters: [...own, ...factors],
    finetune: options,
    trained: whole.map(({path}) => path),
    adapted: adapted.map(({path}) => path),
    scale: options.kind === 'lora' ? options.alpha / options.rank : 0,
    weights: null,
    seed: 1,
    batch: one.batch,
    sequence: one.sequence,
    batches: randomBatches(one),
    learningRate: 1e-5, // small, so that routing stays about as even as fresh routers make it
    balanceWeight: 0.01,
    kind: 'adamw',
    betas: [0.9, 0.95],
    eps: 1e-8,
    weightDecay: 0.1,
    ...place,
    capacity: null,
    compile: false,
  };
}

/** A setup of {@link TINY} with its weights, and rates that make six steps move them far. */
export function tinySetup(kind: Kind, finetune: Finetune, place: Place): Setup {
  // At 0.02 weights that differ by 1e-7 part PyTorch's own losses of low-rank terms by 3e-4 in six steps; here by 1e-5.
  const setup = {...setupOf(TINY, kind, finetune, place), learningRate: 0.005, balanceWeight: 0.1};
  return {...setup, weights: Object.fromEntries(setup.parameters.map((spec) => [spec.path, randomWeights(spec)]))};
}

function parameterSetup({path, shape, role, isOutput}: ParameterSpec, layers: number): ParameterSetup {
  const std = isOutput ? STD / Math.sqrt(2 * layers) : STD;
  return {path, shape, std: role === 'norm' ? null : std, decays: isMatrix({role})};
}

/** The factors of a low-rank term: the first as wide as fresh weights, the second nothing. */
function factorSetups(spec: ParameterSpec, rank: number): ParameterSetup[] {
  const {a, b} = adapterShapes(spec, rank);
  return [
    {path: `${spec.path}.a`, shape: a, std: STD, decays: true},
    {path: `${spec.path}.b`, shape: b, std: 0, decays: true},
  ];
}

function randomBatches({shape, batch, sequence}: Case): number[][] {
  const rng = createRng(1, 'bench/tokens');
  const one = (): number[] => Array.from({length: batch * (sequence + 1)}, () => rng.int(shape.vocab));
  return Array.from({length: NUM_BATCHES}, one);
}

/** Larger than fresh weights, so that routing and attention are far from even. */
function randomWeights({path, shape, std}: ParameterSetup): number[] {
  const rng = createRng(1, `bench/${path}`);
  const size = shape.reduce((product, axis) => product * axis, 1);
  return Array.from({length: size}, () => Math.fround(std === null ? 1 + 0.1 * rng.normal() : 0.2 * rng.normal()));
}
