// How long a run takes.
import {leavesOf} from '../model/parameters.js';
import {numElements} from '../util/shape.js';
import {passesOf} from './batch-size.js';
import {type RowsCase, trainingFlops} from './expert-rows.js';
import type {RunOutline} from './outline.js';
import type {TrainRun} from './session.js';

/** How long a run takes: from the operations of a step and the speed of one matrix product. */
export interface TimeEstimate {
  /** Of the last step, whose passes are most. */
  readonly flopsPerStep: number;
  readonly flopsPerSecond: number;
  readonly secondsPerStep: number;
  /** Of all steps; validation and checkpoints come on top. */
  readonly seconds: number;
}

/** Share of the speed of one large product that a step reaches: 63 to 88% in docs/log.md. */
const REACHED = 0.7;

/** A teacher only goes forward. */
const AS_IT_IS: RowsCase = {routing: {kind: 'as-is'}, capacity: 'dropless'};

/** The time of a run on a machine whose products of large matrices have that speed. */
export function timeOf(
  {train, data}: Pick<TrainRun, 'train' | 'data'>,
  {state, teacher}: RunOutline,
  flopsPerSecond: number,
): TimeEstimate {
  const {batch, steps, recompute} = train;
  // Of 6 operations a weight and token, 2 are forward, 2 for what came before, 2 for the weight where it trains.
  const factor = (4 + 2 * trainedShare(state) + (recompute === 'layer' ? 2 : 0)) / 6;
  const own = trainingFlops(state.architecture, {train, data}, 'computed');
  const asItIs = {train: {...train, ...AS_IT_IS}, data};
  const taught = teacher ? trainingFlops(teacher.architecture, asItIs, 'computed') / 3 : 0;
  const perPass = batch.sequences * data.sequenceLength * (own * factor + taught);
  const numPasses = Array.from({length: steps}, (_, i) => passesOf(batch, i + 1)).reduce((sum, n) => sum + n, 0);
  const secondsPerPass = perPass / flopsPerSecond / REACHED;
  const last = passesOf(batch, steps);
  return {
    flopsPerStep: perPass * last,
    flopsPerSecond,
    secondsPerStep: secondsPerPass * last,
    seconds: secondsPerPass * numPasses,
  };
}

/** Share of the weights that train, low-rank terms counted as if they were weights. */
function trainedShare({trained, parameters}: RunOutline['state']): number {
  const size = (list: readonly {readonly shape: readonly number[]}[]): number =>
    list.reduce((sum, {shape}) => sum + numElements(shape), 0);
  return Math.min(1, size(trained) / size(leavesOf(parameters)));
}
