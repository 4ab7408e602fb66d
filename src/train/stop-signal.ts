import {constants} from 'node:os';

/** A wish to stop, from Ctrl-C or a scheduler. */
export interface StopSignal {
  /** The signal that asked, or null. */
  requested(): NodeJS.Signals | null;
  dispose(): void;
}

/** What asks a process to end: Ctrl-C, a terminal that is gone, a scheduler. */
export const STOP_SIGNALS = ['SIGINT', 'SIGHUP', 'SIGTERM'] as const;

/** Milliseconds, from when the first is handled, in which the same signal is the first one once more: `timeout` tells its child, and then the group that both are in. */
const ECHO = 300;

/**
 * Listens for the first of them, which lets the step end and a checkpoint be written; a second ends at once, but for an echo of
 * the first, and for that of a terminal: both its shell and the system may say that it is gone.
 */
export function listenForStop(onRequest: (signal: NodeJS.Signals) => void): StopSignal {
  let requested: NodeJS.Signals | null = null;
  let since = 0;
  const listener = (signal: NodeJS.Signals): void => {
    if (requested === null) {
      requested = signal;
      since = performance.now();
      onRequest(signal);
    } else if (signal !== 'SIGHUP' && !(signal === requested && performance.now() - since <= ECHO)) {
      process.exit(exitCodeOf(signal));
    }
  };
  for (const signal of STOP_SIGNALS) process.on(signal, listener);
  return {
    requested: () => requested,
    dispose: () => {
      for (const signal of STOP_SIGNALS) process.off(signal, listener);
    },
  };
}

/** The exit code a shell expects of a process that a signal ended. */
export function exitCodeOf(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal];
}
