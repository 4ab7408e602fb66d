// Qwen1.5-MoE, Qwen2-57B-A14B, and the merges that take their form.
import {z} from 'zod';
import {moeLayouts} from '../architecture.js';
import {architectureOf, commonFields, headsFit} from './common.js';
import type {FamilyDefinition} from './definition.js';
import {choosesAmong, commonLayout, expertLayer, isSoftmax, withExperts} from './experts.js';
import {parseKeys} from './keys.js';
import {COMMON_NAMES, isRotaryTable, NORM_NAMES, QKV_BIAS_NAMES} from './names.js';
import {positive, size} from './number.js';
import {isSparse, qwenExpertFields, qwenExpertKeys} from './qwen-experts.js';
import {fullAttentionFields} from './qwen-window.js';

const configSchema = z
  .looseObject({
    ...commonFields,
    ...fullAttentionFields,
    ...qwenExpertFields(60, 4, 1408),
    max_position_embeddings: size.default(32_768),
    rms_norm_eps: positive.default(1e-6),
    qkv_bias: z.boolean('true or false is needed').default(true),
    shared_expert_intermediate_size: size.default(5632),
  })
  .superRefine(headsFit)
  .superRefine(choosesAmong('num_experts'));

/** The Qwen2 family of mixtures: routed experts, and beside them one that every token uses as far as a gate lets it. */
export const QWEN2_MOE: FamilyDefinition = {
  modelType: 'qwen2_moe',
  className: 'Qwen2MoeForCausalLM',
  names: {...COMMON_NAMES, ...NORM_NAMES, ...QKV_BIAS_NAMES},
  isObsolete: isRotaryTable,
  readConfig: (config, file) => {
    const keys = parseKeys(configSchema, config, file);
    const {num_experts: experts, num_experts_per_tok: topK, moe_intermediate_size: expertWidth} = keys;
    const attentionBias = keys.qkv_bias ? 'qkv' : 'none';
    const dense = architectureOf('qwen2_moe', keys, keys.rms_norm_eps, {attentionBias});
    const shared = {sharedWidth: keys.shared_expert_intermediate_size, sharedGate: true} as const;
    const layout = expertLayer({experts, topK, expertWidth, ...shared});
    return withExperts(dense, layout, {renormalise: keys.norm_topk_prob}, isSparse(keys));
  },
  saysExperts: (architecture) => {
    const layout = commonLayout(architecture);
    return layout?.sharedGate === true && !layout.selectionBias && isSoftmax(architecture.routing);
  },
  configKeys: (architecture, ffnWidth, source) => {
    const [layout] = moeLayouts(architecture);
    return {
      ...qwenExpertKeys(architecture, ffnWidth, source),
      qkv_bias: architecture.attentionBias !== 'none',
      ...(layout && layout.sharedWidth > 0 && {shared_expert_intermediate_size: layout.sharedWidth}),
    };
  },
};
