// What a run will hold in memory, from config and config.json alone: no weight is read.
import type {Variable} from '../engine/variable.js';
import {type Architecture, moeLayouts} from '../model/architecture.js';
import {leavesOf, mapTree, parameterSpecs} from '../model/parameters.js';
import {readArchitecture} from '../model/read-architecture.js';
import {numElements} from '../util/shape.js';
import {accumulates} from './batch-size.js';
import {optimizerOf} from './optimizer/options.js';
import {withBiases} from './selection-bias.js';
import type {TrainRun} from './session.js';
import {type CreateVariable, createTrainState, type TrainState} from './state.js';
import type {Teacher} from './step.js';

/** A run before its weights are read. */
export interface RunOutline {
  readonly state: TrainState;
  readonly teacher: Teacher['model'] | null;
}

/** Something a run holds from its first step to its last. */
export interface HeldTerm {
  readonly what: 'parameters' | 'low-rank terms' | 'optimizer state' | 'gradient sums' | 'running means' | 'teacher';
  /** In the engine's memory. */
  readonly bytes: number;
}

/**
 * What a run trains and keeps, its variables made by `create` and empty of values.
 *
 * @throws ModelError for a damaged config.json; ConfigError as `selectParameters` does.
 */
export async function outlineOf(
  {model, train, seed}: Pick<TrainRun, 'model' | 'train' | 'seed'>,
  create: CreateVariable = shapeOnly,
): Promise<RunOutline> {
  const {finetune, optimizer, batch, balance, ema, distill} = train;
  const parametersOf = (architecture: Architecture) => ({
    architecture,
    parameters: mapTree(parameterSpecs(architecture), ({path, shape}) => create(path, shape, NOTHING)),
  });
  const found = await readArchitecture(model);
  const state = await createTrainState(parametersOf(balance.kind === 'bias' ? withBiases(found) : found), {
    finetune,
    optimizer: optimizerOf(optimizer),
    accumulates: accumulates(batch),
    movesBiases: balance.kind === 'bias',
    averages: ema !== undefined,
    experts: finetune.kind === 'esft' ? evenChoice(found, finetune.share) : null,
    seed,
    stored: (name) => Promise.resolve(name.endsWith('.ema') ? NOTHING : null), // a mean would begin with the weights
    create,
  });
  return {state, teacher: distill ? parametersOf(await readArchitecture(distill.from)) : null};
}

/** As many experts of each layer as have that share when all are used the same: more than the text will choose. */
function evenChoice(architecture: Architecture, share: number): number[][] {
  return moeLayouts(architecture).map(({experts}) => Array.from({length: Math.ceil(share * experts)}, (_, e) => e));
}

/** What is held of a run through all its steps; terms without bytes are left out. */
export function heldTerms({state, teacher}: RunOutline): readonly HeldTerm[] {
  const {parameters, adapters, trained, counts} = state;
  const terms: readonly HeldTerm[] = [
    {what: 'parameters', bytes: bytesOf(leavesOf(parameters))},
    {what: 'low-rank terms', bytes: bytesOf([...adapters.values()].flatMap(({a, b}) => [a, b]))},
    {what: 'optimizer state', bytes: bytesOf(trained.flatMap(({slots}) => [...slots.values()]))},
    {what: 'gradient sums', bytes: bytesOf([...trained.flatMap(({sum}) => sum ?? []), ...counts])},
    {what: 'running means', bytes: bytesOf(trained.flatMap(({ema}) => ema ?? []))},
    {what: 'teacher', bytes: teacher ? bytesOf(leavesOf(teacher.parameters)) : 0},
  ];
  return terms.filter(({bytes}) => bytes > 0);
}

const NOTHING = new Float32Array(0);

/** A variable that is nothing but its shape. */
function shapeOnly(name: string, shape: readonly number[]): Variable {
  const refuse = (): never => {
    throw new Error(`${name} has no value: it stands for its shape`);
  };
  return {name, shape, read: refuse, assign: refuse, release: refuse, dispose: () => undefined};
}

function bytesOf(variables: readonly Variable[]): number {
  return variables.reduce((sum, {shape}) => sum + Float32Array.BYTES_PER_ELEMENT * numElements(shape), 0);
}
