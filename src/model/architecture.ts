/**
 * Shapes used throughout src/model. A suffix lists the axes: x_TD is [tokens, width].
 *
 *   B batch   S sequence   T = B·S tokens   D width   H query heads   d head width
 *   F FFN width   E routed experts   K experts active a token   C rows an expert   V vocabulary
 */

/** The Hugging Face `model_type`s that can be read. */
export type Family = 'llama';

/** How router logits become the weights of the chosen experts, in the words of Hugging Face configs. */
export interface Routing {
  readonly score: 'softmax' | 'sigmoid';
  /** Whether scores are taken over all experts or over the chosen ones only. */
  readonly order: 'score-then-topk' | 'topk-then-score';
  readonly renormalise: boolean;
  /** Factor on every weight. */
  readonly scale: number;
  /** What a chosen expert's result is multiplied with: its score, or one (training-free conversion). */
  readonly weight: 'score' | 'one';
}

/** The feed-forward part of one layer. */
export type FfnLayout =
  | {readonly kind: 'dense'; readonly width: number}
  | {
      readonly kind: 'moe';
      readonly experts: number;
      readonly topK: number;
      readonly expertWidth: number;
      /** Width of the expert every token uses; 0 if there is none. */
      readonly sharedWidth: number;
      /** Whether the router has a bias that moves the choice and not the weight. */
      readonly selectionBias: boolean;
    };

/** Everything the mathematics of a decoder needs to know besides its weights. */
export interface Architecture {
  readonly family: Family;
  readonly vocab: number;
  readonly width: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly contextLength: number;
  readonly normEps: number;
  readonly ropeTheta: number;
  /** Whether the output head is the embedding itself. */
  readonly tied: boolean;
  /** One entry a layer. */
  readonly ffn: readonly FfnLayout[];
  readonly routing: Routing;
}

/** Softmax over all experts, weights as they are: what a downcycled model trains with (ExpertWeaver, eq. 13). */
export const SOFTMAX_ROUTING: Routing = {
  score: 'softmax',
  order: 'score-then-topk',
  renormalise: false,
  scale: 1,
  weight: 'score',
};

/** Parameters in all, and those a token uses; embedding counted once, and as active. */
export interface ParameterCount {
  readonly total: number;
  readonly active: number;
}

/** Counts parameters from the layout alone. */
export function countParameters(architecture: Architecture): ParameterCount {
  const {vocab, width: D, heads, kvHeads, headDim, tied, ffn} = architecture;
  const attention = 2 * D * heads * headDim + 2 * D * kvHeads * headDim;
  const outside = vocab * D * (tied ? 1 : 2) + D;
  const layers = ffn.map((layout) => {
    const part = countFfn(layout, D);
    return {total: part.total + attention + 2 * D, active: part.active + attention + 2 * D};
  });
  return {
    total: outside + layers.reduce((sum, {total}) => sum + total, 0),
    active: outside + layers.reduce((sum, {active}) => sum + active, 0),
  };
}

function countFfn(layout: FfnLayout, D: number): ParameterCount {
  if (layout.kind === 'dense') return {total: 3 * D * layout.width, active: 3 * D * layout.width};
  const {experts, topK, expertWidth, sharedWidth, selectionBias} = layout;
  const always = D * experts + (selectionBias ? experts : 0) + 3 * D * sharedWidth;
  return {total: always + 3 * D * expertWidth * experts, active: always + 3 * D * expertWidth * topK};
}

/**
 * FLOPs of a training step per token: 6 for every active weight used in a matmul, and the causal attention products
 * (Kaplan et al. 2020, with half the score matrix).
 */
export function flopsPerToken(architecture: Architecture, sequenceLength: number): number {
  const {vocab, width, heads, headDim, ffn, tied} = architecture;
  const norms = (2 * ffn.length + 1) * width;
  const lookedUp = tied ? 0 : vocab * width;
  const matmul = countParameters(architecture).active - norms - lookedUp;
  return 6 * matmul + 6 * ffn.length * heads * headDim * sequenceLength;
}
