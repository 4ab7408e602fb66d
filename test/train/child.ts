// Runs one training in a process of its own, to be ended from outside or to end itself at a moment the test chose.
import fs from 'node:fs/promises';
import {syncBuiltinESMExports} from 'node:module';
import {dirname} from 'node:path';
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
  /** At the so manieth change of a file in the folder of the run or beside it, from 0; a write is done by half. */
  readonly dieAtChange?: number;
}

const {run, dieAfterStep, dieAtOpen, dieAfterRename, dieAtChange} = JSON.parse(process.argv[2] ?? '') as ChildOrder;
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
if (dieAtChange !== undefined) await dieAt(dieAtChange);
syncBuiltinESMExports();

const result = await train(run, (event) => {
  process.stdout.write(`${JSON.stringify(event)}\n`);
  if (event.kind === 'step' && event.step === dieAfterStep) die();
});
process.stdout.write(`${JSON.stringify({kind: 'result', ...result})}\n`);

/** Counts the changes of files; at the last one, a write leaves half of itself and the process ends. */
async function dieAt(last: number): Promise<void> {
  const folder = dirname(run.out);
  let changes = 0;
  const isLast = (path: unknown): boolean => String(path).startsWith(folder) && changes++ === last;
  const before = <A extends unknown[], R>(fn: (...args: A) => Promise<R>, changesFile: (...args: A) => boolean) => {
    return (...args: A): Promise<R> => {
      if (changesFile(...args) && isLast(args[0])) die();
      return fn(...args);
    };
  };
  const always = (): boolean => true;
  const handles = await hookWrites(isLast);
  const plainOpen = fs.open;
  fs.open = (async (...args: Parameters<typeof open>) => {
    const isWriting = args[1] !== undefined && args[1] !== 'r';
    if (isWriting && isLast(args[0])) die();
    const file = await plainOpen(...args);
    if (isWriting) handles.set(file, String(args[0]));
    return file;
  }) as typeof open;
  fs.rename = before(fs.rename, always);
  fs.mkdir = before(fs.mkdir as (path: string) => Promise<undefined>, always) as typeof fs.mkdir;
  fs.rm = before(fs.rm, always);
}

/** Hooks into the methods of all file handles; returns where the paths of those that count are kept. */
async function hookWrites(isLast: (path: string) => boolean): Promise<WeakMap<object, string>> {
  const handles = new WeakMap<object, string>();
  const probe = await open(process.execPath, 'r');
  const prototype = Object.getPrototypeOf(probe) as Record<string, (...args: unknown[]) => Promise<unknown>>;
  await probe.close();
  const write = prototype.write!;
  for (const name of ['write', 'writeFile', 'appendFile', 'sync', 'truncate']) {
    const plain = prototype[name]!;
    prototype[name] = async function (this: object, ...args) {
      const path = handles.get(this);
      if (path === undefined || !isLast(path)) return plain.apply(this, args);
      if (name.startsWith('write') || name === 'appendFile') {
        const bytes = Buffer.from(args[0] as Uint8Array);
        const [, , , position] = args;
        await write.call(this, bytes, 0, bytes.length >> 1, position ?? null);
      }
      die();
      return plain.apply(this, args);
    };
  }
  return handles;
}
