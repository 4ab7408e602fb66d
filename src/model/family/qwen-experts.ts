// What Qwen's families of mixtures have in common: which layers have experts, and how wide these are.
import {z} from 'zod';
import {type Architecture, moeLayouts} from '../architecture.js';
import {commonKeys} from './common.js';
import type {ConfigRecord} from './definition.js';
import {denseLayers, softmaxFields} from './experts.js';
import {size} from './number.js';

/** The keys, with the defaults of a family. */
export function qwenExpertFields(experts: number, topK: number, expertWidth: number) {
  return {
    ...softmaxFields(experts, topK),
    moe_intermediate_size: size.default(expertWidth),
    decoder_sparse_step: size.default(1),
    mlp_only_layers: z.array(z.int().nonnegative(), {error: 'a list of layers is needed'}).default([]),
  };
}

type Keys = z.output<z.ZodObject<ReturnType<typeof qwenExpertFields>>>;

/** Whether a layer has experts. */
export function isSparse(keys: Pick<Keys, 'mlp_only_layers' | 'decoder_sparse_step'>): (layer: number) => boolean {
  return (l) => !keys.mlp_only_layers.includes(l) && (l + 1) % keys.decoder_sparse_step === 0;
}

/** The keys of an architecture, those of {@link commonKeys} among them. @param countKey what the number of experts is called. */
export function qwenExpertKeys(
  architecture: Architecture,
  ffnWidth: number,
  source: ConfigRecord,
  countKey = 'num_experts',
): ConfigRecord {
  const [layout] = moeLayouts(architecture);
  const [dense] = architecture.ffn.filter((one) => one.kind === 'dense');
  return {
    ...commonKeys(architecture, dense?.width ?? ffnWidth, source),
    rms_norm_eps: architecture.normEps,
    ...(layout && {
      [countKey]: layout.experts,
      num_experts_per_tok: layout.topK,
      moe_intermediate_size: layout.expertWidth,
      norm_topk_prob: architecture.routing.renormalise,
      decoder_sparse_step: 1,
      mlp_only_layers: denseLayers(architecture),
    }),
  };
}
