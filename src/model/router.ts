import * as tf from '../engine/tfjs.js';
import {EXACT_MATRIX} from '../op/mat-mul.js';
import {multiplied} from '../op/product.js';
import {swiglu} from '../op/swiglu.js';
import {TINY} from '../op/tiny.js';
import {pickColumns, topIndices} from '../op/top-k.js';
import {untaped} from '../op/untaped.js';
import {project, solid, type Weight} from '../op/weight.js';
import type {MoeLayout, Routing} from './architecture.js';
import type {FfnTree, RouterTree} from './parameters.js';
import {reachedScores} from './reach.js';

/** What tells routers apart whose matrices are alike. */
type RouterLayout = Pick<MoeLayout, 'router' | 'experts' | 'temperature'>;

/**
 * Logits of all experts, float32 [T, E]; see `RouterKind`.
 *
 * @param layout may be left out where the router is no cosine and no autonomy.
 */
export function routerLogits(
  x_TD: tf.Tensor2D,
  {router, routerUp, routerOut}: RouterTree<Weight>,
  layout?: RouterLayout,
): tf.Tensor2D {
  if (layout?.router === 'cosine')
    return cosines(x_TD, solid(router, EXACT_MATRIX) as tf.Tensor2D, layout.temperature ?? 1);
  const first_TE = project(x_TD, router as Weight<tf.Tensor2D>, EXACT_MATRIX);
  if (routerUp) return tf.abs(swiglu(first_TE, project(x_TD, routerUp as Weight<tf.Tensor2D>, EXACT_MATRIX)));
  if (layout?.router === 'autonomy') return norms(first_TE, layout.experts);
  return routerOut ? project(tf.tanh(first_TE), routerOut as Weight<tf.Tensor2D>, EXACT_MATRIX) : first_TE;
}

/** `cos(x_t, router_e) / temperature`; 0 where either is all zeros. */
function cosines(x_TD: tf.Tensor2D, router_DE: tf.Tensor2D, temperature: number): tf.Tensor2D {
  const unit = (x: tf.Tensor2D, axis: number): tf.Tensor2D =>
    tf.div(x, tf.sqrt(tf.add(tf.sum(tf.square(x), axis, true), TINY)));
  return tf.div(multiplied(unit(x_TD, 1), unit(router_DE, 0), EXACT_MATRIX), temperature);
}

/** The length of each expert's r columns: [T, E·r] → [T, E]. */
function norms(x_TN: tf.Tensor2D, E: number): tf.Tensor2D {
  const square_TEr = tf.square(tf.reshape(x_TN, [x_TN.shape[0], E, -1]));
  return tf.sqrt(tf.add(tf.sum(square_TEr, 2), TINY)) as tf.Tensor2D;
}

/** Which experts each token uses, and how much of each. */
export interface Route {
  /** Chosen experts, int32 [T, K], E for none where a top p leaves the others out; constant to the gradient. */
  readonly expert_TK: tf.Tensor2D;
  /** Weight of each chosen expert, float32 [T, K]. */
  readonly weight_TK: tf.Tensor2D;
  /** Scores of all experts, float32 [T, E], for balance losses and statistics. */
  readonly score_TE: tf.Tensor2D;
}

/** What a router works with. */
export interface RouterInput {
  readonly x_TD: tf.Tensor2D;
  readonly params: Pick<Extract<FfnTree<Weight>, {kind: 'moe'}>, keyof RouterTree<unknown> | 'bias' | 'scale'>;
  readonly layout: MoeLayout;
  readonly routing: Routing;
}

/** The tokens that experts chose, equally many each, R = E·C of them: C of the first expert, then C of the next. */
export interface ExpertPicks {
  /** int32 [R]; constant to the gradient. */
  readonly token_R: tf.Tensor1D;
  /** What each adds to its token weighs, float32 [R]. */
  readonly weight_R: tf.Tensor1D;
}

/** What a router gave. */
export interface Routed {
  /** Of all experts, float32 [T, E]. */
  readonly logit_TE: tf.Tensor2D;
  readonly route: Route;
  /** There where experts choose their tokens; the route is then what the tokens themselves would choose. */
  readonly picks?: ExpertPicks;
  /** The chance of each expert to be chosen when noise is drawn anew, [T, E]; absent without noise. */
  readonly chance_TE?: tf.Tensor2D;
}

/** What routes the tokens of a layer in another way than the model itself does: what training may ask for. */
export interface LayerRouter {
  route(input: RouterInput, seed_2: tf.Tensor1D): Routed;
  /** Two int32 words of what it draws. */
  readonly seed_2: tf.Tensor1D;
}

/** Routes as the model does. */
export function routeByModel({x_TD, params, layout, routing}: RouterInput): Routed {
  const logit_TE = routerLogits(x_TD, params, layout);
  return {logit_TE, route: route(logit_TE, selectionBias(params), layout.topK, routing, scoreScale(params))};
}

/** What scores count in the weights `1 + u·s`, [E], or null. */
export function scoreScale({scale}: RouterInput['params']): tf.Tensor1D | null {
  return scale && (solid(scale) as tf.Tensor1D);
}

/** The selection bias of a router, [E], or null. */
export function selectionBias({bias}: RouterInput['params']): tf.Tensor1D | null {
  return bias && (solid(bias) as tf.Tensor1D);
}

/**
 * Chooses K experts for each token: `weight = scale · score(logits)[topk]`, over their sum if renormalised.
 *
 * `bias_E` moves the choice only, never the weight (auxiliary-loss-free balancing, DeepSeek-V3 eq. 16). `scale_E` is u of the
 * weights `1 + u·score`.
 * @param logit_TE float32 [T, E]; routing is done in float32 whatever the model computes in.
 */
export function route(
  logit_TE: tf.Tensor2D,
  bias_E: tf.Tensor1D | null,
  topK: number,
  routing: Routing,
  scale_E: tf.Tensor1D | null = null,
): Route {
  const score_TE = scores(logit_TE, routing);
  const ranked_TE = routing.order === 'topk-then-score' ? logit_TE : score_TE;
  const chosen_TK = topIndices(bias_E ? tf.add(ranked_TE, bias_E) : ranked_TE, topK);
  const expert_TK = withinMass(chosen_TK, score_TE, routing);
  return {expert_TK, weight_TK: weights({logit_TE, score_TE, expert_TK, scale_E}, routing), score_TE};
}

/** Sends each token to experts that something else chose; they weigh what `routing` makes of the router's logits. */
export function routeTo(
  chosen_TK: tf.Tensor2D,
  logit_TE: tf.Tensor2D,
  routing: Routing,
  scale_E: tf.Tensor1D | null = null,
): Route {
  const score_TE = scores(logit_TE, routing);
  const expert_TK = withinMass(chosen_TK, score_TE, routing);
  return {expert_TK, weight_TK: weights({logit_TE, score_TE, expert_TK, scale_E}, routing), score_TE};
}

/** Puts E in place of each chosen expert before which the scores of a token sum to the top p already. */
function withinMass(expert_TK: tf.Tensor2D, score_TE: tf.Tensor2D, {topP}: Routing): tf.Tensor2D {
  if (topP === undefined) return expert_TK;
  return untaped(() => {
    const before_TK = tf.cumsum(pickColumns(score_TE, expert_TK), 1, true);
    return tf.where(tf.less(before_TK, topP), expert_TK, tf.fill(expert_TK.shape, score_TE.shape[1], 'int32'));
  });
}

interface Scored extends Pick<Route, 'expert_TK' | 'score_TE'> {
  readonly logit_TE: tf.Tensor2D;
  readonly scale_E: tf.Tensor1D | null;
}

function weights({logit_TE, score_TE, expert_TK, scale_E}: Scored, routing: Routing): tf.Tensor2D {
  if (routing.weight === 'one') {
    return onlyChosen(tf.fill([expert_TK.shape[0], expert_TK.shape[1]], routing.scale), expert_TK, score_TE, routing);
  }
  const picked_TK = pickedScores(logit_TE, score_TE, expert_TK, routing);
  const shared_TK: tf.Tensor2D = routing.renormalise ? tf.div(picked_TK, tf.sum(picked_TK, -1, true)) : picked_TK;
  const weight_TK =
    routing.weight === 'score'
      ? shared_TK
      : onlyChosen(onePlus(shared_TK, expert_TK, scale_E, logit_TE.shape[1]), expert_TK, score_TE, routing);
  return routing.scale === 1 ? weight_TK : tf.mul(weight_TK, routing.scale);
}

/** The score of each chosen expert. */
function pickedScores(
  logit_TE: tf.Tensor2D,
  score_TE: tf.Tensor2D,
  expert_TK: tf.Tensor2D,
  routing: Routing,
): tf.Tensor2D {
  if (routing.reach !== undefined) return reachedScores(logit_TE, expert_TK, routing.reach);
  if (routing.order === 'topk-then-score') return scores(pickColumns(logit_TE, expert_TK), routing);
  return pickColumns(score_TE, expert_TK);
}

/** Weights with zeros where a top p left an expert out. */
function onlyChosen(
  weight_TK: tf.Tensor2D,
  expert_TK: tf.Tensor2D,
  score_TE: tf.Tensor2D,
  {topP}: Routing,
): tf.Tensor2D {
  if (topP === undefined) return weight_TK;
  const isChosen_TK = untaped(() => tf.cast(tf.less(expert_TK, tf.scalar(score_TE.shape[1], 'int32')), 'float32'));
  return tf.mul(weight_TK, isChosen_TK);
}

/** `1 + u_e·s`: exactly 1 while u is zero. */
function onePlus(score_TK: tf.Tensor2D, expert_TK: tf.Tensor2D, scale_E: tf.Tensor1D | null, E: number): tf.Tensor2D {
  if (!scale_E) throw new Error('weights 1 + u·s have no u');
  const scale_TE = tf.mul(tf.ones([expert_TK.shape[0], E]), scale_E) as tf.Tensor2D;
  return tf.add(1, tf.mul(pickColumns(scale_TE, expert_TK), score_TK));
}

function scores(logit_TX: tf.Tensor2D, {score}: Routing): tf.Tensor2D {
  switch (score) {
    case 'softmax':
      return tf.softmax(logit_TX);
    case 'sigmoid':
      return tf.sigmoid(logit_TX);
  }
}
