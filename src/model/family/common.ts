// The keys that configs of all families have, and what they say about an architecture.
import {z} from 'zod';
import {type Architecture, type Dialect, type Family, PLAIN, SOFTMAX_ROUTING} from '../architecture.js';
import type {ConfigRecord} from './definition.js';
import {size} from './number.js';
import {ropeFields, ropeKeys, ropeOf} from './rope.js';

/** The epsilon of layer norms, that of torch: no key of a config says it. */
export const LAYER_NORM_EPS = 1e-5;

/** A switch that is off unless it is said. */
export const flag = z.boolean('true or false is needed').default(false);
/** A switch of biases that nothing here computes. */
export const noBias = z
  .literal(false, {error: 'a bias of the feed-forward part is not supported, only false'})
  .optional();

/** More is a damaged config: a layer of each is laid out before any weight is read. */
const MOST_LAYERS = 10_000;

/** Keys and defaults of transformers; sizes have no default here, since a guess would hide a broken file. */
export const commonFields = {
  vocab_size: size,
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: size.max(MOST_LAYERS, `at most ${MOST_LAYERS} are supported`),
  num_attention_heads: size,
  num_key_value_heads: size.optional(),
  head_dim: size.optional(),
  max_position_embeddings: size.default(2048),
  ...ropeFields,
  tie_word_embeddings: flag,
  hidden_act: z.literal('silu', {error: 'only "silu" is supported'}).optional(),
  quantization_config: z.undefined('quantised weights are not supported').optional(),
};

type CommonKeys = z.output<z.ZodObject<typeof commonFields>>;

/** Refines a schema of {@link commonFields}: heads that fit the width and each other. */
export function headsFit(keys: CommonKeys, context: z.RefinementCtx): void {
  const {hidden_size: width, num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headDim} = keys;
  const refuse = (key: keyof CommonKeys, message: string): void =>
    context.addIssue({code: 'custom', path: [key], message, input: keys});
  if (heads % (kvHeads ?? heads) !== 0) refuse('num_key_value_heads', 'it must divide num_attention_heads');
  if (headDim === undefined && width % heads !== 0) {
    refuse('num_attention_heads', 'it must divide hidden_size where head_dim is not given');
  }
  if (headDim !== undefined && headDim % 2 !== 0) refuse('head_dim', 'positions need an even number');
}

/** The dense architecture of a family: what its keys say, in plain words but for those of `dialect`. */
export function architectureOf(
  family: Family,
  keys: CommonKeys,
  normEps: number,
  dialect: Partial<Dialect> = {},
): Architecture {
  const layer = {kind: 'dense', width: keys.intermediate_size} as const;
  return {
    family,
    ...PLAIN,
    ...dialect,
    vocab: keys.vocab_size,
    width: keys.hidden_size,
    heads: keys.num_attention_heads,
    kvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
    headDim: keys.head_dim ?? keys.hidden_size / keys.num_attention_heads,
    contextLength: keys.max_position_embeddings,
    normEps,
    ...ropeOf(keys),
    tied: keys.tie_word_embeddings,
    ffn: Array.from({length: keys.num_hidden_layers}, () => layer),
    routing: SOFTMAX_ROUTING,
  };
}

/** The keys of {@link commonFields} for an architecture; positions in the form (transformers 4 or 5) of `source`. */
export function commonKeys(architecture: Architecture, ffnWidth: number, source: ConfigRecord): ConfigRecord {
  return {
    vocab_size: architecture.vocab,
    hidden_size: architecture.width,
    intermediate_size: ffnWidth,
    num_hidden_layers: architecture.ffn.length,
    num_attention_heads: architecture.heads,
    num_key_value_heads: architecture.kvHeads,
    head_dim: architecture.headDim,
    max_position_embeddings: architecture.contextLength,
    tie_word_embeddings: architecture.tied,
    hidden_act: 'silu',
    ...ropeKeys(architecture, source),
  };
}

/** The word for `attention_bias`, which speaks of all four projections. */
export function biasWord(hasBias: boolean): Dialect['attentionBias'] {
  return hasBias ? 'qkvo' : 'none';
}
