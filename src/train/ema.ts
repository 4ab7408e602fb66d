import {z} from 'zod';
import type {Variable} from '../engine/variable.js';
import type {AdaptedModel, Adapter} from '../model/adapter.js';
import {leavesOf, treeOf} from '../model/parameters.js';
import type {TrainState} from './state.js';

/** Whether and how trained weights are averaged over the steps. */
export const emaSchema = z
  .strictObject({
    decay: z.number().gt(0).lt(1).default(0.999).describe('ema ← decay · ema + (1 - decay) · weight after each step.'),
  })
  .describe(
    'A running mean of what trains, beginning at the start: validated beside it (split valid-ema) and saved as `ema/` in checkpoints. It costs as much memory as the weights that train; of experts that esft chose from, as all of their layer.',
  );

/** The model with the running means in place of what trains; null if none are kept. */
export function averagedModel({architecture, parameters, adapters, trained}: TrainState): AdaptedModel | null {
  const means = new Map(trained.flatMap(({variable, ema}) => (ema ? [[variable, ema]] : [])));
  if (means.size === 0) return null;
  const meanOf = (variable: Variable): Variable => means.get(variable) ?? variable;
  const factors = ({a, b, scale}: Adapter): Adapter => ({a: meanOf(a), b: meanOf(b), scale});
  return {
    architecture,
    parameters: treeOf(parameters, leavesOf(parameters).map(meanOf)),
    adapters: new Map([...adapters].map(([path, adapter]) => [path, factors(adapter)])),
  };
}
