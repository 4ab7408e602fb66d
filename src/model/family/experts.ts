// What the families of mixtures have in common: which layers have experts, and whether a config of theirs can say it.
import type {z} from 'zod';
import {
  type Architecture,
  type FfnLayout,
  type MoeLayout,
  moeLayouts,
  type Routing,
  SOFTMAX_ROUTING,
} from '../architecture.js';
import {commonKeys, flag} from './common.js';
import type {ConfigRecord} from './definition.js';
import {size} from './number.js';

/** Keys of a softmax router under the names that most families have for them, with the defaults of a family. */
export function softmaxFields(experts: number, topK: number) {
  return {num_experts: size.default(experts), num_experts_per_tok: size.default(topK), norm_topk_prob: flag};
}

/** Refines a schema: no token chooses more experts than there are. @param key what the number of experts is called. */
export function choosesAmong(key: string) {
  return (keys: {num_experts_per_tok: number}, context: z.RefinementCtx): void => {
    const {[key]: experts} = keys as Readonly<Record<string, unknown>>;
    if (typeof experts !== 'number' || keys.num_experts_per_tok <= experts) return;
    const message = `it must be at most ${key}, which is ${experts}`;
    context.addIssue({code: 'custom', path: ['num_experts_per_tok'], message, input: keys});
  };
}

/** A layer of experts of these sizes, with a linear router and nothing besides. */
export function expertLayer(
  sizes: Pick<MoeLayout, 'experts' | 'topK' | 'expertWidth'> & Partial<MoeLayout>,
): MoeLayout {
  return {kind: 'moe', sharedWidth: 0, selectionBias: false, router: 'linear', ...sizes};
}

/** A dense architecture with experts in the layers that `has` says; softmax over all of them, unless said otherwise. */
export function withExperts(
  dense: Architecture,
  layout: MoeLayout,
  routing: Partial<Routing>,
  has: (layer: number) => boolean = () => true,
): Architecture {
  const ffn = dense.ffn.map((layer, l): FfnLayout => (has(l) ? layout : layer));
  return {...dense, ffn, routing: {...SOFTMAX_ROUTING, ...routing}};
}

/**
 * The one layout of all layers of experts, with a linear router and plain experts; null if there is none, if they differ, or
 * if dense layers do.
 */
export function commonLayout({ffn}: Architecture): MoeLayout | null {
  const [first, ...others] = moeLayouts({ffn});
  if (first?.router !== 'linear' || first.inner || first.expertBias) return null;
  const words = JSON.stringify(first);
  if (others.some((layout) => JSON.stringify(layout) !== words)) return null;
  const widths = new Set(ffn.flatMap((layout) => (layout.kind === 'dense' ? [layout.width] : [])));
  return widths.size <= 1 ? first : null;
}

/** The layers without experts. */
export function denseLayers({ffn}: Architecture): number[] {
  return ffn.flatMap(({kind}, l) => (kind === 'dense' ? [l] : []));
}

/** Whether a router weighs experts by softmax over all of them as it is, or over their sum. */
export function isSoftmax(routing: Routing): boolean {
  return isPlain(routing) && routing.order === 'score-then-topk';
}

/** Whether a router weighs experts by softmax over the chosen ones, which sums to one. */
export function isSoftmaxOfChosen(routing: Routing): boolean {
  return isPlain(routing) && routing.order === 'topk-then-score' && !routing.renormalise;
}

function isPlain({score, scale, weight, topP, reach}: Routing): boolean {
  return score === 'softmax' && scale === 1 && weight === 'score' && topP === undefined && reach === undefined;
}

/** Whether all layers are alike and have routed experts alone, chosen by softmax. */
export function hasRoutedAlone(architecture: Architecture): boolean {
  const layout = commonLayout(architecture);
  const isBare = layout !== null && layout.sharedWidth === 0 && !layout.selectionBias;
  return isBare && isSoftmax(architecture.routing);
}

/** Whether every layer has routed experts alone. */
export function hasRoutedInAll(architecture: Architecture): boolean {
  return hasRoutedAlone(architecture) && denseLayers(architecture).length === 0;
}

/** The keys of a family whose layers all have routed experts as wide as `intermediate_size`. */
export function routedKeys(architecture: Architecture, ffnWidth: number, source: ConfigRecord): ConfigRecord {
  const [layout] = moeLayouts(architecture);
  return {
    ...commonKeys(architecture, layout?.expertWidth ?? ffnWidth, source),
    rms_norm_eps: architecture.normEps,
    attention_bias: architecture.attentionBias !== 'none',
    ...(layout && {
      num_experts: layout.experts,
      num_experts_per_tok: layout.topK,
      norm_topk_prob: architecture.routing.renormalise,
    }),
  };
}
