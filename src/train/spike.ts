import {z} from 'zod';
import type {StepResult} from './step-runner.js';

const factor = z
  .number()
  .gt(1)
  .default(2)
  .describe('A loss above factor x the median of the last `window` losses is a spike.');
const window = z
  .int()
  .min(2)
  .default(64)
  .describe('Losses that the median is taken of; before there are as many, no loss is a spike.');

/** What happens to a step that would do harm. */
export const spikeSchema = z
  .discriminatedUnion('policy', [
    z.strictObject({
      policy: z
        .literal('none')
        .describe(
          'Every finite step is applied, as in torchtitan and nanotron: clipping and warm-up tame most spikes, and what is called one depends on the data. A loss or gradient that is not finite stops the run.',
        ),
    }),
    z.strictObject({
      policy: z
        .literal('skip')
        .describe(
          'A spike, or a gradient that is not finite, changes nothing; the step is logged as skipped. After `window` such steps in a row that were not finite the run stops.',
        ),
      factor,
      window,
    }),
    z.strictObject({
      policy: z.literal('stop').describe('A spike stops the run as well; the state before it is saved.'),
      factor,
      window,
    }),
  ])
  .describe('What happens to a step whose loss leaps, before it is applied.');

/** A checked `train.spike`. */
export type SpikeOptions = z.output<typeof spikeSchema>;

/** The last losses, oldest first; null for a step whose loss or gradient was not finite. */
export type RecentLosses = readonly (number | null)[];

/** The largest float32: a loss that is infinite is above it. */
export const NO_LIMIT = 2 ** 128 - 2 ** 104;

/** The loss above which a step is a spike: `factor · median(recent)`; {@link NO_LIMIT} while there are too few. */
export function lossLimit(options: SpikeOptions, recent: RecentLosses): number {
  const median = medianLoss(recent);
  if (options.policy === 'none' || recent.length < options.window || median === null) return NO_LIMIT;
  return options.factor * median;
}

/** The losses to compare the next step with. Spikes count, so that a loss which stays high is one no more. */
export function withLoss(
  options: SpikeOptions,
  recent: RecentLosses,
  {loss, gradNorm}: Pick<StepResult, 'loss' | 'gradNorm'>,
): RecentLosses {
  if (options.policy === 'none') return [];
  const isSound = Number.isFinite(loss) && Number.isFinite(gradNorm);
  return [...recent, isSound ? loss : null].slice(-options.window);
}

/** Whether the compiled step, which computes in float32, applied what it found. */
export function isApplied({loss, gradNorm}: Pick<StepResult, 'loss' | 'gradNorm'>, limit: number): boolean {
  return Number.isFinite(gradNorm) && Math.fround(loss) <= Math.fround(limit);
}

/** Whether a step may be passed over: not where as many as the window holds were not finite, for that will not end. */
export function maySkip(options: SpikeOptions, recent: RecentLosses): boolean {
  return options.policy === 'skip' && (recent.length < options.window || medianLoss(recent) !== null);
}

/** Median of the losses that are finite; null if there are none. */
function medianLoss(recent: RecentLosses): number | null {
  const sorted = recent.filter((loss) => loss !== null).sort((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return low === undefined || high === undefined ? null : (low + high) / 2;
}
