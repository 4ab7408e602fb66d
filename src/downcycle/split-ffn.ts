// The tensors of a layer's mixture, cut out of its dense FFN.
import type {RouterTree} from '../model/parameters.js';
import {transposed} from '../util/transpose.js';
import {type GluMatrix, gatherNeurons} from './convert-gather.js';
import {
  biasTensor,
  type FfnSite,
  gluTensors,
  type MadeTensor,
  routerOutTensor,
  routerTensor,
  routerUpTensor,
  type StoredMatrix,
  scaleTensor,
  valuesOf,
} from './convert-source.js';
import type {FittedLayer} from './fit.js';
import {type ConversionPlan, type LayerPlan, type PlanWidth, realExperts} from './plan.js';
import {representativeRows, routerRows} from './router-rows.js';

/** What a split does besides cutting. */
export interface SplitChanges {
  /** Factor on the down projections of routed experts, 1 by default. */
  readonly scale?: number | undefined;
  /** Gives the layer's router and down projection in place of the means of gate rows and of the dense one. */
  readonly fitted?: (() => Promise<FittedLayer>) | null;
  /** Gives the router of a layer in our layout where it is drawn at random. */
  readonly drawn?: ((layer: number, numExperts: number) => RouterTree<Float32Array>) | null;
}

/**
 * The tensors of one layer: each expert is its neurons' rows of gate and up and columns of down. Weights that only move
 * keep their bits.
 */
export function splitFfn(
  site: FfnSite,
  conversion: ConversionPlan,
  {scale = 1, fitted = null, drawn = null}: SplitChanges = {},
): MadeTensor[] {
  const plan = conversion.layers[site.layer];
  if (!plan) throw new Error(`the plan has no layer ${site.layer}`);
  const cut = async (matrix: StoredMatrix, which: GluMatrix, ids: Int32Array, factor = 1) => {
    const down_DF = which === 'down' && fitted ? (await fitted()).down_DF : null;
    if (which !== 'down' || (!down_DF && factor === 1)) return gatherNeurons(matrix, which, ids);
    const columns = down_DF
      ? pickColumns(down_DF, matrix, ids)
      : valuesOf({...matrix, bytes: gatherNeurons(matrix, which, ids)});
    return factor === 1 ? columns : columns.map((value) => value * factor);
  };
  const whole = (matrix: StoredMatrix, which: GluMatrix) => cut(matrix, which, plan.shared);
  if (site.specs.kind === 'dense') return gluTensors(site, site.specs, whole);
  const {shared, experts} = site.specs;
  const numExperts = plan.experts.length;
  const makeRouter = async () => {
    if (drawn) return onDisk(drawn(site.layer, numExperts).router, numExperts);
    return fitted ? (await fitted()).router_ED : routerOf((await site.read()).gate, plan, conversion);
  };
  const makeUp = async () => routerOf((await site.read()).up, plan, conversion);
  const makeOut = () => {
    const {routerOut = null} = drawn?.(site.layer, numExperts) ?? {};
    if (!routerOut) throw new Error('a router of two layers is drawn, and was not');
    return onDisk(routerOut, numExperts);
  };
  const makeBias = async () => (await fitted?.())?.bias_E ?? new Float32Array(numExperts);
  return [
    ...routerTensor(site, makeRouter),
    ...routerUpTensor(site, makeUp),
    ...routerOutTensor(site, makeOut),
    ...biasTensor(site, makeBias),
    ...scaleTensor(site),
    ...(shared ? gluTensors(site, shared, whole) : []),
    ...gluTensors(site, experts, (matrix, which, e) => cut(matrix, which, plan.experts[e] ?? new Int32Array(0), scale)),
  ];
}

/** Rows of the representative neurons if the plan has any, else the means of the experts' rows, those of zeros left out. */
function routerOf(matrix: StoredMatrix, plan: LayerPlan, width: PlanWidth): Float32Array {
  const {columns} = matrix;
  if (plan.representatives) return representativeRows(valuesOf(matrix), columns, plan.representatives);
  return routerRows(valuesOf(matrix), columns, realExperts(plan, width));
}

/** A matrix of a router, [in, E], in the Hugging Face layout [E, in]. */
function onDisk(values: Float32Array, numExperts: number): Float32Array {
  return transposed(values, values.length / numExperts, numExperts);
}

/** Columns of a fitted down projection [D, F]. */
function pickColumns(down_DF: Float32Array, {rows, columns}: StoredMatrix, ids: Int32Array): Float32Array {
  const picked = new Float32Array(rows * ids.length);
  let to = 0;
  for (let row = 0; row < rows; row++) for (const id of ids) picked[to++] = down_DF[row * columns + id] as number;
  return picked;
}
