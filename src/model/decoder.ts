import * as tf from '../engine/tfjs.js';
import {embed} from '../op/embedding.js';
import {layerNorm} from '../op/layer-norm.js';
import {matMul} from '../op/mat-mul.js';
import {rmsNorm} from '../op/rms-norm.js';
import {type RopeTable, ropeAngles} from '../op/rope.js';
import {untaped} from '../op/untaped.js';
import {solid, type Weight} from '../op/weight.js';
import type {Architecture, FfnLayout} from './architecture.js';
import {type AttentionContext, attention} from './attention.js';
import type {Cache} from './cache.js';
import type {Capacity} from './capacity.js';
import {glu} from './glu.js';
import {type Chooser, moe, type RouterTrace} from './moe.js';
import type {DecoderTree, LayerTree} from './parameters.js';
import {type LayerFunction, type LayerResult, recomputedLayer} from './recomputed-layer.js';
import {ropeAmplitude, ropeFrequencies} from './rope-frequencies.js';
import type {LayerRouter, Routed, RouterInput} from './router.js';

/** Tokens of a batch, with document segments when attention must stop at document boundaries. */
export interface DecoderInput {
  /** int32 [B, S] */
  readonly token_BS: tf.Tensor2D;
  /** int32 [B, S], rising by one at each new document of a row. */
  readonly segment_BS?: tf.Tensor2D;
  /**
   * There if the rows go on at position `start` (int32 [1]) after what a cache has; they are written into it. Rows of one
   * document, and no gradient.
   */
  readonly past?: {readonly cache: Cache; readonly start_1: tf.Tensor1D};
}

/** How a forward pass is run. */
export interface ForwardOptions {
  /** Default `'dropless'`. */
  readonly capacity?: Capacity | 'chosen';
  /** Default `'router'`; `'oracle'` is for measuring only. */
  readonly chooser?: Chooser;
  /** What routes a layer instead, by its number: for training. */
  readonly routerOf?: (layer: number) => LayerRouter;
  /** Whether the gradient computes each layer again instead of keeping what it computed. Default false. */
  readonly recomputesLayers?: boolean;
  /** Sees what every feed-forward part computes with, [T, D]: how activations are profiled. */
  readonly onFfnInput?: (layer: number, x_TD: tf.Tensor2D) => void;
}

/** What a decoder computed, and what every router did (one entry a MoE layer). */
export interface DecoderOutput {
  /** Hidden states after the last norm, divided by the divisor of logits: times the head they are the logits. */
  readonly hidden_TD: tf.Tensor2D;
  readonly routers: readonly RouterTrace[];
}

/** Runs a decoder up to the final norm; multiply by the head for logits. */
export function decode(
  params: DecoderTree<Weight>,
  architecture: Architecture,
  {token_BS, segment_BS, past}: DecoderInput,
  options: ForwardOptions = {},
): DecoderOutput {
  const [batch, sequence] = token_BS.shape;
  const context = attentionContext(architecture, batch, sequence, segment_BS ?? null, past);
  const routers: RouterTrace[] = [];
  const {multipliers} = architecture;
  const embedded = embed(solid(params.embed) as tf.Tensor2D, tf.reshape(token_BS, [batch * sequence]));
  let x_TD = times(embedded, multipliers.embedding);
  for (const [index, layer] of params.layers.entries()) {
    const layout = architecture.ffn[index];
    if (!layout) throw new Error(`the architecture has no layer ${index}`);
    const onInput = (y_TD: tf.Tensor2D): void => options.onFfnInput?.(index, y_TD);
    const other = options.routerOf?.(index);
    const run: LayerFunction = (input_TD, weights, given) => {
      const {seed_2} = given; // the very tensor: where a layer is computed again it waits for the gradient
      const chooser = other && seed_2 ? (input: RouterInput) => other.route(input, seed_2) : options.chooser;
      return decoderLayer(input_TD, weights, layout, architecture, given, {
        ...options,
        ...(chooser && {chooser}),
        onInput,
      });
    };
    const given = {...context, ...pastOf(past, index), seed_2: other?.seed_2 ?? null};
    const {next_TD, router} = options.recomputesLayers
      ? recomputedLayer(run, x_TD, layer, given)
      : run(x_TD, layer, given);
    if (router) routers.push(router);
    x_TD = next_TD;
  }
  return {hidden_TD: finalHidden(x_TD, params.norm, architecture), routers};
}

/** What attention needs to know of a batch of rows. */
export function attentionContext(
  architecture: Architecture,
  batch: number,
  sequence: number,
  segment_BS: tf.Tensor2D | null = null,
  past: DecoderInput['past'] = undefined,
): AttentionContext {
  const rope = untaped(() =>
    past ? laterRope(architecture, sequence, past) : ropeTable(architecture, sequence, segment_BS),
  );
  return {batch, sequence, rope, segment_BS};
}

/** The part of a cache that is a layer's. */
function pastOf(past: DecoderInput['past'], index: number): Pick<AttentionContext, 'past'> {
  const layer = past?.cache.layers[index];
  return past && layer ? {past: {start_1: past.start_1, layer}} : {};
}

/** The first half of a layer: the residual stream after attention, and the input of the feed-forward part; both [T, D]. */
export function throughAttention(
  x_TD: tf.Tensor2D,
  layer: LayerTree<Weight>,
  architecture: Architecture,
  context: AttentionContext,
): {h_TD: tf.Tensor2D; y_TD: tf.Tensor2D} {
  const normed_TD = inputOf(x_TD, layer.attentionNorm, architecture);
  const mixed_TD = attention(normed_TD, layer.attention, architecture, context);
  const h_TD = addPart(x_TD, mixed_TD, layer.attentionNorm, architecture);
  return {h_TD, y_TD: inputOf(h_TD, layer.ffnNorm, architecture)};
}

/** The end of a layer: what the feed-forward part gave joins the residual stream. */
export function addFfn(
  h_TD: tf.Tensor2D,
  ffn_TD: tf.Tensor2D,
  {ffnNorm}: LayerTree<Weight>,
  architecture: Architecture,
): tf.Tensor2D {
  return addPart(h_TD, ffn_TD, ffnNorm, architecture);
}

/** Hidden states after the last layer as the head takes them: normed, and over the divisor of the logits. */
export function finalHidden(x_TD: tf.Tensor2D, norm: Weight | null, architecture: Architecture): tf.Tensor2D {
  return times(normalise(x_TD, norm, architecture), 1 / architecture.multipliers.logitsDivisor);
}

/** Logits of hidden states, [T, V]. */
export function logits(hidden_TD: tf.Tensor2D, params: DecoderTree<Weight>): tf.Tensor2D {
  return matMul(hidden_TD, headOf(params), {transposeB: true});
}

/** The matrix that turns hidden states into logits, [V, D]: the embedding's where they are tied. */
export function headOf({head, embed: table}: DecoderTree<Weight>): tf.Tensor2D {
  return solid(head ?? table) as tf.Tensor2D;
}

/** How one layer is run. */
interface LayerOptions extends Pick<ForwardOptions, 'capacity'> {
  readonly chooser?: Chooser | ((input: RouterInput) => Routed);
  readonly onInput?: (y_TD: tf.Tensor2D) => void;
}

/** Hidden states before a layer to those after it, [T, D], and what its router did if it has one. */
export function decoderLayer(
  x_TD: tf.Tensor2D,
  layer: LayerTree<Weight>,
  layout: FfnLayout,
  architecture: Architecture,
  context: AttentionContext,
  {capacity = 'dropless', chooser = 'router', onInput}: LayerOptions = {},
): LayerResult {
  const {h_TD, y_TD} = throughAttention(x_TD, layer, architecture, context);
  onInput?.(y_TD);
  if (layer.ffn.kind === 'dense') {
    return {next_TD: addFfn(h_TD, glu(y_TD, layer.ffn), layer, architecture), router: null};
  }
  if (layout.kind !== 'moe') throw new Error('a layer has experts its architecture does not name');
  const result = moe(y_TD, layer.ffn, layout, architecture.routing, capacity, chooser);
  return {next_TD: addFfn(h_TD, result.y_TD, layer, architecture), router: result.router};
}

/** `x + factor · part`, or `x + factor · norm(part)` where norms come after. */
function addPart(
  x_TD: tf.Tensor2D,
  part_TD: tf.Tensor2D,
  weight: Weight | null,
  architecture: Architecture,
): tf.Tensor2D {
  const {norm, multipliers} = architecture;
  const y_TD = norm.placement === 'after' ? normalise(part_TD, weight, architecture) : part_TD;
  return tf.add(x_TD, times(y_TD, multipliers.residual));
}

/** What a part of a layer sees: `norm(x)`, or x itself where norms come after. */
function inputOf(x_TD: tf.Tensor2D, weight: Weight | null, architecture: Architecture): tf.Tensor2D {
  return architecture.norm.placement === 'before' ? normalise(x_TD, weight, architecture) : x_TD;
}

function normalise(x_TD: tf.Tensor2D, weight: Weight | null, {norm, normEps}: Architecture): tf.Tensor2D {
  if (norm.kind === 'layer') return layerNorm(x_TD, normEps);
  if (!weight) throw new Error('an RMS norm has no weight');
  return rmsNorm(x_TD, solid(weight) as tf.Tensor1D, normEps);
}

function times(x_TD: tf.Tensor2D, factor: number): tf.Tensor2D {
  return factor === 1 ? x_TD : tf.mul(x_TD, factor);
}

/** Angles of every position; positions start again at each segment. Shapes broadcast to [B, H, S, d/2]. */
function ropeTable(
  {headDim, ropeTheta, ropeScaling}: Architecture,
  S: number,
  segment_BS: tf.Tensor2D | null,
): RopeTable {
  const frequencies = ropeFrequencies(headDim, ropeTheta, ropeScaling);
  const angles = ropeAngles(S, frequencies, ropeAmplitude(ropeScaling));
  const cos = tf.tensor2d(angles.cos, [S, headDim / 2]);
  const sin = tf.tensor2d(angles.sin, [S, headDim / 2]);
  if (!segment_BS) return {cos, sin};
  const position_BS = positionInSegment(segment_BS);
  return {cos: tf.expandDims(tf.gather(cos, position_BS), 1), sin: tf.expandDims(tf.gather(sin, position_BS), 1)};
}

/** Angles of the positions from `start` on. */
function laterRope(
  architecture: Architecture,
  S: number,
  {cache, start_1}: NonNullable<DecoderInput['past']>,
): RopeTable {
  const {cos, sin} = ropeTable(architecture, cache.capacity, null);
  const position_S = tf.add(
    tf.tensor1d(
      Int32Array.from({length: S}, (_, s) => s),
      'int32',
    ),
    start_1,
  ) as tf.Tensor1D;
  return {cos: tf.gather(cos, position_S), sin: tf.gather(sin, position_S)};
}

/** Distance of each position from the first one of its segment, int32 [B, S]. */
function positionInSegment(segment_BS: tf.Tensor2D): tf.Tensor {
  const S = segment_BS.shape[1];
  const same = tf.cast(tf.equal(tf.expandDims(segment_BS, 2), tf.expandDims(segment_BS, 1)), 'float32');
  const earlier = tf.tensor2d(
    Float32Array.from({length: S * S}, (_, i) => (i % S < Math.floor(i / S) ? 1 : 0)),
    [S, S],
  );
  return tf.cast(tf.sum(tf.mul(same, earlier), 2), 'int32');
}
