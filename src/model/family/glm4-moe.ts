// Mixtures in the form of GLM-4.5, where all of a head is rotated; its own checkpoints rotate half.
import {z} from 'zod';
import {type Architecture, moeLayouts} from '../architecture.js';
import {architectureOf, commonFields, commonKeys, flag, headsFit} from './common.js';
import type {ConfigRecord, FamilyDefinition} from './definition.js';
import {choosesAmong, commonLayout, denseLayers, expertLayer, withExperts} from './experts.js';
import {parseKeys} from './keys.js';
import {COMMON_NAMES, GLM_SHARED_NAMES, isRotaryTable, NORM_NAMES, QK_NORM_NAMES, QKV_BIAS_NAMES} from './names.js';
import {positive, size} from './number.js';

const oneGroup = z.literal(1, {error: 'only 1 is supported, no groups of experts'}).default(1);

const configSchema = z
  .looseObject({
    ...commonFields,
    num_key_value_heads: size.default(8),
    max_position_embeddings: size.default(131_072),
    rms_norm_eps: positive.default(1e-5),
    attention_bias: flag,
    use_qk_norm: flag,
    n_routed_experts: size.default(128),
    num_experts_per_tok: size.default(8),
    moe_intermediate_size: size.default(1408),
    n_shared_experts: z.int('a whole number is needed').nonnegative('0 or more is needed').default(1),
    first_k_dense_replace: z.int('a whole number is needed').nonnegative('0 or more is needed').default(1),
    norm_topk_prob: z.boolean('true or false is needed').default(true),
    routed_scaling_factor: positive.default(1),
    n_group: oneGroup,
    topk_group: oneGroup,
  })
  .superRefine(headsFit)
  .superRefine(choosesAmong('n_routed_experts'))
  .superRefine(rotatesAll);

/** The GLM-4 family of mixtures: sigmoid scores with a selection bias, and an expert that every token uses. */
export const GLM4_MOE: FamilyDefinition = {
  modelType: 'glm4_moe',
  className: 'Glm4MoeForCausalLM',
  names: {...COMMON_NAMES, ...NORM_NAMES, ...QKV_BIAS_NAMES, ...QK_NORM_NAMES, ...GLM_SHARED_NAMES},
  isObsolete: isRotaryTable,
  readConfig: (config, file) => {
    const keys = parseKeys(configSchema, config, file);
    const dense = architectureOf('glm4_moe', keys, keys.rms_norm_eps, {
      qkNorm: keys.use_qk_norm ? 'head' : 'none',
      attentionBias: keys.attention_bias ? 'qkv' : 'none',
    });
    const {n_routed_experts: experts, num_experts_per_tok: topK, moe_intermediate_size: expertWidth} = keys;
    const sharedWidth = keys.n_shared_experts * expertWidth;
    const layout = expertLayer({experts, topK, expertWidth, sharedWidth, selectionBias: true});
    const routing = {score: 'sigmoid', renormalise: keys.norm_topk_prob, scale: keys.routed_scaling_factor} as const;
    return withExperts(dense, layout, routing, (l) => l >= keys.first_k_dense_replace);
  },
  saysExperts,
  configKeys,
};

/** Without the key, transformers rotates half of a head. */
function rotatesAll(keys: Readonly<Record<string, unknown>>, context: z.RefinementCtx): void {
  const rope = keys.rope_parameters as {partial_rotary_factor?: number} | undefined;
  if ((rope?.partial_rotary_factor ?? keys.partial_rotary_factor) === 1) return;
  const message = 'only 1 is supported, and without it half of each head is rotated';
  context.addIssue({code: 'custom', path: ['partial_rotary_factor'], message, input: keys});
}

function saysExperts(architecture: Architecture): boolean {
  const layout = commonLayout(architecture);
  const {score, order, weight, topP} = architecture.routing;
  const first = architecture.ffn.findIndex(({kind}) => kind === 'moe');
  const isShared = layout !== null && !layout.sharedGate && layout.sharedWidth % layout.expertWidth === 0;
  const isPrefix = denseLayers(architecture).every((l) => l < first);
  const isRouted = score === 'sigmoid' && order === 'score-then-topk' && weight === 'score' && topP === undefined;
  return isShared && layout.selectionBias && isPrefix && isRouted;
}

function configKeys(architecture: Architecture, ffnWidth: number, source: ConfigRecord): ConfigRecord {
  const [layout] = moeLayouts(architecture);
  const [dense] = architecture.ffn.filter((one) => one.kind === 'dense');
  const common = commonKeys(architecture, dense?.width ?? ffnWidth, source);
  const rope = common.rope_parameters;
  return {
    ...common,
    ...(rope ? {rope_parameters: {...rope, partial_rotary_factor: 1}} : {partial_rotary_factor: 1}),
    rms_norm_eps: architecture.normEps,
    attention_bias: architecture.attentionBias !== 'none',
    use_qk_norm: architecture.qkNorm === 'head',
    ...(layout && {
      n_routed_experts: layout.experts,
      num_experts_per_tok: layout.topK,
      moe_intermediate_size: layout.expertWidth,
      n_shared_experts: Math.floor(layout.sharedWidth / layout.expertWidth),
      first_k_dense_replace: denseLayers(architecture).length,
      norm_topk_prob: architecture.routing.renormalise,
      routed_scaling_factor: architecture.routing.scale,
      n_group: 1,
      topk_group: 1,
      num_nextn_predict_layers: source.num_nextn_predict_layers ?? 0, // a config without it asks for one
    }),
  };
}
