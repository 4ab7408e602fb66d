// Runs one training in a process of its own, to be ended from outside or to end itself at a moment the test chose.
import fs from 'node:fs/promises';
import {syncBuiltinESMExports} from 'node:module';
import {train} from '../../src/train/run.js';
import type {TrainRun} from '../../src/train/session.js';

/** What the test wants: the run, and when to die as if by `kill -9`. */
export interface ChildOrder {
  readonly run: TrainRun;
  /** After this step's line was logged. */
  readonly dieAfterStep?: number;
  /** When a file whose path matches is opened for writing; or once a rename to such a path is done. */
  readonly dieAtOpen?: string;
  readonly dieAfterRename?: string;
}

const {run, dieAfterStep, dieAtOpen, dieAfterRename} = JSON.parse(process.argv[2] ?? '') as ChildOrder;
const die = (): void => {
  process.kill(process.pid, 'SIGKILL');
};
const {open, rename} = fs;
fs.open = (async (...args: Parameters<typeof open>) => {
  if (dieAtOpen && args[1] !== 'r' && new RegExp(dieAtOpen).test(String(args[0]))) die();
  return open(...args);
}) as typeof open;
fs.rename = async (from, to) => {
  await rename(from, to);
  if (dieAfterRename && new RegExp(dieAfterRename).test(String(to))) die();
};
syncBuiltinESMExports();

const result = await train(run, (event) => {
  process.stdout.write(`${JSON.stringify(event)}\n`);
  if (event.kind === 'step' && event.step === dieAfterStep) die();
});
process.stdout.write(`${JSON.stringify({kind: 'result', ...result})}\n`);
