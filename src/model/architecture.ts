/**
 * Shapes used throughout src/model. A suffix lists the axes: x_TD is [tokens, width].
 *
 *   B batch   S sequence   T = B·S tokens   D width   H query heads   d head width
 *   F FFN width   E routed experts   K experts active a token   C rows an expert   V vocabulary
 */

import type {RopeScaling} from './rope-frequencies.js';

/** The Hugging Face `model_type`s that can be read. */
export type Family = DenseFamily | MixtureFamily;

/** Those of dense models. */
export type DenseFamily = 'llama' | 'mistral' | 'qwen2' | 'qwen3' | 'olmo' | 'olmo2' | 'granite';

/** Those of mixtures of experts. */
export type MixtureFamily =
  | 'mixtral'
  | 'qwen2_moe'
  | 'qwen3_moe'
  | 'olmoe'
  | 'flex_olmo'
  | 'glm4_moe'
  | 'granitemoeshared'
  | 'dbrx';

/** Factors that keep activations of wide and deep models apart from their size (maximal update parametrisation). */
export interface Multipliers {
  /** On embeddings as they enter the first layer. */
  readonly embedding: number;
  /** On the products of queries and keys; null for 1/√d. */
  readonly attention: number | null;
  /** On what attention and feed-forward part add to the residual stream. */
  readonly residual: number;
  /** What logits are divided by. */
  readonly logitsDivisor: number;
}

/** What sets the families apart in their mathematics. */
export interface Dialect {
  /**
   * RMS norm with a weight or layer norm without, of what attention and feed-forward part read or of what they give; the
   * final norm is of the same kind.
   */
  readonly norm: {readonly kind: 'rms' | 'layer'; readonly placement: 'before' | 'after'};
  /** RMS norm of queries and keys: of each head with one weight for all, or of all heads together. */
  readonly qkNorm: 'none' | 'head' | 'width';
  /** Which projections of attention have a bias. */
  readonly attentionBias: 'none' | 'qkv' | 'qkvo';
  /** Largest magnitude of queries, keys and values as they are projected; null for no limit. */
  readonly qkvClip: number | null;
  /** Positions see themselves and the window − 1 before them; null for all before them. */
  readonly slidingWindow: number | null;
  /** There if rotations are slowed down for a longer context. */
  readonly ropeScaling?: RopeScaling;
  readonly multipliers: Multipliers;
}

/** How router logits become the weights of the chosen experts, in the words of Hugging Face configs. */
export interface Routing {
  readonly score: 'softmax' | 'sigmoid';
  /** Whether scores are taken over all experts or over the chosen ones only. */
  readonly order: 'score-then-topk' | 'topk-then-score';
  readonly renormalise: boolean;
  /** Factor on every weight. */
  readonly scale: number;
  /**
   * What a chosen expert's result is multiplied with: its score s, one (training-free conversion), or `1 + u·s` with a number u
   * of each expert that is learnt from zero (CMoE, arXiv 2502.04416).
   */
  readonly weight: 'score' | 'one' | 'one-plus-scaled';
  /**
   * There if a token uses only so many of its K experts, in falling order of score, as it takes for their softmax to sum to this
   * (dynamic routing, arXiv 2403.07652).
   */
  readonly topP?: number;
  /**
   * There if a chosen expert weighs its softmax among those alone that were not chosen before it and whose logit is at most
   * `reach · max(|logit|, largest)` below the largest of these (Phi-3.5-MoE, where it is 2 x `router_jitter_noise`; GRIN,
   * arXiv 2409.12136).
   */
  readonly reach?: number;
}

/**
 * linear: `x·router`. representative: `|silu(x·router) ⊙ (x·routerUp)|`, the activation of one neuron of each expert
 * (CMoE, eq. 8; the absolute value is that of its code). mlp: `tanh(x·router)·routerOut`, as many hidden neurons as experts
 * and no biases (the published code of LLaMA-MoE v1, arXiv 2406.16554). cosine: `cos(x, router_e) / temperature` (X-MoE,
 * arXiv 2204.09179, without its projection to fewer dimensions). autonomy: `‖x·router_e‖` with r columns for each expert, which
 * so tells how much it has to do with x (Autonomy-of-Experts, arXiv 2501.13074).
 */
export type RouterKind = 'linear' | 'representative' | 'mlp' | 'cosine' | 'autonomy';

/**
 * Experts inside each routed expert, of which every token of it uses some beside the expert itself; a representative router
 * of its own chooses them (hierarchical CMoE, arXiv 2502.04416).
 */
export interface InnerLayout {
  /** In each routed expert. */
  readonly experts: number;
  readonly topK: number;
  readonly expertWidth: number;
  /**
   * What the result of a chosen one is multiplied with, besides the weight of the expert that it is in: its softmax score
   * among those of that expert, or one.
   */
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
      /** There if what that expert gives is multiplied by `sigmoid(x·sharedGate)` (Qwen1.5-MoE). */
      readonly sharedGate?: true;
      /** Whether the router has a bias that moves the choice and not the weight. */
      readonly selectionBias: boolean;
      /** What gives the logits: see {@link RouterKind}. */
      readonly router: RouterKind;
      /** There if the router is a cosine: what cosines are divided by. */
      readonly temperature?: number;
      /** There if the router is an autonomy: r, the columns of each expert. */
      readonly rank?: number;
      /** There if the down projection of every routed expert has a bias. */
      readonly expertBias?: true;
      /** There if experts have experts inside; `expertWidth` is then what each has besides them. */
      readonly inner?: InnerLayout;
    };

/** A layer of experts. */
export type MoeLayout = Extract<FfnLayout, {kind: 'moe'}>;

/** Everything the mathematics of a decoder needs to know besides its weights. */
export interface Architecture extends Dialect {
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

/** The layers of experts of a model, from the first. */
export function moeLayouts({ffn}: Pick<Architecture, 'ffn'>): MoeLayout[] {
  return ffn.filter((layout) => layout.kind === 'moe');
}

/** What a Llama speaks, and every other family but for a word or two. */
export const PLAIN: Dialect = {
  norm: {kind: 'rms', placement: 'before'},
  qkNorm: 'none',
  attentionBias: 'none',
  qkvClip: null,
  slidingWindow: null,
  multipliers: {embedding: 1, attention: null, residual: 1, logitsDivisor: 1},
};

/** Softmax over all experts, weights as they are: what a downcycled model trains with (ExpertWeaver, eq. 13). */
export const SOFTMAX_ROUTING: Routing = {
  score: 'softmax',
  order: 'score-then-topk',
  renormalise: false,
  scale: 1,
  weight: 'score',
};

/** Parameters in all, and those a token uses, at most where routing has a top p; embedding counted once, and as active. */
export interface ParameterCount {
  readonly total: number;
  readonly active: number;
}

/** Counts parameters from the layout alone. */
export function countParameters(architecture: Architecture): ParameterCount {
  const {vocab, width: D, heads, kvHeads, headDim, tied, ffn} = architecture;
  const attention = 2 * D * heads * headDim + 2 * D * kvHeads * headDim;
  const outside = vocab * D * (tied ? 1 : 2) + countNorm(architecture);
  const common = attention + countVectors(architecture);
  const layers = ffn.map((layout) => {
    const part = countFfn(layout, D, architecture.routing);
    return {total: part.total + common, active: part.active + common};
  });
  return {
    total: outside + layers.reduce((sum, {total}) => sum + total, 0),
    active: outside + layers.reduce((sum, {active}) => sum + active, 0),
  };
}

function countNorm({norm, width}: Architecture): number {
  return norm.kind === 'rms' ? width : 0;
}

/** Norms and biases of a layer. */
function countVectors(architecture: Architecture): number {
  const {width, heads, kvHeads, headDim, qkNorm, attentionBias} = architecture;
  const qkv = (heads + 2 * kvHeads) * headDim;
  const biases = {none: 0, qkv, qkvo: qkv + width};
  const qkNorms = {none: 0, head: 2 * headDim, width: (heads + kvHeads) * headDim};
  return 2 * countNorm(architecture) + biases[attentionBias] + qkNorms[qkNorm];
}

function countFfn(layout: FfnLayout, D: number, {weight}: Routing): ParameterCount {
  if (layout.kind === 'dense') return {total: 3 * D * layout.width, active: 3 * D * layout.width};
  const {experts, topK, expertWidth, sharedWidth, sharedGate, selectionBias} = layout;
  const vectors = (selectionBias ? experts : 0) + (weight === 'one-plus-scaled' ? experts : 0);
  const always = countRouter(layout, D) + vectors + 3 * D * sharedWidth + (sharedGate ? D : 0);
  const outer = 3 * D * expertWidth + countExpertBias(layout, D);
  const inner = countInner(layout.inner, D);
  return {total: always + (outer + inner.total) * experts, active: always + (outer + inner.active) * topK};
}

function countRouter({router, experts: E, rank = 1}: MoeLayout, D: number): number {
  const counts = {linear: D * E, representative: 2 * D * E, mlp: (D + E) * E, cosine: D * E, autonomy: D * E * rank};
  return counts[router];
}

/** The experts inside one expert, and their router. */
function countInner(inner: InnerLayout | undefined, D: number): ParameterCount {
  if (!inner) return {total: 0, active: 0};
  const {experts, topK, expertWidth} = inner;
  const router = 2 * D * experts;
  return {total: router + 3 * D * expertWidth * experts, active: router + 3 * D * expertWidth * topK};
}

/** Numbers in the bias of one routed expert. */
function countExpertBias(layout: FfnLayout, D: number): number {
  return layout.kind === 'moe' && layout.expertBias ? D : 0;
}

/**
 * FLOPs of a training step per token: 6 for every active weight used in a matmul, and the causal attention products
 * (Kaplan et al. 2020, with half the score matrix); an upper bound where routing has a top p.
 */
export function flopsPerToken(architecture: Architecture, sequenceLength: number): number {
  const {vocab, width, heads, headDim, ffn, tied} = architecture;
  const biases = ffn.map((layout) => (layout.kind === 'moe' ? layout.topK * countExpertBias(layout, width) : 0));
  const vectors =
    ffn.length * countVectors(architecture) + countNorm(architecture) + biases.reduce((sum, count) => sum + count, 0);
  const lookedUp = tied ? 0 : vocab * width;
  const matmul = countParameters(architecture).active - vectors - lookedUp;
  return 6 * matmul + 6 * ffn.length * heads * headDim * sequenceLength;
}
