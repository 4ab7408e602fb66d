// What the config of each family says, and what is refused.
import {readFileSync} from 'node:fs';
import {describe, expect, it} from 'vitest';
import {
  type Architecture,
  type Dialect,
  type Family,
  type MixtureFamily,
  PLAIN,
  SOFTMAX_ROUTING,
} from '../../src/model/architecture.js';
import {architectureFromConfig, architectureToConfig} from '../../src/model/config.js';
import {FAMILIES} from '../../src/model/family/registry.js';
import {ModelError} from '../../src/util/errors.js';

type Config = Readonly<Record<string, unknown>>;

const FILE = 'model/config.json';
const read = (config: Config): Architecture => architectureFromConfig(config, FILE);

function configOf(family: Family): Config {
  const path = new URL(`../fixtures/family/${family}/config.json`, import.meta.url);
  return JSON.parse(readFileSync(path, 'utf8')) as Config;
}

function without(config: Config, ...keys: string[]): Config {
  return Object.fromEntries(Object.entries(config).filter(([key]) => !keys.includes(key)));
}

/** The words of each fixture that differ from a Llama's. */
const WORDS: Readonly<Record<Family, Partial<Dialect>>> = {
  llama: {
    attentionBias: 'qkvo',
    ropeScaling: {kind: 'llama3', factor: 8, lowTurns: 1, highTurns: 4, firstContext: 16},
  },
  mistral: {slidingWindow: 5},
  qwen2: {
    attentionBias: 'qkv',
    ropeScaling: {
      kind: 'yarn',
      factor: 4,
      slowTurns: 1,
      fastTurns: 2,
      firstContext: 16,
      amplitude: 0.1 * Math.log(4) + 1,
      truncate: true,
    },
  },
  qwen3: {qkNorm: 'head'},
  olmo: {norm: {kind: 'layer', placement: 'before'}, qkvClip: 1.5},
  olmo2: {norm: {kind: 'rms', placement: 'after'}, qkNorm: 'width'},
  granite: {
    multipliers: {embedding: 3, attention: 0.3, residual: 0.4, logitsDivisor: 3},
    ropeScaling: {kind: 'linear', factor: 2.5},
  },
  mixtral: {slidingWindow: 5},
  qwen3_moe: {qkNorm: 'head'},
  olmoe: {qkNorm: 'width'},
  flex_olmo: {norm: {kind: 'rms', placement: 'after'}, qkNorm: 'width'},
  glm4_moe: {attentionBias: 'qkv', qkNorm: 'head'},
  qwen2_moe: {attentionBias: 'qkv'},
  granitemoeshared: {
    attentionBias: 'qkvo',
    multipliers: {embedding: 3, attention: 0.3, residual: 0.4, logitsDivisor: 3},
  },
  dbrx: {norm: {kind: 'layer', placement: 'before'}, qkvClip: 1.5},
};

const expert = {
  kind: 'moe',
  experts: 4,
  topK: 2,
  expertWidth: 12,
  sharedWidth: 0,
  selectionBias: false,
  router: 'linear',
} as const;
const dense = {kind: 'dense', width: 48} as const;
const gated = {...expert, sharedWidth: 20, sharedGate: true} as const;
const granite = {...expert, expertWidth: 16, sharedWidth: 20} as const;

/** The layers and the routing of each fixture of a mixture. */
const MIXTURES: Readonly<Record<MixtureFamily, Pick<Architecture, 'ffn' | 'routing'>>> = {
  mixtral: {ffn: [expert, expert], routing: {...SOFTMAX_ROUTING, renormalise: true}},
  qwen3_moe: {ffn: [expert, dense, expert], routing: SOFTMAX_ROUTING},
  olmoe: {
    ffn: [
      {...expert, topK: 3},
      {...expert, topK: 3},
    ],
    routing: {...SOFTMAX_ROUTING, renormalise: true},
  },
  flex_olmo: {ffn: [expert, expert], routing: SOFTMAX_ROUTING},
  glm4_moe: {
    ffn: [dense, {...expert, sharedWidth: 24, selectionBias: true}],
    routing: {...SOFTMAX_ROUTING, score: 'sigmoid', renormalise: true, scale: 1.5},
  },
  qwen2_moe: {ffn: [dense, gated], routing: {...SOFTMAX_ROUTING, renormalise: true}},
  granitemoeshared: {ffn: [granite, granite], routing: {...SOFTMAX_ROUTING, order: 'topk-then-score'}},
  dbrx: {ffn: [expert, expert], routing: {...SOFTMAX_ROUTING, renormalise: true}},
};

it.each(Object.entries(MIXTURES))(
  'a config of %s says which layers have experts, and how they are chosen',
  (family, said) => {
    expect(read(configOf(family as MixtureFamily))).toMatchObject(said);
  },
);

it.each<[MixtureFamily, string, Partial<Architecture>]>([
  ['qwen2_moe', 'a shared expert without a gate', {ffn: [{...expert, sharedWidth: 20}, dense]}],
  ['qwen2_moe', 'a selection bias', {ffn: [dense, {...gated, selectionBias: true}]}],
  ['qwen2_moe', 'softmax over the chosen', {routing: {...SOFTMAX_ROUTING, order: 'topk-then-score'}}],
  ['qwen3_moe', 'a shared expert with a gate', {ffn: [gated, gated, gated]}],
  ['glm4_moe', 'a gate', {ffn: [dense, {...expert, sharedWidth: 24, sharedGate: true, selectionBias: true}]}],
  ['granitemoeshared', 'a gate', {ffn: [gated, gated]}],
  ['granitemoeshared', 'a dense layer', {ffn: [dense, granite]}],
  ['granitemoeshared', 'softmax over all', {routing: SOFTMAX_ROUTING}],
  ['dbrx', 'a shared expert', {ffn: [granite, granite]}],
  ['dbrx', 'a factor on weights', {routing: {...SOFTMAX_ROUTING, scale: 2}}],
])('a config of %s does not say %s, that of our own mixtures does', (family, _, change) => {
  const architecture = {...read(configOf(family)), ...change};
  const written = architectureToConfig(architecture, configOf(family));
  expect(written).toMatchObject({model_type: 'downcycle_moe', moe: {source_model_type: family}});
  expect(read(JSON.parse(JSON.stringify(written)) as Config)).toEqual(architecture);
});

it('a config of dbrx says the base of rotations where transformers 4 reads it, too', () => {
  const {rope_parameters, attn_config, ...rest} = configOf('dbrx');
  expect(attn_config).toMatchObject({rope_theta: 5000});
  expect(read({...rest, attn_config}).ropeTheta).toBe(5000);
  expect(read({...rest, rope_parameters}).ropeTheta).toBe(5000);
  const {ropeTheta, ...architecture} = read(configOf('dbrx'));
  const written = architectureToConfig({...architecture, ropeTheta: 7 * ropeTheta});
  expect(written).toMatchObject({rope_theta: 35_000, attn_config: {rope_theta: 35_000}});
});

it('a config of qwen2_moe has experts in every second layer where it says so', () => {
  const config = {...configOf('qwen2_moe'), num_hidden_layers: 4, decoder_sparse_step: 2, mlp_only_layers: [3]};
  expect(read(config).ffn).toEqual([dense, gated, dense, dense]);
});

describe.each(Object.keys(FAMILIES) as Family[])('a config of %s', (family) => {
  const config = configOf(family);

  it('speaks the words of its family', () => {
    expect(read(config)).toMatchObject({...PLAIN, ...WORDS[family], family});
  });

  it('is written as it was read, also in the keys of transformers 4', () => {
    const heads = family === 'dbrx' ? {} : {head_dim: read(config).headDim}; // which have no width of their own there
    expect(architectureToConfig(read(config), config)).toEqual({...config, ...heads});
    const {rope_theta, ...scaling} = config.rope_parameters as Config;
    const rotation = family === 'glm4_moe' ? {partial_rotary_factor: 1} : {};
    const old = {...without(config, 'rope_parameters'), rope_theta, rope_scaling: scaling, ...rotation};
    expect(read(old)).toEqual(read(config));
    expect(architectureToConfig(read(old), old)).toEqual({...old, ...heads});
  });

  it('says how rotations are slowed down where no config said it before', () => {
    const architecture = read(config);
    const {rope_parameters, rope_scaling, ...rest} = architectureToConfig(architecture) as Config;
    expect(rope_parameters).toBeUndefined();
    expect(rope_scaling === undefined).toBe(architecture.ropeScaling === undefined);
    expect(read({...rest, rope_scaling})).toStrictEqual(architecture);
  });

  it('keeps its words as a mixture of experts', () => {
    const mixture = {...read(config), ffn: [expert, {...expert, topK: 1}]};
    const written = architectureToConfig(mixture, config);
    expect(written).toMatchObject({model_type: 'downcycle_moe', moe: {source_model_type: family}});
    expect(read(JSON.parse(JSON.stringify(written)) as Config)).toEqual(mixture);
  });
});

describe('defaults of transformers', () => {
  it.each<[Family, string, Partial<Architecture>]>([
    ['llama', 'attention_bias', {attentionBias: 'none'}],
    ['mistral', 'sliding_window', {slidingWindow: 4096}],
    ['mistral', 'max_position_embeddings', {contextLength: 131_072}],
    ['qwen2', 'max_position_embeddings', {contextLength: 32_768}],
    ['qwen3', 'head_dim', {headDim: 128}],
    ['olmo', 'clip_qkv', {qkvClip: null}],
    ['olmo2', 'rms_norm_eps', {normEps: 1e-5}],
    ['granite', 'attention_multiplier', {multipliers: {embedding: 3, attention: 1, residual: 0.4, logitsDivisor: 3}}],
    ['granite', 'logits_scaling', {multipliers: {embedding: 3, attention: 0.3, residual: 0.4, logitsDivisor: 1}}],
    ['mixtral', 'sliding_window', {slidingWindow: null}],
    ['mixtral', 'rope_parameters', {ropeTheta: 1e6}],
    ['flex_olmo', 'rope_parameters', {ropeTheta: 5e5}],
    ['glm4_moe', 'use_qk_norm', {qkNorm: 'none'}],
    ['qwen2_moe', 'qkv_bias', {attentionBias: 'qkv'}],
    ['qwen2_moe', 'norm_topk_prob', {routing: SOFTMAX_ROUTING}],
    [
      'granitemoeshared',
      'shared_intermediate_size',
      {
        ffn: [
          {...granite, sharedWidth: 0},
          {...granite, sharedWidth: 0},
        ],
      },
    ],
    ['dbrx', 'attn_config', {kvHeads: 1, qkvClip: null}],
    ['dbrx', 'ffn_config', {ffn: Array(2).fill({...expert, expertWidth: 3584, topK: 1})}],
    ['dbrx', 'max_seq_len', {contextLength: 2048}],
  ])('stand in for a missing key: %s, %s', (family, key, changed) => {
    const config = configOf(family);
    expect(read(without(config, key))).toEqual({...read(config), ...changed});
  });

  it('are not taken for a window of null, which is none', () => {
    expect(read({...configOf('mistral'), sliding_window: null}).slidingWindow).toBeNull();
  });

  it('are not taken for expert weights of dbrx that are null, which are softmax as it is', () => {
    const {moe_normalize_expert_weights, ...ffn_config} = configOf('dbrx').ffn_config as Config;
    expect(moe_normalize_expert_weights).toBe(1);
    const said = (change: Config) => read({...configOf('dbrx'), ffn_config: {...ffn_config, ...change}});
    expect(said({}).routing).toEqual({...SOFTMAX_ROUTING, renormalise: true});
    expect(said({moe_normalize_expert_weights: null}).routing).toEqual(SOFTMAX_ROUTING);
    const written = architectureToConfig(said({moe_normalize_expert_weights: null}));
    expect(written.ffn_config).toMatchObject({moe_normalize_expert_weights: null});
  });

  it('know no key for the epsilon of layer norms', () => {
    expect(read({...configOf('olmo'), rms_norm_eps: 1e-3}).normEps).toBe(1e-5);
  });
});

describe('what is not computed', () => {
  const layers = ['full_attention', 'sliding_attention'];

  it.each<[Family, Config, string]>([
    ['llama', {mlp_bias: true}, 'mlp_bias is true: a bias of the feed-forward part is not supported, only false.'],
    ['granite', {mlp_bias: true}, 'mlp_bias is true: a bias of the feed-forward part is not supported, only false.'],
    ['mistral', {sliding_window: 0}, 'sliding_window is 0: a whole number above 0 is needed.'],
    [
      'qwen2',
      {use_sliding_window: true},
      'use_sliding_window is true: only false is supported, since windows differ by layer.',
    ],
    [
      'qwen3',
      {layer_types: layers},
      'layer_types.1 is "sliding_attention": only "full_attention" is supported, since windows differ by layer.',
    ],
    ['qwen3', {head_dim: 7}, 'head_dim is 7: positions need an even number.'],
    ['olmo', {clip_qkv: -1}, 'clip_qkv is -1: a number above 0 is needed.'],
    ['granite', {logits_scaling: 0}, 'logits_scaling is 0: a number above 0 is needed.'],
    [
      'mixtral',
      {num_experts_per_tok: 5},
      'num_experts_per_tok is 5: it must be at most num_local_experts, which is 4.',
    ],
    [
      'olmoe',
      {clip_qkv: 8},
      'clip_qkv is 8: clipping of queries and keys after their norm is not supported, only null.',
    ],
    [
      'qwen2_moe',
      {use_sliding_window: true},
      'use_sliding_window is true: only false is supported, since windows differ by layer.',
    ],
    ['qwen2_moe', {qkv_bias: 1}, 'qkv_bias is 1: true or false is needed.'],
    [
      'qwen2_moe',
      {shared_expert_intermediate_size: 0},
      'shared_expert_intermediate_size is 0: a whole number above 0 is needed.',
    ],
    ['qwen2_moe', {mlp_only_layers: [-1]}, 'mlp_only_layers.0 is -1: Too small: expected number to be >=0.'],
    ['granitemoeshared', {shared_intermediate_size: -1}, 'shared_intermediate_size is -1: 0 or more is needed.'],
    [
      'granitemoeshared',
      {num_experts_per_tok: 5},
      'num_experts_per_tok is 5: it must be at most num_local_experts, which is 4.',
    ],
    ['dbrx', {tie_word_embeddings: true}, 'tie_word_embeddings is true: only false is supported, as in transformers.'],
    ['dbrx', {n_heads: 16}, 'n_heads is 16: it must divide d_model.'],
    ['dbrx', {n_heads: 8}, 'n_heads is 8: positions need heads of an even width.'],
    ['dbrx', {attn_config: {kv_n_heads: 3}}, 'attn_config.kv_n_heads is 3: it must divide n_heads.'],
    [
      'dbrx',
      {attn_config: {rope_theta: 1e4}},
      'attn_config.rope_theta is 10000: it must be the one outside of attn_config, which is 5000.',
    ],
    ['dbrx', {ffn_config: 3}, 'ffn_config is 3: an object is needed.'],
    ['dbrx', {ffn_config: {moe_top_k: 5}}, 'ffn_config.moe_top_k is 5: it must be at most moe_num_experts.'],
    [
      'dbrx',
      {ffn_config: {moe_normalize_expert_weights: 2}},
      'ffn_config.moe_normalize_expert_weights is 2: only 1, for weights that sum to one, and null are supported.',
    ],
    [
      'dbrx',
      {ffn_config: {ffn_act_fn: {name: 'gelu'}}},
      'ffn_config.ffn_act_fn.name is "gelu": only "silu" is supported.',
    ],
    ['glm4_moe', {n_group: 2}, 'n_group is 2: only 1 is supported, no groups of experts.'],
    [
      'glm4_moe',
      {rope_parameters: {rope_theta: 5000}},
      'partial_rotary_factor is missing: only 1 is supported, and without it half of each head is rotated.',
    ],
  ])('is refused: %s %j', (family, change, message) => {
    const broken = (): Architecture => read({...configOf(family), ...change});
    expect(broken).toThrow(ModelError);
    expect(broken).toThrow(new ModelError(`${FILE}: ${message}`));
  });
});
