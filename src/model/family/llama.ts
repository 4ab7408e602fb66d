// Llama 2 and 3, SmolLM2, TinyLlama and whatever else says `model_type: "llama"`.
import {z} from 'zod';
import {type Architecture, SOFTMAX_ROUTING} from '../architecture.js';
import type {ConfigRecord, FamilyDefinition} from './definition.js';
import {parseKeys} from './keys.js';

const size = z.int('a whole number above 0 is needed').positive('a whole number above 0 is needed');
const positive = z.number('a number above 0 is needed').positive('a number above 0 is needed');
const off = z.literal(false, {error: 'a bias is not supported, only false'}).optional();
const plainRope = z.literal('default', {error: 'only "default" is supported, no scaling of positions'}).optional();
const wholeRotation = z.literal(1, {error: 'only 1 is supported, all of a head is rotated'}).optional();

const ropeSchema = z.looseObject(
  {
    rope_theta: positive.optional(),
    rope_type: plainRope,
    type: plainRope, // what transformers before 4.43 called rope_type
    partial_rotary_factor: wholeRotation,
  },
  {error: 'an object or null is needed'},
);

/** Keys and defaults of transformers' LlamaConfig; sizes have no default here, since a guess would hide a broken file. */
const configSchema = z
  .looseObject({
    vocab_size: size,
    hidden_size: size,
    intermediate_size: size,
    num_hidden_layers: size,
    num_attention_heads: size,
    num_key_value_heads: size.optional(),
    head_dim: size.optional(),
    max_position_embeddings: size.default(2048),
    rms_norm_eps: positive.default(1e-6),
    rope_theta: positive.optional(),
    rope_scaling: ropeSchema.optional(),
    rope_parameters: ropeSchema.optional(),
    partial_rotary_factor: wholeRotation,
    tie_word_embeddings: z.boolean('true or false is needed').default(false),
    hidden_act: z.literal('silu', {error: 'only "silu" is supported'}).optional(),
    attention_bias: off,
    mlp_bias: off,
    quantization_config: z.undefined('quantised weights are not supported').optional(),
  })
  .refine(({num_attention_heads: heads, num_key_value_heads: kv}) => heads % (kv ?? heads) === 0, {
    error: 'it must divide num_attention_heads',
    path: ['num_key_value_heads'],
  })
  .refine(
    ({hidden_size, num_attention_heads, head_dim}) => head_dim !== undefined || hidden_size % num_attention_heads === 0,
    {
      error: 'it must divide hidden_size where head_dim is not given',
      path: ['num_attention_heads'],
    },
  )
  .refine(({head_dim}) => (head_dim ?? 2) % 2 === 0, {error: 'positions need an even number', path: ['head_dim']});

/** The Llama family: RMS norms, grouped-query attention, half-split RoPE, SwiGLU, no bias. */
export const LLAMA: FamilyDefinition = {
  modelType: 'llama',
  className: 'LlamaForCausalLM',
  names: {
    embed: 'model.embed_tokens.weight',
    'layers.{l}.attentionNorm': 'model.layers.{l}.input_layernorm.weight',
    'layers.{l}.attention.q': 'model.layers.{l}.self_attn.q_proj.weight',
    'layers.{l}.attention.k': 'model.layers.{l}.self_attn.k_proj.weight',
    'layers.{l}.attention.v': 'model.layers.{l}.self_attn.v_proj.weight',
    'layers.{l}.attention.o': 'model.layers.{l}.self_attn.o_proj.weight',
    'layers.{l}.ffnNorm': 'model.layers.{l}.post_attention_layernorm.weight',
    'layers.{l}.ffn.gate': 'model.layers.{l}.mlp.gate_proj.weight',
    'layers.{l}.ffn.up': 'model.layers.{l}.mlp.up_proj.weight',
    'layers.{l}.ffn.down': 'model.layers.{l}.mlp.down_proj.weight',
    'layers.{l}.ffn.router': 'model.layers.{l}.mlp.gate.weight',
    'layers.{l}.ffn.bias': 'model.layers.{l}.mlp.gate.e_score_correction_bias',
    'layers.{l}.ffn.shared.gate': 'model.layers.{l}.mlp.shared_expert.gate_proj.weight',
    'layers.{l}.ffn.shared.up': 'model.layers.{l}.mlp.shared_expert.up_proj.weight',
    'layers.{l}.ffn.shared.down': 'model.layers.{l}.mlp.shared_expert.down_proj.weight',
    'layers.{l}.ffn.experts.gate': 'model.layers.{l}.mlp.experts.{e}.gate_proj.weight',
    'layers.{l}.ffn.experts.up': 'model.layers.{l}.mlp.experts.{e}.up_proj.weight',
    'layers.{l}.ffn.experts.down': 'model.layers.{l}.mlp.experts.{e}.down_proj.weight',
    norm: 'model.norm.weight',
    head: 'lm_head.weight',
  },
  isObsolete: (name) => name.endsWith('.rotary_emb.inv_freq'),
  readConfig,
  configKeys,
};

function readConfig(config: ConfigRecord, file: string): Architecture {
  const keys = parseKeys(configSchema, config, file);
  const layer = {kind: 'dense', width: keys.intermediate_size} as const;
  return {
    family: 'llama',
    vocab: keys.vocab_size,
    width: keys.hidden_size,
    heads: keys.num_attention_heads,
    kvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
    headDim: keys.head_dim ?? keys.hidden_size / keys.num_attention_heads,
    contextLength: keys.max_position_embeddings,
    normEps: keys.rms_norm_eps,
    ropeTheta: keys.rope_parameters?.rope_theta ?? keys.rope_theta ?? 10_000,
    tied: keys.tie_word_embeddings,
    ffn: Array.from({length: keys.num_hidden_layers}, () => layer),
    routing: SOFTMAX_ROUTING,
  };
}

function configKeys(architecture: Architecture, ffnWidth: number, source: ConfigRecord): ConfigRecord {
  const rope = source.rope_parameters;
  const isNewForm = typeof rope === 'object' && rope !== null;
  return {
    vocab_size: architecture.vocab,
    hidden_size: architecture.width,
    intermediate_size: ffnWidth,
    num_hidden_layers: architecture.ffn.length,
    num_attention_heads: architecture.heads,
    num_key_value_heads: architecture.kvHeads,
    head_dim: architecture.headDim,
    max_position_embeddings: architecture.contextLength,
    rms_norm_eps: architecture.normEps,
    tie_word_embeddings: architecture.tied,
    hidden_act: 'silu',
    ...(isNewForm
      ? {rope_parameters: {...rope, rope_theta: architecture.ropeTheta}}
      : {rope_theta: architecture.ropeTheta}),
  };
}
