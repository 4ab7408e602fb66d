// OLMo 2.
import {z} from 'zod';
import {architectureOf, biasWord, commonFields, commonKeys, flag, headsFit} from './common.js';
import type {FamilyDefinition} from './definition.js';
import {parseKeys} from './keys.js';
import {ATTENTION_BIAS_NAMES, COMMON_NAMES, isRotaryTable, POST_NORM_NAMES, QK_NORM_NAMES} from './names.js';
import {positive} from './number.js';

const configSchema = z
  .looseObject({...commonFields, rms_norm_eps: positive.default(1e-5), attention_bias: flag})
  .superRefine(headsFit);

/** The OLMo 2 family: norms after attention and feed-forward part, and of all queries and all keys together. */
export const OLMO2: FamilyDefinition = {
  modelType: 'olmo2',
  className: 'Olmo2ForCausalLM',
  names: {...COMMON_NAMES, ...POST_NORM_NAMES, ...ATTENTION_BIAS_NAMES, ...QK_NORM_NAMES},
  isObsolete: isRotaryTable,
  readConfig: (config, file) => {
    const keys = parseKeys(configSchema, config, file);
    return architectureOf('olmo2', keys, keys.rms_norm_eps, {
      norm: {kind: 'rms', placement: 'after'},
      qkNorm: 'width',
      attentionBias: biasWord(keys.attention_bias),
    });
  },
  configKeys: (architecture, ffnWidth, source) => ({
    ...commonKeys(architecture, ffnWidth, source),
    rms_norm_eps: architecture.normEps,
    attention_bias: architecture.attentionBias !== 'none',
  }),
};
