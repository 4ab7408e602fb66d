import {type OptimizerSettings, optimizerOf} from './optimizer/options.js';
import {stepFigures} from './optimizer/update.js';
import {PARTS, type Part} from './part.js';
import type {StepRates} from './step.js';

/** The rates of the t-th step that is applied, at which parts without a rate of their own have the learning rate `lr`. */
export function ratesOf(settings: OptimizerSettings, lr: number, t: number): StepRates {
  const learningRate = Object.fromEntries(PARTS.map((part) => [part, rateOf(settings, lr, part)]));
  return {learningRate: learningRate as Record<Part, number>, figures: stepFigures(optimizerOf(settings), t)};
}

/** The same as a log has them: `all`, and each part that has a rate of its own. */
export function ratesLogged(settings: OptimizerSettings, lr: number): Record<string, number> {
  const own = PARTS.filter((part) => settings.rates[part] !== undefined);
  return {all: lr, ...Object.fromEntries(own.map((part) => [part, rateOf(settings, lr, part)]))};
}

/** A part's own peak, shaped as the schedule shapes `lr`. */
function rateOf({rates, lr: peak}: OptimizerSettings, lr: number, part: Part): number {
  const own = rates[part];
  return own === undefined ? lr : own * (lr / peak);
}
