// Granite's mixtures that may have a shared expert: whatever says `model_type: "granitemoeshared"`.
import {z} from 'zod';
import {type Architecture, moeLayouts} from '../architecture.js';
import {architectureOf, headsFit} from './common.js';
import type {FamilyDefinition} from './definition.js';
import {choosesAmong, commonLayout, denseLayers, expertLayer, isSoftmaxOfChosen, withExperts} from './experts.js';
import {graniteDialect, graniteFields, graniteKeys} from './granite.js';
import {parseKeys} from './keys.js';
import {ATTENTION_BIAS_NAMES, COMMON_NAMES, GRANITE_MOE_NAMES, isRotaryTable, NORM_NAMES} from './names.js';
import {size} from './number.js';

const configSchema = z
  .looseObject({
    ...graniteFields,
    num_local_experts: size.default(8),
    num_experts_per_tok: size.default(2),
    shared_intermediate_size: z.int('a whole number is needed').nonnegative('0 or more is needed').default(0),
  })
  .superRefine(headsFit)
  .superRefine(choosesAmong('num_local_experts'));

/** The Granite family of mixtures: softmax over the chosen experts alone, beside which every token may use one more. */
export const GRANITE_MOE_SHARED: FamilyDefinition = {
  modelType: 'granitemoeshared',
  className: 'GraniteMoeSharedForCausalLM',
  names: {...COMMON_NAMES, ...NORM_NAMES, ...ATTENTION_BIAS_NAMES, ...GRANITE_MOE_NAMES},
  apart: 'granite',
  isObsolete: isRotaryTable,
  readConfig: (config, file) => {
    const keys = parseKeys(configSchema, config, file);
    const {num_local_experts: experts, num_experts_per_tok: topK, intermediate_size: expertWidth} = keys;
    const dense = architectureOf('granitemoeshared', keys, keys.rms_norm_eps, graniteDialect(keys));
    const layout = expertLayer({experts, topK, expertWidth, sharedWidth: keys.shared_intermediate_size});
    return withExperts(dense, layout, {order: 'topk-then-score'});
  },
  saysExperts,
  configKeys: (architecture, ffnWidth, source) => {
    const [layout] = moeLayouts(architecture);
    return {
      ...graniteKeys(architecture, layout?.expertWidth ?? ffnWidth, source),
      ...(layout && {
        num_local_experts: layout.experts,
        num_experts_per_tok: layout.topK,
        shared_intermediate_size: layout.sharedWidth,
      }),
    };
  },
};

function saysExperts(architecture: Architecture): boolean {
  const layout = commonLayout(architecture);
  const isBare = layout !== null && !layout.sharedGate && !layout.selectionBias;
  return isBare && denseLayers(architecture).length === 0 && isSoftmaxOfChosen(architecture.routing);
}
