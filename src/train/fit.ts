// What a person can do about a run that is too large.
import {EnvironmentError} from '../util/errors.js';
import type {RunEstimate} from './estimate.js';
import type {TrainRun} from './session.js';

/** @throws EnvironmentError that says what to lower, if the run does not fit into the machine. */
export function requireFit({bytes, free, terms}: RunEstimate, run: Pick<TrainRun, 'train' | 'data'>): void {
  if (bytes <= free.bytes) return;
  const [need, have] = [bytes, free.bytes].map((value) => `${(value / 1e9).toFixed(1)} GB`);
  const hasWork = terms.some((term) => term.what === 'activations, gradients, logits' && term.bytes > 0);
  throw new EnvironmentError(`The run needs ${need}, there are ${have} of ${free.of} free.`, {
    hint: waysToFit(run, hasWork),
  });
}

/** What of a run takes memory and could be less, in a sentence; `hasWork` says whether its steps take any. */
export function waysToFit({train, data}: Pick<TrainRun, 'train' | 'data'>, hasWork = true): string {
  const {batch, recompute, finetune, optimizer} = train;
  const ways = [
    ...(hasWork && batch.sequences > 1 ? [`lower train.batch.sequences (${batch.sequences})`] : []),
    ...(hasWork ? [`lower data.sequenceLength (${data.sequenceLength})`] : []),
    ...(hasWork && recompute === 'none' ? ['set train.recompute to layer'] : []),
    ...(finetune.kind === 'full' ? ['train low-rank terms only (train.finetune: {kind: lora, ...})'] : []),
    ...(finetune.kind === 'full' && optimizer.kind === 'adamw' ? ['set train.optimizer.kind to adafactor'] : []),
    'take a machine with more',
  ];
  const hint = `${ways.slice(0, -1).join(', ')} or ${ways.at(-1)}.`.replace(/^ or /, '');
  return hint.charAt(0).toUpperCase() + hint.slice(1);
}
