// Dense Granite 3.
import {z} from 'zod';
import type {Multipliers} from '../architecture.js';
import {architectureOf, biasWord, commonFields, commonKeys, flag, headsFit, noBias} from './common.js';
import type {ConfigRecord, FamilyDefinition} from './definition.js';
import {parseKeys} from './keys.js';
import {ATTENTION_BIAS_NAMES, COMMON_NAMES, isRotaryTable, NORM_NAMES} from './names.js';
import {positive} from './number.js';

const configSchema = z
  .looseObject({
    ...commonFields,
    rms_norm_eps: positive.default(1e-6),
    attention_bias: flag,
    mlp_bias: noBias,
    embedding_multiplier: positive.default(1),
    attention_multiplier: positive.default(1),
    residual_multiplier: positive.default(1),
    logits_scaling: positive.default(1),
  })
  .superRefine(headsFit);

/** The Granite family: a Llama whose embeddings, attention, residuals and logits have factors. */
export const GRANITE: FamilyDefinition = {
  modelType: 'granite',
  className: 'GraniteForCausalLM',
  names: {...COMMON_NAMES, ...NORM_NAMES, ...ATTENTION_BIAS_NAMES},
  isObsolete: isRotaryTable,
  readConfig: (config, file) => {
    const keys = parseKeys(configSchema, config, file);
    return architectureOf('granite', keys, keys.rms_norm_eps, {
      attentionBias: biasWord(keys.attention_bias),
      multipliers: {
        embedding: keys.embedding_multiplier,
        attention: keys.attention_multiplier,
        residual: keys.residual_multiplier,
        logitsDivisor: keys.logits_scaling,
      },
    });
  },
  configKeys: (architecture, ffnWidth, source) => ({
    ...commonKeys(architecture, ffnWidth, source),
    rms_norm_eps: architecture.normEps,
    attention_bias: architecture.attentionBias !== 'none',
    ...multiplierKeys(architecture.multipliers),
  }),
};

function multiplierKeys({embedding, attention, residual, logitsDivisor}: Multipliers): ConfigRecord {
  return {
    embedding_multiplier: embedding,
    attention_multiplier: attention,
    residual_multiplier: residual,
    logits_scaling: logitsDivisor,
  };
}
