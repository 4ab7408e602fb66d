// Qwen2 and Qwen2.5.
import {z} from 'zod';
import {architectureOf, commonFields, commonKeys, headsFit} from './common.js';
import type {FamilyDefinition} from './definition.js';
import {parseKeys} from './keys.js';
import {COMMON_NAMES, isRotaryTable, NORM_NAMES, QKV_BIAS_NAMES} from './names.js';
import {positive, size} from './number.js';
import {fullAttentionFields} from './qwen-window.js';

const configSchema = z
  .looseObject({
    ...commonFields,
    ...fullAttentionFields,
    max_position_embeddings: size.default(32_768),
    rms_norm_eps: positive.default(1e-6),
  })
  .superRefine(headsFit);

/** The Qwen2 family: a Llama with biases of queries, keys and values. */
export const QWEN2: FamilyDefinition = {
  modelType: 'qwen2',
  className: 'Qwen2ForCausalLM',
  names: {...COMMON_NAMES, ...NORM_NAMES, ...QKV_BIAS_NAMES},
  isObsolete: isRotaryTable,
  readConfig: (config, file) => {
    const keys = parseKeys(configSchema, config, file);
    return architectureOf('qwen2', keys, keys.rms_norm_eps, {attentionBias: 'qkv'});
  },
  configKeys: (architecture, ffnWidth, source) => ({
    ...commonKeys(architecture, ffnWidth, source),
    rms_norm_eps: architecture.normEps,
  }),
};
