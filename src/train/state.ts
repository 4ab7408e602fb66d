import {createVariable, type Variable} from '../engine/variable.js';
import {type Model, variablesOf} from '../model/model.js';
import {leavesOf, type ParameterSpec, parameterSpecs} from '../model/parameters.js';
import type {TrainState} from './step.js';

/** Gives the starting value of a moment, float32 row-major, or null for zeros. */
export type MomentSource = (path: string, moment: 'first' | 'second') => Promise<Float32Array | null>;

/** Adds zero or stored moments to a model; gradient sums only where gradients are accumulated. */
export async function createTrainState(
  {architecture, parameters}: Model,
  {accumulates, moments}: {readonly accumulates: boolean; readonly moments: MomentSource},
): Promise<TrainState> {
  const specs = leavesOf(parameterSpecs(architecture));
  const state = {architecture, parameters, first: [] as Variable[], second: [] as Variable[], sums: [] as Variable[]};
  const load = async (spec: ParameterSpec, moment: 'first' | 'second'): Promise<Variable> =>
    createVariable(`${spec.path}.${moment}`, spec.shape, (await moments(spec.path, moment)) ?? zeros(spec));
  try {
    for (const spec of specs) {
      state.first.push(await load(spec, 'first'));
      state.second.push(await load(spec, 'second'));
      if (accumulates) state.sums.push(createVariable(`${spec.path}.sum`, spec.shape, zeros(spec)));
    }
    return state;
  } catch (error) {
    disposeTrainState(state);
    throw error;
  }
}

/** Frees everything but the model itself. */
export function disposeTrainState({first, second, sums}: TrainState): void {
  for (const variable of [...first, ...second, ...sums]) variable.dispose();
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

/** A model's variables by parameter path. */
export function variablesByPath(model: Model): ReadonlyMap<string, Variable> {
  const specs = leavesOf(parameterSpecs(model.architecture));
  const variables = variablesOf(model);
  return new Map(
    specs
      .map(({path}, i) => [path, variables[i]] as const)
      .filter((pair): pair is [string, Variable] => pair[1] !== undefined),
  );
}

function zeros({shape}: ParameterSpec): Float32Array {
  return new Float32Array(shape.reduce((product, size) => product * size, 1));
}
