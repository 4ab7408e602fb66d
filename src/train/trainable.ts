import {leavesOf, parameterSpecs} from '../model/parameters.js';
import {numElements} from '../util/shape.js';
import {PARTS, type Part, partOf} from './part.js';
import type {TrainState} from './state.js';

/** How much of a part trains. */
export interface TrainablePart {
  readonly part: Part;
  /** Numbers of the part in the model. */
  readonly parameters: number;
  /** Those of them that train. */
  readonly trained: number;
  /** Those of them that move without a gradient: biases that balance experts. */
  readonly moved: number;
  /** Numbers of low-rank terms that train beside the part. */
  readonly lowRank: number;
}

/** What trains and what is frozen, by the parts that the model has. */
export function trainableParts({architecture, trained, moved}: TrainState): TrainablePart[] {
  const specs = leavesOf(parameterSpecs(architecture));
  const own = new Set(specs.map(({path}) => path));
  return PARTS.map((part) => {
    const training = trained.filter((one) => one.part === part);
    return {
      part,
      parameters: total(specs.filter((spec) => partOf(spec) === part)),
      trained: total(training.filter(({path}) => own.has(path))),
      moved: total(specs.filter((spec) => partOf(spec) === part && moved.has(spec.path))),
      lowRank: total(training.filter(({path}) => !own.has(path))),
    };
  }).filter(({parameters}) => parameters > 0);
}

/** Numbers that training changes. */
export function countTrainable({trained}: Pick<TrainState, 'trained'>): number {
  return total(trained);
}

function total(list: readonly {readonly shape: readonly number[]}[]): number {
  return list.reduce((sum, {shape}) => sum + numElements(shape), 0);
}
