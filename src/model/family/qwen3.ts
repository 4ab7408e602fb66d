// Dense Qwen3.
import {z} from 'zod';
import {architectureOf, biasWord, commonFields, commonKeys, flag, headsFit} from './common.js';
import type {FamilyDefinition} from './definition.js';
import {parseKeys} from './keys.js';
import {ATTENTION_BIAS_NAMES, COMMON_NAMES, isRotaryTable, NORM_NAMES, QK_NORM_NAMES} from './names.js';
import {positive, size} from './number.js';
import {fullAttentionFields} from './qwen-window.js';

const configSchema = z
  .looseObject({
    ...commonFields,
    ...fullAttentionFields,
    head_dim: size.default(128),
    max_position_embeddings: size.default(32_768),
    rms_norm_eps: positive.default(1e-6),
    attention_bias: flag,
  })
  .superRefine(headsFit);

/** The Qwen3 family: a Llama that normalises every head's queries and keys. */
export const QWEN3: FamilyDefinition = {
  modelType: 'qwen3',
  className: 'Qwen3ForCausalLM',
  names: {...COMMON_NAMES, ...NORM_NAMES, ...ATTENTION_BIAS_NAMES, ...QK_NORM_NAMES},
  isObsolete: isRotaryTable,
  readConfig: (config, file) => {
    const keys = parseKeys(configSchema, config, file);
    const attentionBias = biasWord(keys.attention_bias);
    return architectureOf('qwen3', keys, keys.rms_norm_eps, {qkNorm: 'head', attentionBias});
  },
  configKeys: (architecture, ffnWidth, source) => ({
    ...commonKeys(architecture, ffnWidth, source),
    rms_norm_eps: architecture.normEps,
    attention_bias: architecture.attentionBias !== 'none',
  }),
};
