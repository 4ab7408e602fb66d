// A decoder layer of which only the input is kept for the backward pass.
import * as tf from '../engine/tfjs.js';
import {recomputeWithReport, type WithReport} from '../op/recompute.js';
import {isLowRank, type Weight} from '../op/weight.js';
import type {AttentionContext} from './attention.js';
import type {RouterTrace} from './moe.js';
import {type LayerTree, mapLayer} from './parameters.js';

/** What a layer gives: hidden states after it, and what its router did if it has one. */
export interface LayerResult {
  readonly next_TD: tf.Tensor2D;
  readonly router: RouterTrace | null;
}

/** What a layer needs besides weights. */
export interface LayerContext extends AttentionContext {
  /** Of what its router draws, two int32 words; null if it draws nothing. */
  readonly seed_2: tf.Tensor1D | null;
}

/** A layer as a function of everything it computes with. */
export type LayerFunction = (x_TD: tf.Tensor2D, layer: LayerTree<Weight>, context: LayerContext) => LayerResult;

/** The result of `run`, which is run again when the gradient needs what it computed. */
export function recomputedLayer(
  run: LayerFunction,
  x_TD: tf.Tensor2D,
  layer: LayerTree<Weight>,
  context: LayerContext,
): LayerResult {
  const weights = tensorsOf(layer);
  let columns: number[] = [];
  let hasInner = false;
  const packed = (...tensors: tf.Tensor[]): WithReport => {
    const queue = tensors.slice(1);
    const again = layerOf(layer, queue);
    const {next_TD, router} = run(tensors[0] as tf.Tensor2D, again, contextOf(context, queue));
    const parts = router ? [next_TD, ...gradedOf(router)] : [next_TD];
    columns = parts.map(({shape}) => shape[1]);
    hasInner = router?.innerLoad_N != null;
    return {value: router ? tf.concat2d(parts, 1) : next_TD, report: router ? constantsOf(router) : []};
  };
  const {value, report} = recomputeWithReport(packed, [x_TD, ...weights], contextTensors(layer, context));
  if (columns.length === 1) return {next_TD: value as tf.Tensor2D, router: null};
  const [next_TD, logit_TE, score_TE, weight_TK, chance_TE] = tf.split(value, columns, 1) as [
    ...[tf.Tensor2D, tf.Tensor2D, tf.Tensor2D, tf.Tensor2D],
    tf.Tensor2D | undefined,
  ];
  const [expert_TK, load_E, innerLoad_N] = report as [tf.Tensor2D, tf.Tensor1D, tf.Tensor1D];
  const constants = {expert_TK, load_E, innerLoad_N: hasInner ? innerLoad_N : null};
  const router = {logit_TE, score_TE, weight_TK, ...(chance_TE && {chance_TE}), ...constants};
  return {next_TD, router};
}

/** What a router gives that has a gradient. */
function gradedOf({logit_TE, score_TE, weight_TK, chance_TE}: RouterTrace): tf.Tensor2D[] {
  return [logit_TE, score_TE, weight_TK, ...(chance_TE ? [chance_TE] : [])];
}

function constantsOf({expert_TK, load_E, innerLoad_N}: RouterTrace): tf.Tensor[] {
  return innerLoad_N ? [expert_TK, load_E, innerLoad_N] : [expert_TK, load_E];
}

/** The tensors of a layer that have a gradient, in the order of its leaves. */
function tensorsOf(layer: LayerTree<Weight>): tf.Tensor[] {
  const tensors: tf.Tensor[] = [];
  mapLayer(layer, (leaf) => tensors.push(...(isLowRank(leaf) ? [leaf.base, leaf.a, leaf.b] : [leaf])));
  return tensors;
}

/** Those that have none: the seeds of dropout, what attention knows of the batch, the seed of the router. */
function contextTensors(layer: LayerTree<Weight>, {rope, segment_BS, seed_2}: LayerContext): tf.Tensor[] {
  const seeds: tf.Tensor[] = [];
  mapLayer(layer, (leaf) => isLowRank(leaf) && leaf.dropout && seeds.push(leaf.dropout.seed_2));
  return [...seeds, rope.cos, rope.sin, ...(segment_BS ? [segment_BS] : []), ...(seed_2 ? [seed_2] : [])];
}

/** The same layer with tensors from a queue: weights first, then seeds. */
function layerOf(layer: LayerTree<Weight>, queue: tf.Tensor[]): LayerTree<Weight> {
  const next = (): tf.Tensor => {
    const tensor = queue.shift();
    if (!tensor) throw new Error('too few tensors for the layer');
    return tensor;
  };
  const weighted = mapLayer(layer, (leaf): Weight => {
    const tensor = next();
    return isLowRank(leaf) ? {...leaf, base: tensor, a: next(), b: next()} : tensor;
  });
  return mapLayer(weighted, (leaf): Weight => {
    if (!isLowRank(leaf) || !leaf.dropout) return leaf;
    return {...leaf, dropout: {...leaf.dropout, seed_2: next() as tf.Tensor1D}};
  });
}

function contextOf(context: LayerContext, [cos, sin, ...others]: readonly tf.Tensor[]): LayerContext {
  if (!cos || !sin) throw new Error('too few tensors for the context of a layer');
  const segment_BS = (context.segment_BS && others.shift()) as tf.Tensor2D | null;
  const seed_2 = (context.seed_2 && others.shift()) as tf.Tensor1D | null;
  return {...context, rope: {cos, sin}, segment_BS, seed_2};
}
