// Small random models in which every tensor matters.
import type {Architecture, FfnLayout} from '../../src/model/architecture.js';
import {PLAIN, SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {createRng} from '../../src/util/rng.js';
import {floats, type Host, integers, normals} from '../support/host.js';
import {type HostModel, specsOf} from './run-model.js';

export const VOCAB = 23;

/** Sixteen experts, two of them used, and a shared one. */
export const MOE = {
  kind: 'moe',
  experts: 16,
  topK: 2,
  expertWidth: 5,
  sharedWidth: 6,
  selectionBias: false,
  router: 'linear',
} as const satisfies FfnLayout;
/** Four experts, each with four inside, two of them used. */
export const NESTED = {
  ...MOE,
  experts: 4,
  expertWidth: 3,
  inner: {experts: 4, topK: 2, expertWidth: 3, weight: 'score'},
} as const satisfies FfnLayout;
export const DENSE = {kind: 'dense', width: 20} as const satisfies FfnLayout;

/** Draws a model whose experts each get less than two fifths of the tokens, so that laws can gather them. */
const EVEN_SEED = 20;

/** Width 12, three heads a key-value head; two layers, the first dense, unless said otherwise. */
export function randomModel(changes: Partial<Architecture> = {}, seed = EVEN_SEED): HostModel {
  const architecture: Architecture = {
    family: 'llama',
    ...PLAIN,
    vocab: VOCAB,
    width: 12,
    heads: 6,
    kvHeads: 2,
    headDim: 4,
    contextLength: 64,
    normEps: 1e-5,
    ropeTheta: 100,
    tied: false,
    ffn: [DENSE, MOE],
    routing: SOFTMAX_ROUTING,
    ...changes,
  };
  const weights = Object.fromEntries(specsOf(architecture).map((spec) => [spec.path, randomLeaf(spec, seed)]));
  return {architecture, weights};
}

/** Norms around 1, matrices normal over the root of their input, everything else of the size of 1. */
function randomLeaf({path, shape, role}: ReturnType<typeof specsOf>[number], seed: number): Host {
  const {values} = normals(shape, seed + createRng(seed, path).int(2 ** 20));
  if (role === 'norm')
    return floats(
      shape,
      values.map((x) => 1 + 0.2 * x),
    );
  const isBias = role === 'bias' || role === 'attention-bias' || role === 'expert-bias';
  const inputs = role === 'embedding' || role === 'scale' ? 1 : isBias ? 25 : shape.at(-2)!;
  return floats(
    shape,
    values.map((x) => (x * (path.endsWith('.router') ? 2 : 1)) / Math.sqrt(inputs)),
  );
}

export function randomTokens(rows: number, length: number, seed = 7): Host {
  return integers([rows, length], VOCAB, seed);
}

/** The rows of a [B, S] tensor. */
export function rowsOf({shape: [, S = 0], values}: Host): number[][] {
  return Array.from({length: values.length / S}, (_, b) => Array.from(values.subarray(b * S, (b + 1) * S)));
}
