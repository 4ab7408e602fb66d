// OLMoE 1B-7B.
import {z} from 'zod';
import {architectureOf, biasWord, commonFields, flag, headsFit} from './common.js';
import type {FamilyDefinition} from './definition.js';
import {choosesAmong, expertLayer, hasRoutedInAll, routedKeys, softmaxFields, withExperts} from './experts.js';
import {parseKeys} from './keys.js';
import {ATTENTION_BIAS_NAMES, COMMON_NAMES, isRotaryTable, NORM_NAMES, QK_NORM_NAMES} from './names.js';
import {positive, size} from './number.js';

const configSchema = z
  .looseObject({
    ...commonFields,
    ...softmaxFields(64, 8),
    max_position_embeddings: size.default(4096),
    rms_norm_eps: positive.default(1e-5),
    attention_bias: flag,
    clip_qkv: z.undefined('clipping of queries and keys after their norm is not supported, only null').optional(),
  })
  .superRefine(headsFit)
  .superRefine(choosesAmong('num_experts'));

/** The OLMoE family: routed experts alone in every layer, and norms of all queries and all keys together. */
export const OLMOE: FamilyDefinition = {
  modelType: 'olmoe',
  className: 'OlmoeForCausalLM',
  names: {...COMMON_NAMES, ...NORM_NAMES, ...ATTENTION_BIAS_NAMES, ...QK_NORM_NAMES},
  isObsolete: isRotaryTable,
  readConfig: (config, file) => {
    const keys = parseKeys(configSchema, config, file);
    const {num_experts: experts, num_experts_per_tok: topK, intermediate_size: expertWidth} = keys;
    const attentionBias = biasWord(keys.attention_bias);
    const dense = architectureOf('olmoe', keys, keys.rms_norm_eps, {qkNorm: 'width', attentionBias});
    return withExperts(dense, expertLayer({experts, topK, expertWidth}), {renormalise: keys.norm_topk_prob});
  },
  saysExperts: hasRoutedInAll,
  configKeys: routedKeys,
};
