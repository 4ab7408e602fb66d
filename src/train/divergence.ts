import {ConfigError} from '../util/errors.js';

/** The error of a run whose numbers grew beyond what float32 holds. @param found what was seen, in words. */
export function divergence(run: string, step: number, found: string): ConfigError {
  return new ConfigError(`${run}: training diverged at step ${step} (${found}).`, {
    hint: 'Lower train.optimizer.lr or lengthen train.schedule.warmup, and go on from the last checkpoint with --allow-change; if that diverges at once, it is spoilt, too: remove its folder to go on from the one before.',
  });
}

/** The error of a run whose loss leapt. @param found loss and limit, in words. */
export function spike(run: string, step: number, found: string): ConfigError {
  return new ConfigError(`${run}: the loss of step ${step} is a spike (${found}).`, {
    hint: 'The state before it is saved. Lower train.optimizer.lr, or pass over such steps with train.spike.policy skip, and go on with --allow-change.',
  });
}
