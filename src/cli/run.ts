import {CommanderError} from '@commander-js/extra-typings';
import {asEnvironmentError} from '../util/atomic.js';
import {DowncycleError, systemCode} from '../util/errors.js';
import {addCompare} from './commands/compare.js';
import {addConversions} from './commands/conversions.js';
import {addConvert} from './commands/convert.js';
import {addDoctor} from './commands/doctor.js';
import {addEval} from './commands/eval.js';
import {addExport} from './commands/export.js';
import {addGenerate} from './commands/generate.js';
import {addInspect} from './commands/inspect.js';
import {addMerge} from './commands/merge.js';
import {addPlot} from './commands/plot.js';
import {addPrepare} from './commands/prepare.js';
import {addProfile} from './commands/profile.js';
import {addPull} from './commands/pull.js';
import {addRecover} from './commands/recover.js';
import {addTrain} from './commands/train.js';
import {createProgram, type Program} from './program.js';
import {createUi, type Io, type Ui} from './ui.js';

/** Exit code of a wrong command line, whoever finds out: commander or we. */
const USAGE = 2;
/** Exit code of what nobody foresaw. */
const UNFORESEEN = 1;

/** In the order of the corridor from model and text to curves, which is that of `--help`. */
const COMMANDS = [
  addPull,
  addPrepare,
  addProfile,
  addConvert,
  addConversions,
  addTrain,
  addRecover,
  addMerge,
  addExport,
  addEval,
  addGenerate,
  addCompare,
  addPlot,
  addInspect,
  addDoctor,
];

/** Runs the command line and returns its exit code. Nothing is thrown: errors become `error:` and `hint:` lines. */
export async function runCli(args: readonly string[], io: Io): Promise<number> {
  const {program, ui} = buildProgram(io);
  try {
    await program.parseAsync(args, {from: 'user'});
    return ui.exitCode;
  } catch (error) {
    return report(error, io);
  }
}

/** The program with all its commands. */
export function buildProgram(io: Io): {readonly program: Program; readonly ui: Ui} {
  const program = createProgram(io);
  const ui = createUi(io, () => program.opts());
  for (const add of COMMANDS) add(program, ui);
  return {program, ui};
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
