// Mixtures in the form of DBRX whose layer norms have weights of one, such as those made of OLMo; its own have others.
import {z} from 'zod';
import {moeLayouts} from '../architecture.js';
import {architectureOf, commonFields, LAYER_NORM_EPS} from './common.js';
import type {ConfigRecord, FamilyDefinition} from './definition.js';
import {expertLayer, hasRoutedInAll, withExperts} from './experts.js';
import {parseKeys} from './keys.js';
import {DBRX_NAMES, DBRX_NORMS, isRotaryTable} from './names.js';
import {positive, size} from './number.js';
import {isRecord, ropeFields, ropeKeys} from './rope.js';

const isObject = {error: 'an object is needed'};
const attentionSchema = z.looseObject(
  {clip_qkv: positive.optional(), kv_n_heads: size.default(1), rope_theta: positive.optional()},
  isObject,
);
const expertsSchema = z
  .looseObject(
    {
      ffn_act_fn: z.looseObject({name: commonFields.hidden_act}, isObject).optional(),
      ffn_hidden_size: size.default(3584),
      moe_num_experts: size.default(4),
      moe_top_k: size.default(1),
      moe_normalize_expert_weights: z
        .literal(1, {error: 'only 1, for weights that sum to one, and null are supported'})
        .optional(),
    },
    isObject,
  )
  .refine(({moe_top_k: topK, moe_num_experts: experts}) => topK <= experts, {
    error: 'it must be at most moe_num_experts',
    path: ['moe_top_k'],
  });

const keysSchema = z.looseObject({
  vocab_size: size,
  d_model: size,
  n_heads: size,
  n_layers: size,
  max_seq_len: size.default(2048),
  ...ropeFields,
  attn_config: attentionSchema.default({kv_n_heads: 1}),
  ffn_config: expertsSchema,
  tie_word_embeddings: z.literal(false, {error: 'only false is supported, as in transformers'}).optional(),
  quantization_config: commonFields.quantization_config,
});

type Keys = z.output<typeof keysSchema>;

const configSchema = keysSchema.superRefine(headsFit).superRefine(turnsAlike);

/** The DBRX family: layer norms, projections that may be clipped, and routed experts alone in every layer. */
export const DBRX: FamilyDefinition = {
  modelType: 'dbrx',
  className: 'DbrxForCausalLM',
  names: DBRX_NAMES,
  apart: 'olmo',
  ones: DBRX_NORMS,
  isObsolete: isRotaryTable,
  readConfig: (config, file) => {
    // without the key weights sum to one, and with null they do not
    const ffn = config.ffn_config ?? {};
    const said = isRecord(ffn) ? {moe_normalize_expert_weights: 1, ...ffn} : ffn;
    const keys = parseKeys(configSchema, {...config, ffn_config: said}, file);
    const {moe_num_experts: experts, moe_top_k: topK, ffn_hidden_size: expertWidth} = keys.ffn_config;
    const dense = architectureOf('dbrx', commonOf(keys), LAYER_NORM_EPS, {
      norm: {kind: 'layer', placement: 'before'},
      qkvClip: keys.attn_config.clip_qkv ?? null,
    });
    const renormalise = keys.ffn_config.moe_normalize_expert_weights !== undefined;
    return withExperts(dense, expertLayer({experts, topK, expertWidth}), {renormalise});
  },
  saysExperts: hasRoutedInAll,
  configKeys: (architecture, ffnWidth, source) => {
    const [layout] = moeLayouts(architecture);
    return {
      vocab_size: architecture.vocab,
      d_model: architecture.width,
      n_heads: architecture.heads,
      n_layers: architecture.ffn.length,
      max_seq_len: architecture.contextLength,
      tie_word_embeddings: architecture.tied,
      ...ropeKeys(architecture, source),
      attn_config: {
        ...sectionOf(source.attn_config),
        clip_qkv: architecture.qkvClip,
        kv_n_heads: architecture.kvHeads,
        rope_theta: architecture.ropeTheta, // transformers 4 reads it here, and 5 runs no model without it
      },
      ffn_config: {
        ...sectionOf(source.ffn_config),
        ffn_act_fn: {name: 'silu'},
        ffn_hidden_size: layout?.expertWidth ?? ffnWidth,
        ...(layout && {
          moe_num_experts: layout.experts,
          moe_top_k: layout.topK,
          moe_normalize_expert_weights: architecture.routing.renormalise ? 1 : null,
        }),
      },
    };
  },
};

/** The keys under the names that other families have for them. */
function commonOf(keys: Keys): Parameters<typeof architectureOf>[1] {
  const {rope_theta, rope_scaling, rope_parameters, vocab_size} = keys;
  return {
    ...{rope_scaling, rope_parameters, vocab_size},
    rope_theta: rope_theta ?? keys.attn_config.rope_theta,
    hidden_size: keys.d_model,
    intermediate_size: keys.ffn_config.ffn_hidden_size,
    num_hidden_layers: keys.n_layers,
    num_attention_heads: keys.n_heads,
    num_key_value_heads: keys.attn_config.kv_n_heads,
    max_position_embeddings: keys.max_seq_len,
    tie_word_embeddings: false,
  };
}

function sectionOf(source: unknown): ConfigRecord {
  return isRecord(source) ? source : {};
}

function headsFit(
  {d_model: width, n_heads: heads, attn_config: {kv_n_heads: kvHeads}}: Keys,
  context: z.RefinementCtx,
): void {
  const refuse = (path: string[], message: string): void =>
    context.addIssue({code: 'custom', path, message, input: heads});
  if (heads % kvHeads !== 0) refuse(['attn_config', 'kv_n_heads'], 'it must divide n_heads');
  if (width % heads !== 0) refuse(['n_heads'], 'it must divide d_model');
  else if ((width / heads) % 2 !== 0) refuse(['n_heads'], 'positions need heads of an even width');
}

/** Transformers 4 takes the base from `attn_config`, and 5 from beside it. */
function turnsAlike({rope_theta, rope_parameters, attn_config}: Keys, context: z.RefinementCtx): void {
  const outer = rope_parameters?.rope_theta ?? rope_theta;
  const {rope_theta: inner} = attn_config;
  if (outer === undefined || inner === undefined || outer === inner) return;
  const message = `it must be the one outside of attn_config, which is ${outer}`;
  context.addIssue({code: 'custom', path: ['attn_config', 'rope_theta'], message, input: inner});
}
