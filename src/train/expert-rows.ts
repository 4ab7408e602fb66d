// How much experts compute, by how a run routes. Shapes: T tokens of a pass, E experts, K of them a token, D width.
import type {DataOptions} from '../data/options.js';
import {type Architecture, flopsPerToken, moeLayouts} from '../model/architecture.js';
import {type ExpertSizes, expertRoom} from '../model/capacity.js';
import {flatLayout} from '../model/inner.js';
import type {TrainOptions} from './options.js';
import {rowsOfExpert} from './routing/expert-choice.js';

/** What decides how many rows experts compute. */
export type RowsCase = Pick<TrainOptions, 'routing' | 'capacity'>;

/** Rows of experts for a token of a pass, mean over its tokens. */
export interface ExpertRows {
  /** Those that routing sends, at most where there is a top p or a capacity. */
  readonly sent: number;
  /** With those that are empty, and those of experts that were not chosen and compute all the same. */
  readonly computed: number;
}

/** How many rows of experts a layer computes for a token. */
export function expertRows(layout: ExpertSizes, {routing, capacity}: RowsCase, T: number): ExpertRows {
  const {experts: E, topK} = layout;
  if (routing.kind === 'expert-choice') {
    const chosen = (E * rowsOfExpert(routing.capacityFactor, T, layout)) / T;
    return {sent: chosen, computed: chosen};
  }
  const sent = routing.kind === 'all-experts' ? E : topK;
  const used = {...layout, topK: sent};
  const room = expertRoom(capacity, T, used);
  return {sent, computed: room === 'all' ? E : (E * room.rows + room.blocks * room.blockRows) / T};
}

/** What decides how many operations a token takes in training. */
export interface FlopsCase {
  readonly train: RowsCase & Pick<TrainOptions, 'batch'>;
  readonly data: Pick<DataOptions, 'sequenceLength'>;
}

/**
 * Operations of a training step for a token, as {@link flopsPerToken} has them, but with the rows of experts of a run.
 *
 * @param which `sent` for what routing asks for, `computed` for what the machine does.
 */
export function trainingFlops(
  architecture: Architecture,
  {train, data: {sequenceLength}}: FlopsCase,
  which: keyof ExpertRows,
): number {
  const T = train.batch.sequences * sequenceLength;
  const layers = moeLayouts(architecture).flatMap((layout) => [
    layout,
    ...(layout.inner ? [flatLayout(layout, layout.inner)] : []),
  ]);
  const beyond = layers.map((layout) => {
    const rows = expertRows(layout, train, T)[which] - layout.topK;
    return FLOPS * 3 * architecture.width * layout.expertWidth * rows;
  });
  return beyond.reduce((sum, flops) => sum + flops, flopsPerToken(architecture, sequenceLength));
}

/** Of a weight and token: 2 forward, 2 for the gradient of what came before, 2 for that of the weight. */
const FLOPS = 6;
