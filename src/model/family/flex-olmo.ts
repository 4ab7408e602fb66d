// FlexOlmo: OLMo 2 with experts.
import {z} from 'zod';
import {architectureOf, biasWord, commonFields, flag, headsFit} from './common.js';
import type {FamilyDefinition} from './definition.js';
import {choosesAmong, expertLayer, hasRoutedInAll, routedKeys, softmaxFields, withExperts} from './experts.js';
import {parseKeys} from './keys.js';
import {ATTENTION_BIAS_NAMES, COMMON_NAMES, isRotaryTable, POST_NORM_NAMES, QK_NORM_NAMES} from './names.js';
import {positive, size} from './number.js';

const configSchema = z
  .looseObject({
    ...commonFields,
    ...softmaxFields(7, 5),
    rope_theta: positive.default(500_000),
    max_position_embeddings: size.default(4096),
    rms_norm_eps: positive.default(1e-6),
    attention_bias: flag,
  })
  .superRefine(headsFit)
  .superRefine(choosesAmong('num_experts'));

/** The FlexOlmo family: an OLMo 2 of routed experts alone. */
export const FLEX_OLMO: FamilyDefinition = {
  modelType: 'flex_olmo',
  className: 'FlexOlmoForCausalLM',
  names: {...COMMON_NAMES, ...POST_NORM_NAMES, ...ATTENTION_BIAS_NAMES, ...QK_NORM_NAMES},
  isObsolete: isRotaryTable,
  readConfig: (config, file) => {
    const keys = parseKeys(configSchema, config, file);
    const {num_experts: experts, num_experts_per_tok: topK, intermediate_size: expertWidth} = keys;
    const dense = architectureOf('flex_olmo', keys, keys.rms_norm_eps, {
      norm: {kind: 'rms', placement: 'after'},
      qkNorm: 'width',
      attentionBias: biasWord(keys.attention_bias),
    });
    return withExperts(dense, expertLayer({experts, topK, expertWidth}), {renormalise: keys.norm_topk_prob});
  },
  saysExperts: hasRoutedInAll,
  configKeys: routedKeys,
};
