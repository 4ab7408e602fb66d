/** A wish to stop, from Ctrl-C or a scheduler. */
export interface StopSignal {
  /** The signal that asked, or null. */
  requested(): NodeJS.Signals | null;
  dispose(): void;
}

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/** Listens for the first Ctrl-C or SIGTERM, which lets the step end and a checkpoint be written; a second ends at once. */
export function listenForStop(onRequest: (signal: NodeJS.Signals) => void): StopSignal {
  let requested: NodeJS.Signals | null = null;
  const listener = (signal: NodeJS.Signals): void => {
    if (requested) process.exit(exitCodeOf(signal));
    requested = signal;
    onRequest(signal);
  };
  for (const signal of SIGNALS) process.on(signal, listener);
  return {
    requested: () => requested,
    dispose: () => {
      for (const signal of SIGNALS) process.off(signal, listener);
    },
  };
}

/** The exit code a shell expects of a process that a signal ended. */
export function exitCodeOf(signal: NodeJS.Signals): number {
  return signal === 'SIGTERM' ? 143 : 130;
}
