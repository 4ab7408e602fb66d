// Runs models of host values through the engine under test.

import {openModelFolder} from '../../src/format/model-folder.js';
import type {Architecture} from '../../src/model/architecture.js';
import {type Capacity, expertRoom, missingRows} from '../../src/model/capacity.js';
import {architectureFromConfig} from '../../src/model/config.js';
import {type DecoderInput, type DecoderOutput, decode, logits} from '../../src/model/decoder.js';
import {FAMILIES} from '../../src/model/family/registry.js';
import {flatLayout} from '../../src/model/inner.js';
import {loadParameters} from '../../src/model/load.js';
import type {Chooser} from '../../src/model/moe.js';
import {diskTensors} from '../../src/model/names.js';
import {type DecoderTree, leavesOf, type ParameterSpec, parameterSpecs, treeOf} from '../../src/model/parameters.js';
import {linearCrossEntropy} from '../../src/op/linear-cross-entropy.js';
import {valueAndGradients} from '../../src/op/value-and-gradients.js';
import type {EngineName, TestEngine} from '../support/engines.js';
import {floats, type Host, ints, sizeOf} from '../support/host.js';
import * as tf from '../support/tfjs.js';

/** Parameters by path, in our layout. */
export type Weights = Readonly<Record<string, Host>>;

/** A model of host values. */
export interface HostModel {
  readonly architecture: Architecture;
  readonly weights: Weights;
}

/** How a model is run. */
export interface RunOptions {
  /** Room for the rows of experts, in even shares: they are gathered. Without it every expert computes every token. */
  readonly gather?: number;
  readonly chooser?: Chooser;
  /** int32 [B, S] */
  readonly segments?: Host;
}

export function specsOf(architecture: Architecture): ParameterSpec[] {
  return leavesOf(parameterSpecs(architecture));
}

/** Weights out of tensors under a family's names on disk. */
export function weightsFromDisk(tensors: Readonly<Record<string, Host>>, architecture: Architecture): Weights {
  const {names} = FAMILIES[architecture.family];
  const weightOf = (spec: ParameterSpec): Host => {
    const parts = diskTensors(spec, names).map(({name, isTransposed}) => {
      const tensor = tensors[name];
      if (!tensor) throw new Error(`there is no ${name}`);
      return Array.from(isTransposed ? transposed(tensor).values : tensor.values);
    });
    return floats(spec.shape, parts.flat());
  };
  return Object.fromEntries(specsOf(architecture).map((spec) => [spec.path, weightOf(spec)]));
}

/** A matrix with rows and columns exchanged. */
export function transposed({shape: [rows = 0, columns = 0], values}: Host): Host {
  return floats(
    [columns, rows],
    Float32Array.from(
      {length: sizeOf([rows, columns])},
      (_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!,
    ),
  );
}

/** Rows of tokens as the int32 tensor that a decoder takes. */
export function tokenRows(rows: readonly (readonly number[])[]): Host {
  return ints([rows.length, rows[0]!.length], rows.flat());
}

/** Logits [T, V], then logits [T, E] and load [E] of every router, and the load of experts inside, if there are any. */
export interface Forward {
  readonly logits: Host;
  readonly routers: readonly {readonly logits: Host; readonly load: Host; readonly innerLoad: Host}[];
  /** Rows that found no room, over all layers. */
  readonly missing: number;
}

export async function forward(
  {run}: TestEngine,
  {architecture, weights}: HostModel,
  tokens: Host,
  {gather, segments, chooser = 'router'}: RunOptions = {},
): Promise<Forward> {
  const capacity = capacityOf(gather);
  const fn = (...[token_BS, ...rest]: tf.Tensor[]): tf.Tensor[] => {
    const {params, input} = takeApart(architecture, token_BS!, rest, segments !== undefined);
    const {hidden_TD, routers} = decode(params, architecture, input, {capacity, chooser});
    const traces = routers.map(({logit_TE, load_E, innerLoad_N}) => [logit_TE, load_E, innerLoad_N ?? tf.zeros([0])]);
    return [logits(hidden_TD, params), ...traces.flat()];
  };
  const [first, ...rest] = await run(fn, tokens, ...(segments ? [segments] : []), ...leafValues(architecture, weights));
  const layouts = architecture.ffn.filter((layout) => layout.kind === 'moe');
  const routers = layouts.map((_, i) => ({logits: rest[3 * i]!, load: rest[3 * i + 1]!, innerLoad: rest[3 * i + 2]!}));
  const missing = layouts.map((layout, i) => {
    const {load, innerLoad} = routers[i]!;
    const inside = layout.inner ? [[innerLoad, flatLayout(layout, layout.inner)] as const] : [];
    return [[load, layout] as const, ...inside].reduce(
      (sum, [{values}, of]) => sum + missingRows(values, expertRoom(capacity, sizeOf(tokens.shape), of)),
      0,
    );
  });
  return {logits: first!, routers, missing: missing.reduce((a, b) => a + b, 0)};
}

/** Added to the cross-entropy: a balance loss, say. */
type ExtraLoss = (output: DecoderOutput) => tf.Scalar;

/** Next-token loss of rows and its gradient by path; `extra` is added to the loss. */
export async function lossAndGradients(
  {run}: TestEngine,
  {architecture, weights}: HostModel,
  tokens: Host,
  {gather, extra}: RunOptions & {readonly extra?: ExtraLoss} = {},
): Promise<{loss: number; crossEntropy: number; gradients: Weights}> {
  const fn = (...[token_BS, label_T, ...leaves]: tf.Tensor[]): tf.Tensor[] => {
    const result = valueAndGradients((given) => {
      const {params, input} = takeApart(architecture, token_BS!, given, false);
      const output = decode(params, architecture, input, {capacity: capacityOf(gather)});
      const head = (params.head ?? params.embed) as tf.Tensor2D;
      const crossEntropy = linearCrossEntropy(output.hidden_TD, head, label_T as tf.Tensor1D);
      return {loss: extra ? tf.add(crossEntropy, extra(output)) : crossEntropy, report: [crossEntropy]};
    }, leaves);
    return [result.loss, ...result.report, ...result.gradients];
  };
  const labels = nextTokens(tokens);
  const [loss, crossEntropy, ...rest] = await run(fn, tokens, labels, ...leafValues(architecture, weights));
  const gradients = Object.fromEntries(specsOf(architecture).map(({path}, i) => [path, rest[i]!]));
  return {loss: loss!.values[0]!, crossEntropy: crossEntropy!.values[0]!, gradients};
}

/** The next token of each position, −1 (not predicted) at the end of a row; int32 [T]. */
export function nextTokens({shape: [, S = 0], values}: Host): Host {
  return ints(
    [values.length],
    Int32Array.from(values, (_, i) => ((i + 1) % S === 0 ? -1 : values[i + 1]!)),
  );
}

function capacityOf(gather: number | undefined): Capacity {
  return gather === undefined ? 'dropless' : {factor: gather};
}

function leafValues(architecture: Architecture, weights: Weights): Host[] {
  return specsOf(architecture).map(({path}) => weights[path]!);
}

function takeApart(
  architecture: Architecture,
  token_BS: tf.Tensor,
  rest: readonly tf.Tensor[],
  hasSegments: boolean,
): {params: DecoderTree<tf.Tensor>; input: DecoderInput} {
  const params = treeOf(parameterSpecs(architecture), hasSegments ? rest.slice(1) : rest);
  const tokens = token_BS as tf.Tensor2D;
  const input = hasSegments ? {token_BS: tokens, segment_BS: rest[0] as tf.Tensor2D} : {token_BS: tokens};
  return {params, input};
}

/** The result of a run that several laws look at; compiling it takes most of their time. */
export function oncePerEngine<T>(run: (engine: TestEngine) => Promise<T>): (engine: TestEngine) => Promise<T> {
  const results = new Map<EngineName, T>();
  return async (engine) => {
    const result = results.get(engine.name) ?? (await run(engine));
    results.set(engine.name, result);
    return result;
  };
}

/** A model folder as host values. */
export async function readHostModel(path: string): Promise<HostModel> {
  const folder = await openModelFolder(path);
  try {
    const architecture = architectureFromConfig(folder.config, path);
    const weights: Record<string, Host> = {};
    await loadParameters(folder, architecture, ({path: name, shape}, values) => {
      weights[name] = floats(shape, values);
    });
    return {architecture, weights};
  } finally {
    await folder.close();
  }
}
