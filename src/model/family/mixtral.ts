// Mixtral 8x7B and 8x22B, and the merges that take their form.
import {z} from 'zod';
import {moeLayouts} from '../architecture.js';
import {architectureOf, commonFields, commonKeys, headsFit} from './common.js';
import type {FamilyDefinition} from './definition.js';
import {choosesAmong, expertLayer, hasRoutedInAll, withExperts} from './experts.js';
import {parseKeys} from './keys.js';
import {COMMON_NAMES, isRotaryTable, MIXTRAL_NAMES, NORM_NAMES} from './names.js';
import {positive, size} from './number.js';

const configSchema = z
  .looseObject({
    ...commonFields,
    rope_theta: positive.default(1e6),
    num_key_value_heads: size.default(8),
    max_position_embeddings: size.default(131_072),
    rms_norm_eps: positive.default(1e-5),
    sliding_window: size.optional(),
    num_local_experts: size.default(8),
    num_experts_per_tok: size.default(2),
  })
  .superRefine(headsFit)
  .superRefine(choosesAmong('num_local_experts'));

/** The Mixtral family: a Mistral of routed experts alone, whose weights sum to one. */
export const MIXTRAL: FamilyDefinition = {
  modelType: 'mixtral',
  className: 'MixtralForCausalLM',
  names: {...COMMON_NAMES, ...NORM_NAMES, ...MIXTRAL_NAMES},
  isObsolete: isRotaryTable,
  readConfig: (config, file) => {
    const keys = parseKeys(configSchema, config, file);
    const {num_local_experts: experts, num_experts_per_tok: topK, intermediate_size: expertWidth} = keys;
    const dense = architectureOf('mixtral', keys, keys.rms_norm_eps, {slidingWindow: keys.sliding_window ?? null});
    return withExperts(dense, expertLayer({experts, topK, expertWidth}), {renormalise: true});
  },
  saysExperts: (architecture) => hasRoutedInAll(architecture) && architecture.routing.renormalise,
  configKeys: (architecture, ffnWidth, source) => {
    const [layout] = moeLayouts(architecture);
    return {
      ...commonKeys(architecture, layout?.expertWidth ?? ffnWidth, source),
      rms_norm_eps: architecture.normEps,
      sliding_window: architecture.slidingWindow,
      ...(layout && {num_local_experts: layout.experts, num_experts_per_tok: layout.topK}),
    };
  },
};
