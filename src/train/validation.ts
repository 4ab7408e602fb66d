import {evaluationBatches} from '../data/evaluation.js';
import type {SourceShards} from '../data/shards.js';
import type {ShardRows} from '../format/token-shard-rows.js';
import {createLossMeter} from '../model/loss-meter.js';
import {ConfigError} from '../util/errors.js';
import {averagedModel} from './ema.js';
import type {Session} from './session.js';
import type {TrainState} from './state.js';

/** The mean loss over the held-out rows of all sources together. */
export interface ValidationLoss {
  /** `valid` for the weights, `valid-ema` for their running means. */
  readonly split: 'valid' | 'valid-ema';
  readonly loss: number;
}

/** Measures a model in training on held-out text. */
export interface Validation {
  /** That of the weights first; nothing where no text is held out. */
  measure(): Promise<readonly ValidationLoss[]>;
  dispose(): void;
}

/**
 * Makes ready to validate a run: the same rows each time.
 *
 * @throws ConfigError if something hangs on the validation loss and there is no text to measure it on.
 */
export function openValidation(session: Session, state: TrainState): Validation {
  const {run, sources, engine} = session;
  requireText(session);
  const averaged = averagedModel(state);
  const open = (weights: Parameters<typeof createLossMeter>[0]) =>
    createLossMeter(weights, run.data.sequenceLength, engine.precision);
  const meters = [
    {split: 'valid', meter: open(state)} as const,
    ...(averaged ? [{split: 'valid-ema', meter: open(averaged)} as const] : []),
  ];
  const {batch, validation} = run.train;
  return {
    measure: async () => {
      if (!holdsText(sources)) return [];
      const losses: ValidationLoss[] = [];
      for (const {split, meter} of meters) {
        const {loss} = await meter.measure(heldOutBatches(sources, batch.sequences, validation.maxRows));
        losses.push({split, loss});
      }
      return losses;
    },
    dispose: () => {
      for (const {meter} of meters) meter.dispose();
    },
  };
}

async function* heldOutBatches(
  sources: readonly SourceShards[],
  sequences: number,
  maxRows: number,
): AsyncGenerator<ShardRows> {
  for (const {valid} of sources) if (valid) yield* evaluationBatches(valid, sequences, maxRows);
}

function holdsText(sources: readonly SourceShards[]): boolean {
  return sources.some(({valid}) => valid !== null);
}

function requireText({run, sources}: Session): void {
  const {patience, checkpoint} = run.train;
  if (holdsText(sources) || (patience === undefined && !checkpoint.best)) return;
  const key = patience === undefined ? 'train.checkpoint.best' : 'train.patience';
  throw new ConfigError(`${run.out}: ${key} goes by the validation loss, and no source holds text out.`, {
    hint: `Set data.validation.share above 0, or leave ${key} out.`,
  });
}
