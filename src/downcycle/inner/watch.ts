// What the neurons of each routed expert of a mixture do on the tokens that reach it. Shapes: T tokens, P = T·K chosen pairs of
// token and expert, R rows of experts, F neurons of an expert, M markers.
import * as tf from '../../engine/tfjs.js';
import {droplessRoom} from '../../model/capacity.js';
import {addFfn, decoderLayer, throughAttention} from '../../model/decoder.js';
import {moe} from '../../model/moe.js';
import type {GluTree} from '../../model/parameters.js';
import {routeByModel} from '../../model/router.js';
import {hiddenTensor, type LayerFunction, startWalk, type Walk} from '../../model/walk.js';
import {dispatch, expertProduct, expertSlots} from '../../op/experts.js';
import {multiplied} from '../../op/product.js';
import {swiglu} from '../../op/swiglu.js';
import {TINY} from '../../op/tiny.js';
import {joinInts} from '../../util/join.js';
import type {Calibration} from '../calibration.js';
import type {ModelSource} from '../model-source.js';
import type {ProfileOptions} from '../profile-options.js';
import type {MarkerProfile} from '../statistics.js';

type Markers = ProfileOptions['markers'];

/**
 * Of each layer, for every routed expert the M neurons of the largest |h| of each token that reaches it; none in a layer
 * without experts. The weights of one layer are in memory at a time.
 *
 * @throws ModelError naming file and tensor if one is missing or of another shape.
 */
export async function watchExperts(
  {folder, architecture}: ModelSource,
  calibration: Calibration,
  markers: Markers,
  onLayer?: (done: number, total: number) => void,
): Promise<MarkerProfile[][]> {
  const walk = await startWalk(folder, architecture, calibration);
  const watch = compileWatch(walk, markers);
  const found: MarkerProfile[][] = [];
  try {
    for (const [layer, layout] of architecture.ffn.entries()) {
      await walk.load(layer);
      const batches: Marked[] = [];
      for (const batch of walk.batches) batches.push(await watchBatch(walk, watch, batch));
      found.push(layout.kind === 'moe' ? byExpert(batches, layout, markers.count) : []);
      onLayer?.(layer + 1, architecture.ffn.length);
    }
    return found;
  } finally {
    walk.dispose();
  }
}

type Watch = LayerFunction<[tf.Tensor2D], {next_TD: tf.Tensor; expert_TK: tf.Tensor; marker_PM: tf.Tensor}>;

function compileWatch(walk: Walk, markers: Markers): Watch {
  const {architecture} = walk;
  return walk.compile('watch_experts', ({params, layout, context}, x_TD: tf.Tensor2D) => {
    const {ffn} = params;
    if (ffn.kind === 'dense' || layout.kind === 'dense') {
      const {next_TD} = decoderLayer(x_TD, params, layout, architecture, context);
      const none = tf.zeros([0, 0], 'int32');
      return {next_TD, expert_TK: none, marker_PM: none};
    }
    const {h_TD, y_TD} = throughAttention(x_TD, params, architecture, context);
    const {routing} = architecture;
    const {expert_TK} = routeByModel({x_TD: y_TD, params: ffn, layout, routing}).route;
    const result = moe(y_TD, ffn, layout, routing, 'dropless');
    return {
      next_TD: addFfn(h_TD, result.y_TD, params, architecture),
      expert_TK,
      marker_PM: markersOf(y_TD, ffn.experts, expert_TK, markers),
    };
  });
}

/** The marked neurons of each pair's expert, [P, M]. */
function markersOf(
  y_TD: tf.Tensor2D,
  {gate, up}: Pick<GluTree<tf.Tensor>, 'gate' | 'up'>,
  expert_TK: tf.Tensor2D,
  {count, of}: Markers,
): tf.Tensor {
  const [T, K] = expert_TK.shape;
  const experts = gate.shape[0] ?? 0;
  const slots = expertSlots(expert_TK, experts, droplessRoom(T, {experts, topK: K}));
  const measured = <X extends tf.Tensor>(x: X): X => (of === 'plain' ? x : unitLength(x));
  const x_RD = dispatch(measured(y_TD), slots);
  const product = expertProduct(slots);
  const times = (w_EDF: tf.Tensor): tf.Tensor2D => multiplied(x_RD, measured(w_EDF as tf.Tensor3D), product);
  const h_RF = swiglu(times(gate), times(up));
  return tf.topk(tf.abs(tf.gather(h_RF, slots.slot_P)), count).indices;
}

/** Inputs [T, D] and weights [E, D, F] with D numbers of length one (published code of CMoE). */
function unitLength<X extends tf.Tensor>(x: X): X {
  return tf.mul(x, tf.rsqrt(tf.maximum(tf.sum(tf.square(x), 1, true), TINY)));
}

/** What was marked on a batch: experts [T, K] and markers [T, K, M] of its tokens. */
interface Marked {
  readonly expert_TK: Int32Array;
  readonly marker_PM: Int32Array;
}

async function watchBatch(walk: Walk, watch: Watch, batch: Float32Array): Promise<Marked> {
  const x_TD = hiddenTensor(walk, batch);
  const {next_TD, expert_TK, marker_PM} = await watch(x_TD);
  batch.set(await next_TD.data());
  const marked = {
    expert_TK: Int32Array.from(await expert_TK.data()),
    marker_PM: Int32Array.from(await marker_PM.data()),
  };
  tf.dispose([x_TD, next_TD, expert_TK, marker_PM]);
  return marked;
}

/** The markers of each expert's tokens. */
function byExpert(
  batches: readonly Marked[],
  {experts, expertWidth}: {readonly experts: number; readonly expertWidth: number},
  numMarkers: number,
): MarkerProfile[] {
  const rows: Int32Array[][] = Array.from({length: experts}, () => []);
  for (const {expert_TK, marker_PM} of batches) {
    for (const [p, expert] of expert_TK.entries()) {
      rows[expert]?.push(marker_PM.subarray(p * numMarkers, (p + 1) * numMarkers));
    }
  }
  return rows.map((own) => ({numNeurons: expertWidth, marker_NM: joinInts(own), numMarkers}));
}
