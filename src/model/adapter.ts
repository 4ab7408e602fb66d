// Low-rank terms beside the parameters of a model (LoRA, arXiv 2106.09685).
import * as tf from '../engine/tfjs.js';
import type {Variable} from '../engine/variable.js';
import {type Dropout, solid, type Weight} from '../op/weight.js';
import type {Architecture} from './architecture.js';
import {type DecoderTree, leavesOf, type ParameterSpec, parameterSpecs, treeOf} from './parameters.js';

/** The term `scale · a·b` of one parameter: a [..., in, r], b [..., r, out]. */
export interface Adapter {
  readonly a: Variable;
  readonly b: Variable;
  readonly scale: number;
}

/** The terms of a model, by the path of their parameter. */
export type Adapters = ReadonlyMap<string, Adapter>;

/** A model with what stands beside its parameters. */
export interface AdaptedModel {
  readonly architecture: Architecture;
  readonly parameters: DecoderTree<Variable>;
  readonly adapters?: Adapters;
}

/** Shapes of the factors beside a matrix, stacked or not. */
export function adapterShapes({shape}: ParameterSpec, rank: number): {readonly a: number[]; readonly b: number[]} {
  const [stack, [rows = 0, columns = 0]] = [shape.slice(0, -2), shape.slice(-2)];
  return {a: [...stack, rows, rank], b: [...stack, rank, columns]};
}

/** How variables are read; the variable itself unless a gradient is taken for it. */
type Read = (variable: Variable) => tf.Tensor;

/**
 * The weights of a forward pass.
 *
 * @param dropout of the low-rank terms, by the place of the parameter among the leaves.
 */
export function weightsOf(
  {architecture, parameters, adapters = new Map()}: AdaptedModel,
  read: Read = (variable) => variable.read(),
  dropout: (place: number) => Dropout | null = () => null,
): DecoderTree<Weight> {
  const specs = leavesOf(parameterSpecs(architecture));
  const weights = leavesOf(parameters).map((variable, place): Weight => {
    const adapter = adapters.get(specs[place]?.path ?? '');
    if (!adapter) return read(variable);
    const {a, b, scale} = adapter;
    return {base: read(variable), a: read(a), b: read(b), scale, dropout: dropout(place)};
  });
  return treeOf(parameters, weights);
}

/** The values of a parameter, its low-rank term added if it has one. */
export async function mergedValues(variable: Variable, adapter: Adapter | undefined): Promise<Float32Array> {
  const merged = tf.tidy(() => {
    const base = variable.read();
    if (!adapter) return base;
    const {a, b, scale} = adapter;
    return solid({base, a: a.read(), b: b.read(), scale, dropout: null});
  });
  try {
    return await merged.data<'float32'>();
  } finally {
    merged.dispose();
  }
}
