// Mixtures of every kind, and the families that they are exported to.
import type {TargetName} from '../../src/export/names.js';
import {type Architecture, type Multipliers, PLAIN, SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {mixture, moeLayer} from './random-mixture.js';

export const SHARES = {...SOFTMAX_ROUTING, renormalise: true};
export const ONES = {...SOFTMAX_ROUTING, weight: 'one'} as const;
export const SIGMOID = {...SOFTMAX_ROUTING, score: 'sigmoid'} as const;
const bare = moeLayer({sharedWidth: 0});
export const biased = moeLayer({selectionBias: true});
const bareLayers = [bare, bare];
export const uneven = [
  moeLayer({sharedWidth: 24, experts: 5, topK: 1}),
  moeLayer({sharedWidth: 8, experts: 7, topK: 3}),
  moeLayer({sharedWidth: 8, experts: 4, topK: 1}),
];
const multipliers: Multipliers = {embedding: 3, attention: 0.3, residual: 0.4, logitsDivisor: 2};
export const postNorm = {norm: {kind: 'rms', placement: 'after'}, qkNorm: 'width'} as const;

export const olmo = {family: 'olmo', norm: {kind: 'layer', placement: 'before'}} as const;

/** What is exported, which family it must become, and what was asked for: auto unless said. */
export type ExportCase = readonly [name: string, architecture: Architecture, becomes: TargetName, to?: TargetName];

/** Those that compute the same. */
export const EXACT: readonly ExportCase[] = [
  ['softmax weights and a shared expert', mixture(), 'qwen2_moe'],
  ['softmax weights times a factor', mixture({routing: {...SOFTMAX_ROUTING, scale: 2.5}}), 'qwen2_moe'],
  ['biases of queries, keys and values', mixture({family: 'qwen2', attentionBias: 'qkv'}), 'qwen2_moe'],
  ['no shared expert, where the family has one', mixture({}, bareLayers), 'qwen2_moe'],
  [
    'layers without experts',
    mixture({}, [{kind: 'dense', width: 32}, moeLayer(), {kind: 'dense', width: 24}]),
    'qwen2_moe',
  ],
  [
    'experts and shared ones of several widths',
    mixture({}, [moeLayer(), moeLayer({expertWidth: 5, sharedWidth: 11})]),
    'qwen2_moe',
  ],
  ['gates of shared experts', mixture({}, [moeLayer({sharedGate: true}), moeLayer()]), 'qwen2_moe'],
  ['weights that sum to one', mixture({routing: SHARES}, bareLayers), 'mixtral'],
  [
    'the same in other words',
    mixture({routing: {...SOFTMAX_ROUTING, order: 'topk-then-score'}}, bareLayers),
    'mixtral',
  ],
  ['a window', mixture({family: 'mistral', slidingWindow: 7, routing: SHARES}, bareLayers), 'mixtral'],
  ['one expert of weight one', mixture({routing: ONES}, [moeLayer({topK: 1, sharedWidth: 0})]), 'mixtral'],
  [
    'a tied embedding, heads of another width, positions that are scaled',
    mixture({
      ...{tied: true, headDim: 8, ropeTheta: 1e4},
      ropeScaling: {kind: 'llama3', factor: 8, lowTurns: 1, highTurns: 4, firstContext: 16},
    }),
    'qwen2_moe',
  ],
  [
    'factors that are what they are anyway',
    mixture({family: 'granite', multipliers: {...PLAIN.multipliers, attention: 0.5}}),
    'qwen2_moe',
  ],
  ['biases of some routers', mixture({routing: SIGMOID}, [biased, moeLayer()]), 'glm4_moe'],
  [
    'one expert of weight one beside norms of heads',
    mixture({family: 'qwen3', qkNorm: 'head', routing: ONES}, [moeLayer({topK: 1})]),
    'glm4_moe',
  ],
  ['weights that sum to one beside a shared expert', mixture({routing: SHARES}), 'qwen2_moe'],
  ['a shared expert in every routed one', mixture({routing: SHARES}), 'mixtral', 'mixtral'],
  ['weights of one', mixture({routing: ONES}), 'granitemoeshared'],
  ['weights of one times a factor', mixture({routing: {...ONES, scale: 0.5}}), 'granitemoeshared'],
  ['factors of granite', mixture({family: 'granite', multipliers, routing: SHARES}), 'granitemoeshared'],
  ['norms of heads', mixture({family: 'qwen3', qkNorm: 'head'}, bareLayers), 'qwen3_moe'],
  ['norms of heads, and a shared expert', mixture({family: 'qwen3', qkNorm: 'head', routing: SHARES}), 'qwen3_moe'],
  ['norms after', mixture({family: 'olmo2', ...postNorm, routing: SHARES}), 'flex_olmo'],
  ['norms without weights', mixture({...olmo, routing: SHARES}, bareLayers), 'dbrx'],
  [
    'norms without weights, a clip, and as many keys as queries',
    mixture({...olmo, qkvClip: 0.7, kvHeads: 4}, bareLayers),
    'dbrx',
  ],
  [
    'norms without weights, a shared expert, a tied embedding, positions that are scaled',
    mixture({
      ...{...olmo, tied: true, kvHeads: 1, routing: {...SHARES, scale: 2}},
      ropeScaling: {kind: 'linear', factor: 2.5},
    }),
    'dbrx',
  ],
  ['norms of all heads', mixture({family: 'olmoe', qkNorm: 'width'}, bareLayers), 'olmoe'],
  ['sigmoid scores and a selection bias', mixture({routing: {...SIGMOID, scale: 1.5}}, [biased, biased]), 'glm4_moe'],
  [
    'sigmoid scores that sum to one',
    mixture({family: 'qwen3', qkNorm: 'head', routing: {...SIGMOID, renormalise: true}}),
    'glm4_moe',
  ],
  [
    'sigmoid scores in layers that differ',
    mixture(
      {routing: {...SIGMOID, scale: 2}},
      uneven.map((layer) => ({...layer, selectionBias: true})),
    ),
    'glm4_moe',
  ],
];

/** Those whose weights come out of a router made small. */
export const NEAR: readonly ExportCase[] = [
  ['weights of one in layers that differ', mixture({routing: ONES}, uneven), 'glm4_moe'],
  [
    'one expert of weight one by logits with biases',
    mixture({routing: {...ONES, order: 'topk-then-score'}}, [moeLayer({topK: 1, selectionBias: true})]),
    'glm4_moe',
  ],
  [
    'one expert of weight one in layers that differ',
    mixture({routing: ONES}, [moeLayer({topK: 1}), moeLayer({topK: 1, experts: 4})]),
    'glm4_moe',
  ],
  [
    'weights of one by logits with biases, in layers that differ',
    mixture(
      {routing: {...ONES, order: 'topk-then-score'}},
      uneven.map((layer) => ({...layer, selectionBias: true})),
    ),
    'glm4_moe',
  ],
  ['weights of one by sigmoid scores', mixture({routing: ONES}), 'glm4_moe', 'glm4_moe'],
  ['weights of one behind a gate', mixture({routing: ONES}), 'qwen2_moe', 'qwen2_moe'],
  ['weights of one beside norms of heads', mixture({family: 'qwen3', qkNorm: 'head', routing: ONES}), 'glm4_moe'],
  [
    'weights of one, a shared expert in every routed one',
    mixture({family: 'olmo2', ...postNorm, routing: ONES}),
    'flex_olmo',
  ],
  ['weights of one beside norms without weights', mixture({...olmo, routing: ONES}), 'dbrx'],
];
