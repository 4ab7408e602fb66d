// Qwen3 30B-A3B, 235B-A22B and whatever else says `model_type: "qwen3_moe"`.
import {z} from 'zod';
import {architectureOf, biasWord, commonFields, flag, headsFit} from './common.js';
import type {FamilyDefinition} from './definition.js';
import {choosesAmong, expertLayer, hasRoutedAlone, withExperts} from './experts.js';
import {parseKeys} from './keys.js';
import {ATTENTION_BIAS_NAMES, COMMON_NAMES, isRotaryTable, NORM_NAMES, QK_NORM_NAMES} from './names.js';
import {positive, size} from './number.js';
import {isSparse, qwenExpertFields, qwenExpertKeys} from './qwen-experts.js';
import {fullAttentionFields} from './qwen-window.js';

const configSchema = z
  .looseObject({
    ...commonFields,
    ...fullAttentionFields,
    ...qwenExpertFields(128, 8, 768),
    max_position_embeddings: size.default(32_768),
    rms_norm_eps: positive.default(1e-6),
    attention_bias: flag,
  })
  .superRefine(headsFit)
  .superRefine(choosesAmong('num_experts'));

/** What newer versions of transformers write for `num_experts`; they read both. */
const NEW_NAME = 'num_local_experts';

/** The Qwen3 family with routed experts alone, in all layers or in some. */
export const QWEN3_MOE: FamilyDefinition = {
  modelType: 'qwen3_moe',
  className: 'Qwen3MoeForCausalLM',
  names: {...COMMON_NAMES, ...NORM_NAMES, ...ATTENTION_BIAS_NAMES, ...QK_NORM_NAMES},
  isObsolete: isRotaryTable,
  readConfig: (config, file) => {
    const {[NEW_NAME]: named, num_experts: counted = named} = config;
    const keys = parseKeys(configSchema, {...config, num_experts: counted}, file);
    const {num_experts: experts, num_experts_per_tok: topK, moe_intermediate_size: expertWidth} = keys;
    const attentionBias = biasWord(keys.attention_bias);
    const dense = architectureOf('qwen3_moe', keys, keys.rms_norm_eps, {qkNorm: 'head', attentionBias});
    const routing = {renormalise: keys.norm_topk_prob};
    return withExperts(dense, expertLayer({experts, topK, expertWidth}), routing, isSparse(keys));
  },
  saysExperts: hasRoutedAlone,
  configKeys: (architecture, ffnWidth, source) => ({
    ...qwenExpertKeys(architecture, ffnWidth, source, NEW_NAME in source ? NEW_NAME : 'num_experts'),
    attention_bias: architecture.attentionBias !== 'none',
  }),
};
