import {CommanderError} from '@commander-js/extra-typings';
import {DowncycleError, describeError} from '../../src/util/errors.js';

/** Runs a script to its end; an error becomes one line and an exit code. */
export async function runScript(main: () => Promise<void>): Promise<void> {
  try {
    await main();
  } catch (error) {
    process.exitCode = exitCode(error);
    if (!(error instanceof CommanderError)) console.error(describeError(error)); // commander has printed its own
  }
}

function exitCode(error: unknown): number {
  if (error instanceof DowncycleError) return error.exitCode;
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  return 1;
}
