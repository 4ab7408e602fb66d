// Dense Granite 3.
import {z} from 'zod';
import type {Architecture, Dialect} from '../architecture.js';
import {architectureOf, biasWord, commonFields, commonKeys, flag, headsFit, noBias} from './common.js';
import type {ConfigRecord, FamilyDefinition} from './definition.js';
import {parseKeys} from './keys.js';
import {ATTENTION_BIAS_NAMES, COMMON_NAMES, isRotaryTable, NORM_NAMES} from './names.js';
import {positive} from './number.js';

/** Keys that Granite has as a dense model and as a mixture. */
export const graniteFields = {
  ...commonFields,
  rms_norm_eps: positive.default(1e-6),
  attention_bias: flag,
  embedding_multiplier: positive.default(1),
  attention_multiplier: positive.default(1),
  residual_multiplier: positive.default(1),
  logits_scaling: positive.default(1),
};

const configSchema = z.looseObject({...graniteFields, mlp_bias: noBias}).superRefine(headsFit);

/** The Granite family: a Llama whose embeddings, attention, residuals and logits have factors. */
export const GRANITE: FamilyDefinition = {
  modelType: 'granite',
  className: 'GraniteForCausalLM',
  names: {...COMMON_NAMES, ...NORM_NAMES, ...ATTENTION_BIAS_NAMES},
  isObsolete: isRotaryTable,
  readConfig: (config, file) => {
    const keys = parseKeys(configSchema, config, file);
    return architectureOf('granite', keys, keys.rms_norm_eps, graniteDialect(keys));
  },
  configKeys: graniteKeys,
};

/** What {@link graniteFields} say. */
export function graniteDialect(keys: z.output<z.ZodObject<typeof graniteFields>>): Partial<Dialect> {
  return {
    attentionBias: biasWord(keys.attention_bias),
    multipliers: {
      embedding: keys.embedding_multiplier,
      attention: keys.attention_multiplier,
      residual: keys.residual_multiplier,
      logitsDivisor: keys.logits_scaling,
    },
  };
}

/** The keys of {@link graniteFields} for an architecture. */
export function graniteKeys(architecture: Architecture, ffnWidth: number, source: ConfigRecord): ConfigRecord {
  const {normEps, attentionBias, multipliers} = architecture;
  return {
    ...commonKeys(architecture, ffnWidth, source),
    rms_norm_eps: normEps,
    attention_bias: attentionBias !== 'none',
    embedding_multiplier: multipliers.embedding,
    attention_multiplier: multipliers.attention,
    residual_multiplier: multipliers.residual,
    logits_scaling: multipliers.logitsDivisor,
  };
}
