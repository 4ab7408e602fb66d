import {setTimeout as sleep} from 'node:timers/promises';
import {EnvironmentError, type ErrorDetails} from '../util/errors.js';
import type {Hub} from './settings.js';

/** What is asked for, for messages: a model, and a file or revision of it. */
export interface Asked {
  readonly id: string;
  readonly revision: string;
}

/** An error that may be gone at the next try. */
export class PassingError extends EnvironmentError {
  /** Milliseconds that the server asks to wait; null if it does not say. */
  readonly wait: number | null;

  constructor(message: string, {wait = null, ...details}: ErrorDetails & {readonly wait?: number | null}) {
    super(message, details);
    this.wait = wait;
  }
}

/** Tries after the first. */
const MOST_RETRIES = 3;
/** Milliseconds before the second try; doubled before each further one. */
const BACKOFF = 500;

/**
 * Runs something again, after a while, as long as it fails with a {@link PassingError}.
 *
 * @param hasProgressed whether the last try got further, which starts the count anew.
 */
export async function retried<T>(
  {signal}: Hub,
  run: () => Promise<T>,
  hasProgressed: () => boolean = () => false,
): Promise<T> {
  for (let failures = 0; ; failures++) {
    try {
      return await run();
    } catch (error) {
      if (hasProgressed()) failures = 0;
      if (!(error instanceof PassingError) || failures >= MOST_RETRIES) throw error;
      await sleep(error.wait ?? BACKOFF * 2 ** failures, undefined, signal && {signal});
    }
  }
}
