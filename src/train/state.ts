import * as tf from '../engine/tfjs.js';
import {createVariable, type Variable} from '../engine/variable.js';
import {type Adapter, type Adapters, adapterShapes} from '../model/adapter.js';
import {type Architecture, moeLayouts} from '../model/architecture.js';
import type {Model} from '../model/model.js';
import {type DecoderTree, leavesOf, type ParameterSpec, parameterSpecs} from '../model/parameters.js';
import {createRng} from '../util/rng.js';
import {numElements} from '../util/shape.js';
import type {ChosenExperts} from './esft.js';
import {type FinetuneOptions, selectParameters} from './finetune.js';
import {type OptimizerOptions, slotShapes} from './optimizer/update.js';
import {isMatrix, type Part, partOf} from './part.js';

/** One thing that gradients change: a parameter, or a factor of the low-rank term beside one. */
export interface Trained {
  /** Key of what the optimizer keeps: the path of the parameter, with `.a` or `.b` behind it for a factor. */
  readonly path: string;
  /** Shape of what trains: of the variable, or of its `members` stacked. */
  readonly shape: readonly number[];
  /** Members of a stack that train; null for all of it. */
  readonly members: readonly number[] | null;
  readonly part: Part;
  /** Whether weight decay applies. */
  readonly decays: boolean;
  readonly variable: Variable;
  /** What the optimizer keeps of it, by name. */
  readonly slots: ReadonlyMap<string, Variable>;
  /** Sum of gradients over micro-batches; null without accumulation. */
  readonly sum: Variable | null;
  /** Running mean of the variable; null if none is kept. */
  readonly ema: Variable | null;
}

/** A model in training. */
export interface TrainState {
  readonly architecture: Architecture;
  readonly parameters: DecoderTree<Variable>;
  readonly adapters: Adapters;
  readonly trained: readonly Trained[];
  /** What changes without a gradient, by path: selection biases that balance experts. */
  readonly moved: ReadonlyMap<string, Variable>;
  /** The experts that ESFT chose; null where all train or none. */
  readonly experts: ChosenExperts | null;
  /** Rows that each expert of a MoE layer got in the passes of a step so far, [E] a layer; empty without accumulation. */
  readonly counts: readonly Variable[];
}

/** Gives a stored value, float32 row-major, or null where nothing is stored. */
export type StoredValues = (name: string) => Promise<Float32Array | null>;

/** What trains and how, and what is there to go on from. */
export interface StateOptions {
  readonly finetune: FinetuneOptions;
  readonly optimizer: OptimizerOptions;
  readonly accumulates: boolean;
  /** Whether selection biases balance experts. */
  readonly movesBiases: boolean;
  /** Whether a running mean is kept of what trains; it begins at the start. */
  readonly averages?: boolean;
  /** The experts that ESFT trains. */
  readonly experts?: ChosenExperts | null;
  /** Of the start of low-rank terms. */
  readonly seed: number;
  readonly stored: StoredValues;
  /** Makes variables; by default real ones. */
  readonly create?: CreateVariable;
}

/** How a variable comes to be; see {@link createVariable}. */
export type CreateVariable = (name: string, shape: readonly number[], values: Float32Array) => Variable;

/**
 * Puts beside a model what training needs: low-rank terms, and what the optimizer keeps, zeros unless stored.
 *
 * A low-rank term begins at zero: `a` is drawn evenly from ±1/√in (as PEFT's, Kaiming with √5), `b` is zero.
 * @throws ConfigError as {@link selectParameters} does.
 */
export async function createTrainState(
  {architecture, parameters}: Pick<Model, 'architecture' | 'parameters'>,
  options: StateOptions,
): Promise<TrainState> {
  const {create = createVariable} = options;
  const {whole, adapted, members} = selectParameters(architecture, options.finetune, options.experts ?? []);
  const made: Variable[] = [];
  const make = (name: string, shape: readonly number[], values: Float32Array): Variable => {
    const variable = create(name, shape, values);
    made.push(variable);
    return variable;
  };
  const variables = variablesByPath({architecture, parameters});
  const adapters = new Map<string, Adapter>();
  const trained: Trained[] = [];
  const train = async (path: string, spec: ParameterSpec, variable: Variable): Promise<void> => {
    trained.push(await trainedOf(path, spec, variable, {...options, make, members: members.get(path) ?? null}));
  };
  try {
    for (const spec of whole.filter(({role}) => role !== 'bias' || !options.movesBiases)) {
      const variable = variables(spec.path);
      // A model that was saved holds these; the one that low-rank terms stand beside does not.
      if (adapted.length > 0) restore(variable, await options.stored(spec.path));
      await train(spec.path, spec, variable);
    }
    for (const spec of adapted) {
      const adapter = await openAdapter(spec, options, make);
      adapters.set(spec.path, adapter);
      await train(`${spec.path}.a`, spec, adapter.a);
      await train(`${spec.path}.b`, spec, adapter.b);
    }
    const counts = options.accumulates
      ? moeLayouts(architecture).map(({experts: E}, i) => make(`count.${i}`, [E], zeros([E])))
      : [];
    const moved = new Map(biasesOf(architecture, options).map((path) => [path, variables(path)]));
    if (adapted.length > 0) for (const [path, bias] of moved) restore(bias, await options.stored(path));
    return {architecture, parameters, adapters, trained, moved, counts, experts: options.experts ?? null};
  } catch (error) {
    for (const variable of made) variable.dispose();
    throw error;
  }
}

/** Frees everything but the model itself. */
export function disposeTrainState({trained, adapters, counts}: TrainState): void {
  for (const count of counts) count.dispose();
  for (const {slots, sum, ema} of trained) {
    for (const variable of [...slots.values(), sum, ema]) variable?.dispose();
  }
  for (const {a, b} of adapters.values()) for (const variable of [a, b]) variable.dispose();
}

/** Reads a variable back to the host. */
export async function readVariable(variable: Variable): Promise<Float32Array> {
  const tensor = variable.read();
  try {
    return await tensor.data<'float32'>();
  } finally {
    tensor.dispose();
  }
}

/** The variable of a parameter. @throws Error if there is none of that path. */
export function variablesByPath({
  architecture,
  parameters,
}: Pick<Model, 'architecture' | 'parameters'>): (path: string) => Variable {
  const variables = leavesOf(parameters);
  const byPath = new Map(leavesOf(parameterSpecs(architecture)).map(({path}, i) => [path, variables[i]]));
  return (path) => {
    const variable = byPath.get(path);
    if (!variable) throw new Error(`no variable for ${path}`);
    return variable;
  };
}

function restore(variable: Variable, values: Float32Array | null): void {
  if (!values) return;
  const tensor = tf.tensor(values, [...variable.shape]);
  variable.assign(tensor);
  tensor.dispose();
}

type Make = (name: string, shape: readonly number[], values: Float32Array) => Variable;

interface Making {
  readonly make: Make;
  readonly members: Trained['members'];
}

async function trainedOf(
  path: string,
  spec: ParameterSpec,
  variable: Variable,
  {optimizer, accumulates, averages, stored, make, members}: StateOptions & Making,
): Promise<Trained> {
  const shape = members ? [members.length, ...variable.shape.slice(1)] : variable.shape;
  const movable = {shape, part: partOf(spec), decays: isMatrix(spec)};
  const slots = new Map<string, Variable>();
  for (const [name, size] of Object.entries(slotShapes(optimizer, movable))) {
    const key = `${path}.${name}`;
    slots.set(name, make(key, size, (await stored(key)) ?? zeros(size)));
  }
  const sum = accumulates ? make(`${path}.sum`, shape, zeros(shape)) : null;
  const mean = `${path}.ema`;
  const ema = averages ? make(mean, variable.shape, (await stored(mean)) ?? (await readVariable(variable))) : null;
  return {path, ...movable, members, variable, slots, sum, ema};
}

async function openAdapter(spec: ParameterSpec, {finetune, seed, stored}: StateOptions, make: Make): Promise<Adapter> {
  if (finetune.kind !== 'lora') throw new Error(`${finetune.kind} has no low-rank terms`);
  const {rank, alpha} = finetune;
  const {a, b} = adapterShapes(spec, rank);
  const [left, right] = [`${spec.path}.a`, `${spec.path}.b`];
  return {
    a: make(left, a, (await stored(left)) ?? drawn(a, createRng(seed, `low rank ${spec.path}`))),
    b: make(right, b, (await stored(right)) ?? zeros(b)),
    scale: alpha / rank,
  };
}

function biasesOf(architecture: Architecture, {movesBiases}: StateOptions): string[] {
  const biases = leavesOf(parameterSpecs(architecture)).filter(({role}) => role === 'bias');
  return movesBiases ? biases.map(({path}) => path) : [];
}

function drawn(shape: readonly number[], rng: ReturnType<typeof createRng>): Float32Array {
  const bound = 1 / Math.sqrt(shape.at(-2) ?? 1);
  return zeros(shape).map(() => (2 * rng.uniform() - 1) * bound);
}

function zeros(shape: readonly number[]): Float32Array {
  return new Float32Array(numElements(shape));
}
