import {CommanderError} from '@commander-js/extra-typings';
import {asEnvironmentError} from '../util/atomic.js';
import {DowncycleError, systemCode} from '../util/errors.js';
import {addCompare} from './commands/compare.js';
import {addDoctor} from './commands/doctor.js';
import {addInspect} from './commands/inspect.js';
import {addPlot} from './commands/plot.js';
import {addPrepare} from './commands/prepare.js';
import {addProfile} from './commands/profile.js';
import {createProgram} from './program.js';
import {createUi, type Io} from './ui.js';

/** Exit code of a wrong command line, whoever finds out: commander or we. */
const USAGE = 2;
/** Exit code of what nobody foresaw. */
const UNFORESEEN = 1;

/** Runs the command line and returns its exit code. Nothing is thrown: errors become `error:` and `hint:` lines. */
export async function runCli(args: readonly string[], io: Io): Promise<number> {
  const program = createProgram(io);
  const ui = createUi(io, () => program.opts());
  for (const add of [addPrepare, addProfile, addCompare, addPlot, addInspect, addDoctor]) add(program, ui);
  for (const command of program.commands) command.copyInheritedSettings(program);
  try {
    await program.parseAsync(args, {from: 'user'});
    return ui.exitCode;
  } catch (error) {
    return report(error, io);
  }
}

function report(error: unknown, {stderr, env}: Io): number {
  // Commander has printed its own message, and throws after help and version, too.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE;
  const known = asEnvironmentError(error, pathOf(error));
  const message = known instanceof Error ? known.message : String(known);
  stderr.write(`error: ${message}\n`);
  if (known instanceof DowncycleError) {
    if (known.hint !== undefined) stderr.write(`hint: ${known.hint}\n`);
    if (env.DOWNCYCLE_DEBUG === '1') stderr.write(`${stackOf(known)}\n`);
    return known.exitCode;
  }
  if (env.DOWNCYCLE_DEBUG === '1') stderr.write(`${stackOf(error)}\n`);
  else stderr.write('hint: This was not foreseen. DOWNCYCLE_DEBUG=1 shows where it happened.\n');
  return UNFORESEEN;
}

/** The file that a failed system call was about. */
function pathOf(error: unknown): string {
  const hasPath = systemCode(error) !== undefined && error instanceof Error && 'path' in error;
  return hasPath && typeof error.path === 'string' ? error.path : 'the output';
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return '';
  const cause = error.cause === undefined ? '' : `\ncaused by: ${stackOf(error.cause)}`;
  return `${error.stack ?? ''}${cause}`;
}
