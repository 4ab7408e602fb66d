// OLMo 1B and 7B of 2024 in the form of transformers (`-hf`).
import {z} from 'zod';
import {architectureOf, biasWord, commonFields, commonKeys, flag, headsFit, LAYER_NORM_EPS} from './common.js';
import type {FamilyDefinition} from './definition.js';
import {parseKeys} from './keys.js';
import {ATTENTION_BIAS_NAMES, COMMON_NAMES, isRotaryTable} from './names.js';
import {positive} from './number.js';

const configSchema = z
  .looseObject({...commonFields, attention_bias: flag, clip_qkv: positive.optional()})
  .superRefine(headsFit);

/** The first OLMo family: layer norms without weights, and projections that may be clipped. */
export const OLMO: FamilyDefinition = {
  modelType: 'olmo',
  className: 'OlmoForCausalLM',
  names: {...COMMON_NAMES, ...ATTENTION_BIAS_NAMES},
  isObsolete: isRotaryTable,
  readConfig: (config, file) => {
    const keys = parseKeys(configSchema, config, file);
    return architectureOf('olmo', keys, LAYER_NORM_EPS, {
      norm: {kind: 'layer', placement: 'before'},
      attentionBias: biasWord(keys.attention_bias),
      qkvClip: keys.clip_qkv ?? null,
    });
  },
  configKeys: (architecture, ffnWidth, source) => ({
    ...commonKeys(architecture, ffnWidth, source),
    attention_bias: architecture.attentionBias !== 'none',
    clip_qkv: architecture.qkvClip,
  }),
};
