import * as tf from '../engine/tfjs.js';
import {chosenProduct} from '../op/chosen-experts.js';
import {fromEveryExpert, toEveryExpert} from '../op/every-expert.js';
import {addRows, takeRows} from '../op/expert-choice.js';
import {
  addExpertBias,
  combine,
  dispatch,
  type ExpertRoom,
  type ExpertSlots,
  expertProduct,
  expertSlots,
  type RowsByExpert,
} from '../op/experts.js';
import {loopedProduct} from '../op/looped-experts.js';
import {EXACT_MATRIX, matMul} from '../op/mat-mul.js';
import {oneHot} from '../op/one-hot.js';
import type {Product} from '../op/product.js';
import {swiglu} from '../op/swiglu.js';
import {topIndices} from '../op/top-k.js';
import {untaped} from '../op/untaped.js';
import {isLowRank, project, projectSwiglu, solid, type Weight} from '../op/weight.js';
import type {MoeLayout, Routing} from './architecture.js';
import {type Capacity, type ExpertSizes, expertRoom} from './capacity.js';
import {glu} from './glu.js';
import {flatExperts, flatLayout, routeInside} from './inner.js';
import type {FfnTree, GluTree} from './parameters.js';
import {
  type ExpertPicks,
  type Route,
  type Routed,
  type RouterInput,
  routeByModel,
  routerLogits,
  routeTo,
  scoreScale,
} from './router.js';

type MoeTree<T> = Extract<FfnTree<T>, {kind: 'moe'}>;

/** What a layer's router did, for balance losses and logs. */
export interface RouterTrace {
  readonly logit_TE: tf.Tensor2D;
  readonly score_TE: tf.Tensor2D;
  /** Chosen experts, int32, and what each weighs, [T, K]; where experts choose, what the tokens themselves would. */
  readonly expert_TK: tf.Tensor2D;
  readonly weight_TK: tf.Tensor2D;
  /** See {@link Routed}. */
  readonly chance_TE?: tf.Tensor2D;
  /** Pairs that wanted each expert, int32 [E]. */
  readonly load_E: tf.Tensor1D;
  /** The same of the experts inside them, int32 [E·e]; null where there are none. */
  readonly innerLoad_N: tf.Tensor1D | null;
}

/**
 * What chooses a token's experts: the router, or the oracle, which looks at what every expert would do and takes those of
 * the largest Σ|h| over their neurons (ground-truth selection of MoEfication, arXiv 2110.01786). A yardstick for routers: the
 * experts it chooses weigh what the model's router gives them, or one where that is its rule.
 */
export type Chooser = 'router' | 'oracle';

/**
 * A mixture-of-experts layer: `shared(x) + Σ_k weight_k · expert_k(x)`, [T, D] → [T, D]; the shared part may have a gate.
 *
 * An expert with experts inside is itself such a layer. All those inside are dispatched to at once, as experts of their own
 * whose weight is the product of both.
 */
export function moe(
  x_TD: tf.Tensor2D,
  params: MoeTree<Weight>,
  layout: MoeLayout,
  routing: Routing,
  capacity: Capacity | 'chosen',
  chooser: Chooser | ((input: RouterInput) => Routed) = 'router',
): {y_TD: tf.Tensor2D; router: RouterTrace} {
  const activity = chooser === 'oracle' ? activityOf(x_TD, params) : null;
  const input = {x_TD, params, layout, routing};
  const {
    route: chosen,
    picks,
    ...routed
  } = activity
    ? routeByActivity(input, activity.outer_TE)
    : (typeof chooser === 'function' ? chooser : routeByModel)(input);
  const outer = picks
    ? pickedTokens(x_TD, params, picks)
    : throughExperts(x_TD, params, chosen, asChosen(layout, chosen), capacity);
  const inner = throughInner(x_TD, params, layout, chosen, capacity, activity?.inner_TN ?? null);
  const shared_TD = throughShared(x_TD, params);
  const parts = [outer.y_TD, ...(inner ? [inner.y_TD] : []), ...(shared_TD ? [shared_TD] : [])];
  return {
    y_TD: parts.reduce((sum, part) => tf.add(sum, part)),
    router: {...routed, ...chosen, load_E: outer.load_E, innerLoad_N: inner?.load_E ?? null},
  };
}

/** What the expert that every token uses gives, times `sigmoid(x·sharedGate)` where it has a gate; null where there is none. */
function throughShared(x_TD: tf.Tensor2D, {shared, sharedGate}: MoeTree<Weight>): tf.Tensor2D | null {
  if (!shared) return null;
  const y_TD = glu(x_TD, shared);
  if (!sharedGate) return y_TD;
  const gate_T1 = tf.sigmoid(project(x_TD, sharedGate as Weight<tf.Tensor2D>, EXACT_MATRIX));
  return tf.mul(y_TD, gate_T1) as tf.Tensor2D;
}

/** A layer with as many experts a token as something else than its router chose. */
function asChosen(layout: MoeLayout, {expert_TK}: Route): MoeLayout {
  return {...layout, topK: expert_TK.shape[1]};
}

function routeByActivity({x_TD, params, layout, routing}: RouterInput, activity_TE: tf.Tensor2D): Routed {
  const logit_TE = routerLogits(x_TD, params, layout);
  const expert_TK = topIndices(activity_TE, layout.topK);
  return {logit_TE, route: routeTo(expert_TK, logit_TE, routing, scoreScale(params))};
}

/** What the experts inside the chosen ones give; null where there are none. */
function throughInner(
  x_TD: tf.Tensor2D,
  {inner}: MoeTree<Weight>,
  layout: MoeLayout,
  chosen: Route,
  capacity: Capacity | 'chosen',
  activity_TN: tf.Tensor2D | null,
): Computed | null {
  if (!inner || !layout.inner) return null;
  const inside = routeInside(x_TD, inner, layout.inner, chosen, activity_TN);
  const experts = flatExperts(inner.experts);
  return throughExperts(x_TD, {experts, expertBias: null}, inside, flatLayout(layout, layout.inner), capacity);
}

/** Stacked experts and what each adds. */
type Experts = Pick<MoeTree<Weight>, 'experts' | 'expertBias'>;
type Choice = Pick<Route, 'expert_TK' | 'weight_TK'>;

interface Computed {
  readonly y_TD: tf.Tensor2D;
  readonly load_E: tf.Tensor1D;
}

/** How rows get to their experts: `'chosen'` where few enough tokens read only the matrices that they chose. */
function roomOf(capacity: Capacity | 'chosen', T: number, sizes: ExpertSizes): ExpertRoom | 'all' | 'chosen' {
  if (capacity !== 'chosen') return expertRoom(capacity, T, sizes);
  return T * sizes.topK <= sizes.experts ? 'chosen' : expertRoom('dropless', T, sizes);
}

function throughExperts(
  x_TD: tf.Tensor2D,
  experts: Experts,
  chosen: Choice,
  sizes: ExpertSizes,
  capacity: Capacity | 'chosen',
): Computed {
  const room = roomOf(capacity, x_TD.shape[0], sizes);
  switch (room) {
    case 'all':
      return everyToken(x_TD, experts, chosen);
    case 'chosen':
      return chosenMatrices(x_TD, experts, chosen);
    default:
      return gatheredTokens(x_TD, experts, chosen, room, capacity === 'chosen' ? loopedProduct : expertProduct);
  }
}

function numExpertsOf(stacked: Weight): number {
  return (isLowRank(stacked) ? stacked.base : stacked).shape[0] ?? 0;
}

/** Each expert computes the rows sent to it: gather, GLU by expert, gather back. */
function gatheredTokens(
  x_TD: tf.Tensor2D,
  experts: Experts,
  {expert_TK, weight_TK}: Choice,
  room: ExpertRoom,
  productOf: (slots: ExpertSlots) => Product<tf.Tensor2D, tf.Tensor3D>,
): Computed {
  const slots = expertSlots(expert_TK, numExpertsOf(experts.experts.gate), room);
  const y_RD = throughRows(dispatch(x_TD, slots), experts, slots, productOf(slots));
  return {y_TD: combine(y_RD, weight_TK, slots), load_E: slots.load_E};
}

/** Each token goes through the matrices of its own experts, which are read for it alone; no gradient. */
function chosenMatrices(x_TD: tf.Tensor2D, experts: Experts, {expert_TK, weight_TK}: Choice): Computed {
  const [T, K] = expert_TK.shape;
  const E = numExpertsOf(experts.experts.gate);
  const last = tf.scalar(E - 1, 'int32');
  const expert_P: tf.Tensor1D = tf.reshape(tf.minimum(expert_TK, last), [T * K]); // none, where a top p left it out, weighs 0
  const x_PD = tf.reshape(tf.tile(tf.expandDims(x_TD, 1), [1, K, 1]), [T * K, x_TD.shape[1]]) as tf.Tensor2D;
  const y_PD = byExpert(x_PD, experts, chosenProduct(expert_P));
  const bias_ED = experts.expertBias && (solid(experts.expertBias) as tf.Tensor2D);
  const biased_PD = bias_ED ? tf.add(y_PD, tf.gather(bias_ED, expert_P)) : y_PD;
  const weighted_TKD = tf.mul(tf.reshape(biased_PD, [T, K, -1]), tf.expandDims(weight_TK, 2));
  return {y_TD: tf.sum(weighted_TKD, 1), load_E: loadOf(oneHot(expert_TK, E))};
}

/** Pairs that wanted each expert, of their one-hot rows. */
function loadOf(chosen_TKE: tf.Tensor): tf.Tensor1D {
  return untaped(() => tf.cast(tf.sum(chosen_TKE, [0, 1]), 'int32')) as tf.Tensor1D;
}

/** Each expert computes the tokens that it chose: gather, GLU by expert, scatter-add. */
function pickedTokens(x_TD: tf.Tensor2D, experts: Experts, {token_R, weight_R}: ExpertPicks): Computed {
  const E = numExpertsOf(experts.experts.gate);
  const rows = token_R.size / E;
  const slots = {room: {rows, blockRows: 1, blocks: 0}, expert_S: tf.zeros([0], 'int32') as tf.Tensor1D};
  const own_RD = throughRows(takeRows(x_TD, token_R), experts, slots, expertProduct(slots));
  const y_RD = tf.mul(own_RD, tf.expandDims(weight_R, 1)) as tf.Tensor2D;
  return {y_TD: addRows(y_RD, token_R, x_TD.shape[0]), load_E: untaped(() => tf.fill([E], rows, 'int32'))};
}

/** Rows through the expert that each belongs to, [R, D]. */
function throughRows(
  x_RD: tf.Tensor2D,
  experts: Experts,
  slots: RowsByExpert,
  product: Product<tf.Tensor2D, tf.Tensor3D>,
): tf.Tensor2D {
  const y_RD = byExpert(x_RD, experts, product);
  return experts.expertBias ? addExpertBias(y_RD, solid(experts.expertBias) as tf.Tensor2D, slots) : y_RD;
}

/** The GLU of each row's expert, without a bias: [R, D] → [R, D]. */
function byExpert(
  x_RD: tf.Tensor2D,
  {experts: {gate, up, down}}: Experts,
  product: Product<tf.Tensor2D, tf.Tensor3D>,
): tf.Tensor2D {
  const projected = (w: Weight): tf.Tensor2D => project(x_RD, w as Weight<tf.Tensor3D>, product);
  return projectSwiglu(projected(gate), projected(up), down as Weight<tf.Tensor3D>, product);
}

/** Every expert computes every token, weighted by zero where it was not chosen: exact, and three plain matmuls. */
function everyToken(x_TD: tf.Tensor2D, {experts, expertBias}: Experts, {expert_TK, weight_TK}: Choice): Computed {
  const chosen_TKE = untaped(() => oneHot(expert_TK, numExpertsOf(experts.gate)));
  const weight_TE: tf.Tensor2D = tf.sum(tf.mul(tf.expandDims(weight_TK, -1), chosen_TKE), 1);
  const weighted_TEF: tf.Tensor3D = tf.mul(hiddenOfAll(x_TD, experts), tf.expandDims(weight_TE, -1));
  const y_TD = fromEveryExpert(weighted_TEF, experts.down as Weight<tf.Tensor3D>);
  const load_E = loadOf(chosen_TKE);
  if (!expertBias) return {y_TD, load_E};
  return {y_TD: tf.add(y_TD, matMul(weight_TE, solid(expertBias) as tf.Tensor2D)) as tf.Tensor2D, load_E};
}

/** What the oracle looks at: Σ|h| over all neurons of each expert, [T, E], and of each one inside, [T, E·e]. */
function activityOf(
  x_TD: tf.Tensor2D,
  {experts, inner}: MoeTree<Weight>,
): {readonly outer_TE: tf.Tensor2D; readonly inner_TN: tf.Tensor2D | null} {
  const own_TE = expertActivity(x_TD, experts);
  if (!inner) return {outer_TE: own_TE, inner_TN: null};
  const inner_TN = expertActivity(x_TD, flatExperts(inner.experts));
  const [T, E] = own_TE.shape;
  return {outer_TE: tf.add(own_TE, tf.sum(tf.reshape(inner_TN, [T, E, -1]), 2)), inner_TN};
}

/** Σ|h| over the neurons of each expert, [T, E]. */
function expertActivity(x_TD: tf.Tensor2D, experts: GluTree<Weight>): tf.Tensor2D {
  return tf.sum(tf.abs(hiddenOfAll(x_TD, experts)), 2);
}

/** h of every neuron of every expert, [T, E, F]. */
function hiddenOfAll(x_TD: tf.Tensor2D, {gate, up}: GluTree<Weight>): tf.Tensor3D {
  const ofAll = (w: Weight): tf.Tensor3D => toEveryExpert(x_TD, w as Weight<tf.Tensor3D>);
  return swiglu(ofAll(gate), ofAll(up));
}
