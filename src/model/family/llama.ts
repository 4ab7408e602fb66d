// Llama 2 and 3, SmolLM2, TinyLlama and whatever else says `model_type: "llama"`.
import {z} from 'zod';
import {architectureOf, biasWord, commonFields, commonKeys, flag, headsFit, noBias} from './common.js';
import type {FamilyDefinition} from './definition.js';
import {parseKeys} from './keys.js';
import {ATTENTION_BIAS_NAMES, COMMON_NAMES, isRotaryTable, NORM_NAMES} from './names.js';
import {positive} from './number.js';

const configSchema = z
  .looseObject({...commonFields, rms_norm_eps: positive.default(1e-6), attention_bias: flag, mlp_bias: noBias})
  .superRefine(headsFit);

/** The Llama family: RMS norms, grouped-query attention, half-split RoPE, SwiGLU. */
export const LLAMA: FamilyDefinition = {
  modelType: 'llama',
  className: 'LlamaForCausalLM',
  names: {...COMMON_NAMES, ...NORM_NAMES, ...ATTENTION_BIAS_NAMES},
  isObsolete: isRotaryTable,
  readConfig: (config, file) => {
    const keys = parseKeys(configSchema, config, file);
    return architectureOf('llama', keys, keys.rms_norm_eps, {attentionBias: biasWord(keys.attention_bias)});
  },
  configKeys: (architecture, ffnWidth, source) => ({
    ...commonKeys(architecture, ffnWidth, source),
    rms_norm_eps: architecture.normEps,
    attention_bias: architecture.attentionBias !== 'none',
  }),
};
