// Mistral 7B and its offspring.
import {z} from 'zod';
import {architectureOf, commonFields, commonKeys, headsFit} from './common.js';
import type {FamilyDefinition} from './definition.js';
import {parseKeys} from './keys.js';
import {COMMON_NAMES, isRotaryTable, NORM_NAMES} from './names.js';
import {positive, size} from './number.js';

/** The window of a config that says nothing; null says that there is none. */
const DEFAULT_WINDOW = 4096;

const configSchema = z
  .looseObject({
    ...commonFields,
    max_position_embeddings: size.default(131_072),
    rms_norm_eps: positive.default(1e-6),
    sliding_window: size.optional(),
  })
  .superRefine(headsFit);

/** The Mistral family: a Llama whose positions look back no further than a window. */
export const MISTRAL: FamilyDefinition = {
  modelType: 'mistral',
  className: 'MistralForCausalLM',
  names: {...COMMON_NAMES, ...NORM_NAMES},
  isObsolete: isRotaryTable,
  readConfig: (config, file) => {
    const keys = parseKeys(configSchema, {sliding_window: DEFAULT_WINDOW, ...config}, file);
    return architectureOf('mistral', keys, keys.rms_norm_eps, {slidingWindow: keys.sliding_window ?? null});
  },
  configKeys: (architecture, ffnWidth, source) => ({
    ...commonKeys(architecture, ffnWidth, source),
    rms_norm_eps: architecture.normEps,
    sliding_window: architecture.slidingWindow,
  }),
};
