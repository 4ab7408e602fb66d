// Routers out of what their FFN reads: a row is a k-means centre of FFN inputs (LLaMA-MoE v2, arXiv 2411.15708).
// Shapes: T tokens, D width, F neurons, E experts and as many clusters C; R of them at most in any layer.

import {compile} from '../engine/compile.js';
import * as tf from '../engine/tfjs.js';
import {throughAttention} from '../model/decoder.js';
import {gluHidden} from '../model/glu.js';
import {hiddenTensor, type LayerScope, type Walk} from '../model/walk.js';
import {matMul} from '../op/mat-mul.js';
import {TINY} from '../op/tiny.js';
import {DataError} from '../util/errors.js';
import type {Rng} from '../util/rng.js';
import {optimalAssignment} from './assignment.js';
import {MAX_ROUNDS, spreadCentroids} from './balanced-k-means.js';
import {addTo} from './statistics.js';
import {denseFfn} from './watch.js';

/** Tokens, spread evenly over the text, that the first centres are drawn from. */
const START_TOKENS = 4096;

/** Compiles what clustering runs, on the loaded layer or on what it gave; once for all layers. */
export function compileCentres(walk: Walk) {
  const inputOf = ({params, context}: LayerScope, x_TD: tf.Tensor2D): tf.Tensor2D =>
    throughAttention(x_TD, params, walk.architecture, context).y_TD;
  const memberOf = (cluster_T: tf.Tensor1D, R: number): tf.Tensor2D => tf.oneHot(cluster_T, R).toFloat() as tf.Tensor2D;
  const directions = walk.compile('ffn_directions', (scope, x_TD: tf.Tensor2D) => {
    const y_TD = inputOf(scope, x_TD);
    return {unit_TD: tf.div<tf.Tensor2D>(y_TD, tf.maximum(tf.norm(y_TD, 'euclidean', 1, true), TINY))};
  });
  const nearest = walk.own(
    compile(
      (unit_TD: tf.Tensor2D, centre_RD: tf.Tensor2D, numCentres: tf.Tensor1D) => {
        const R = centre_RD.shape[0];
        const isThere_R = tf.less(tf.range(0, R, 1, 'int32'), numCentres);
        const cosine_TR = tf.where(isThere_R, matMul(unit_TD, centre_RD, {transposeB: true}), -2);
        const cluster_T = tf.argMax(cosine_TR, 1) as tf.Tensor1D;
        return {cluster_T, sum_RD: matMul(memberOf(cluster_T, R), unit_TD, {transposeA: true})};
      },
      {name: 'nearest_centres'},
    ),
  );
  const activity = walk.compile(
    'cluster_activity',
    (scope, x_TD: tf.Tensor2D, cluster_T: tf.Tensor1D, member_RF: tf.Tensor2D) => {
      const h_TF: tf.Tensor2D = tf.abs(gluHidden(inputOf(scope, x_TD), denseFfn(scope.params.ffn)));
      const activity_TR = matMul(h_TF, member_RF, {transposeB: true});
      return {activity_CE: matMul(memberOf(cluster_T, member_RF.shape[0]), activity_TR, {transposeA: true})};
    },
  );
  return {directions, nearest, activity};
}

/** What is clustered: some text before the loaded layer, for experts of that layer. */
export interface CentreInput {
  readonly walk: Walk;
  readonly functions: ReturnType<typeof compileCentres>;
  /** Hidden states before the layer, float32 [T, D] each. */
  readonly batches: readonly Float32Array[];
  /** 1 where a neuron is an expert's; rows from `numExperts` on are those of experts that the layer does not have. */
  readonly member_RF: tf.Tensor2D;
  readonly numExperts: number;
  readonly rng: Rng;
}

/**
 * Row e = the centre of the cluster of FFN inputs that is expert e's, of length one; float32 [E, D].
 *
 * Clusters are those of spherical k-means (Dhillon and Modha 2001): a token belongs to the centre of the largest cosine, so
 * that of all rows its own cluster's has the largest `x·row`. Each expert gets one cluster, such that tokens find as
 * much activity Σ|h| as can be in the experts of their clusters (optimal assignment).
 * @throws DataError if there are fewer tokens than experts.
 */
export async function inputCentres(input: CentreInput): Promise<Float32Array> {
  const {numExperts: E, walk} = input;
  const D = walk.architecture.width;
  const {centre_ED, clusters} = await sphericalKMeans(input, await readDirections(input));
  const activity_CE = await clusterActivity(input, clusters);
  const most = activity_CE.reduce((a, b) => Math.max(a, b), 0);
  const {groupOf_N: expertOf_C} = optimalAssignment({
    cost_NE: activity_CE.map((activity) => most - activity),
    capacity_E: new Int32Array(E).fill(1),
  });
  const row_ED = new Float32Array(E * D);
  expertOf_C.forEach((expert, c) => {
    row_ED.set(centre_ED.subarray(c * D, (c + 1) * D), expert * D);
  });
  return row_ED;
}

/** FFN inputs of the loaded layer, brought to length one. */
async function readDirections({walk, functions, batches}: CentreInput): Promise<Float32Array[]> {
  const units: Float32Array[] = [];
  for (const batch of batches) {
    const x_TD = hiddenTensor(walk, batch);
    const {unit_TD} = await functions.directions(x_TD);
    units.push(Float32Array.from(await unit_TD.data()));
    tf.dispose([x_TD, unit_TD]);
  }
  return units;
}

interface Clustering {
  /** float32 [E, D], of length one. */
  readonly centre_ED: Float32Array;
  /** The nearest of them to every token, batch by batch. */
  readonly clusters: readonly Int32Array[];
}

async function sphericalKMeans(input: CentreInput, units: readonly Float32Array[]): Promise<Clustering> {
  let centre_ED = firstCentres(input, units);
  for (let round = 1, before: Int32Array[] = []; ; round++) {
    const {clusters, sum_ED} = await assign(input, units, centre_ED);
    const isSettled = clusters.every((cluster_T, b) => cluster_T.every((cluster, t) => cluster === before[b]?.[t]));
    if (isSettled || round === MAX_ROUNDS) return {centre_ED, clusters};
    centre_ED = moveCentres(centre_ED, sum_ED, input.walk.architecture.width);
    before = clusters;
  }
}

/** Directions that lie apart: see {@link spreadCentroids}. */
function firstCentres({walk, numExperts, rng}: CentreInput, units: readonly Float32Array[]): Float32Array {
  const D = walk.architecture.width;
  const perBatch = (units[0]?.length ?? 0) / D;
  const numTokens = perBatch * units.length;
  if (numTokens < numExperts) {
    throw new DataError(`Router centroid asks for ${numExperts} clusters of ${numTokens} calibration tokens.`, {
      hint: 'Raise profile.samplesPerTask or profile.tokensPerSample, or lower experts.',
    });
  }
  const count = Math.min(numTokens, Math.max(START_TOKENS, numExperts));
  const value_NJ = new Float64Array(count * D);
  for (let i = 0; i < count; i++) {
    const token = Math.floor((i * numTokens) / count);
    const at = (token % perBatch) * D;
    value_NJ.set(units[Math.floor(token / perBatch)]?.subarray(at, at + D) ?? [], i * D);
  }
  return Float32Array.from(spreadCentroids({value_NJ, numFeatures: D}, numExperts, rng));
}

/** The nearest centre of every token, and the sum of each centre's tokens. */
async function assign(
  {walk, functions, member_RF, numExperts}: CentreInput,
  units: readonly Float32Array[],
  centre_ED: Float32Array,
) {
  const [R, D] = [member_RF.shape[0], walk.architecture.width];
  const padded = new Float32Array(R * D);
  padded.set(centre_ED);
  const centres = [tf.tensor2d(padded, [R, D]), tf.tensor1d([numExperts], 'int32')] as const;
  const clusters: Int32Array[] = [];
  const sum_ED = new Float64Array(centre_ED.length);
  for (const unit of units) {
    const unit_TD = hiddenTensor(walk, unit);
    const {cluster_T, sum_RD} = await functions.nearest(unit_TD, ...centres);
    clusters.push(Int32Array.from(await cluster_T.data()));
    addTo(sum_ED, await sum_RD.data());
    tf.dispose([unit_TD, cluster_T, sum_RD]);
  }
  tf.dispose([...centres]);
  return {clusters, sum_ED};
}

/** Sums brought to length one; a centre without tokens stays. */
function moveCentres(centre_ED: Float32Array, sum_ED: Float64Array, D: number): Float32Array {
  const moved_ED = centre_ED.slice();
  for (let at = 0; at < sum_ED.length; at += D) {
    const sum_D = sum_ED.subarray(at, at + D);
    const length = Math.sqrt(sum_D.reduce((sum, value) => sum + value * value, 0));
    if (length > TINY)
      moved_ED.set(
        sum_D.map((value) => value / length),
        at,
      );
  }
  return moved_ED;
}

/** Σ|h| of each expert's neurons over each cluster's tokens, [C, E]. */
async function clusterActivity(
  {walk, functions, batches, member_RF, numExperts: E}: CentreInput,
  clusters: readonly Int32Array[],
): Promise<Float64Array> {
  const R = member_RF.shape[0];
  const sum_RR = new Float64Array(R * R);
  for (const [b, batch] of batches.entries()) {
    const inputs = [hiddenTensor(walk, batch), tf.tensor1d(clusters[b] ?? [], 'int32')] as const;
    const {activity_CE} = await functions.activity(...inputs, member_RF);
    addTo(sum_RR, await activity_CE.data());
    tf.dispose([...inputs, activity_CE]);
  }
  return Float64Array.from({length: E * E}, (_, i) => sum_RR[Math.floor(i / E) * R + (i % E)] as number);
}
