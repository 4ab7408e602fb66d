// The optimizers behind one shape: what they keep of a parameter, and how they move it.
import type * as tf from '../../engine/tfjs.js';
import type {Part} from '../part.js';
import {type AdafactorOptions, adafactor, adafactorFigures, adafactorSlots} from './adafactor.js';
import {type AdamWOptions, adamCorrections, adamW} from './adamw.js';
import {type MuonOptions, muon} from './muon.js';

/** One of the optimizers, with its constants. */
export type OptimizerOptions = AdamWOptions | AdafactorOptions | MuonOptions;

/** What an update is made of, as tensors of a compiled function. */
export interface Update {
  readonly value: tf.Tensor;
  /** What the optimizer keeps of the parameter, in the order of {@link slotShapes}. */
  readonly slots: readonly tf.Tensor[];
  readonly gradient: tf.Tensor;
  readonly learningRate: tf.Tensor;
  /** See {@link stepFigures}. */
  readonly figures: readonly tf.Tensor[];
  /** Whether the update happens at all; false leaves parameter and slots as they are. */
  readonly isSafe: tf.Tensor;
  /** Whether weight decay applies. */
  readonly decays: boolean;
}

/** A parameter as an optimizer sees it. */
export interface Movable {
  readonly shape: readonly number[];
  readonly part: Part;
  readonly decays: boolean;
}

/** What an optimizer keeps of a parameter: names and shapes. */
export function slotShapes(options: OptimizerOptions, parameter: Movable): Readonly<Record<string, readonly number[]>> {
  const {shape} = parameter;
  const {kind} = optimizerOf(options, parameter);
  switch (kind) {
    case 'adamw':
      return {first: shape, second: shape};
    case 'adafactor':
      return adafactorSlots(shape);
    case 'muon':
      return {momentum: shape};
  }
}

/** Numbers of step t that are the same for all parameters, computed on the host in float64. */
export function stepFigures(options: OptimizerOptions, t: number): [number, number] {
  switch (options.kind) {
    case 'adamw':
      return adamCorrections(options.betas, t);
    case 'adafactor':
      return adafactorFigures(options, t);
    case 'muon':
      return adamCorrections(options.adamw.betas, t);
  }
}

/** A parameter and its slots after one update. */
export function updated(
  options: OptimizerOptions,
  parameter: Movable,
  update: Update,
): {value: tf.Tensor; slots: tf.Tensor[]} {
  const own = optimizerOf(options, parameter);
  switch (own.kind) {
    case 'adamw':
      return adamW(update, own);
    case 'adafactor':
      return adafactor(update, own);
    case 'muon':
      return muon(update, own);
  }
}

/** Muon is for matrices that turn hidden states into hidden states: embeddings, heads, routers and vectors go to AdamW. */
function optimizerOf(options: OptimizerOptions, {part, decays}: Movable): OptimizerOptions {
  if (options.kind !== 'muon') return options;
  return decays && part !== 'embeddings' && part !== 'routers' ? options : options.adamw;
}
