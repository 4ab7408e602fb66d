// Runs one training in a process of its own, to be ended from outside or to end itself at a moment the test chose: see
// startChild in support.ts. Plain JavaScript, for many such processes are started, and where the module that trains is built,
// too, nothing has to be compiled.
import fs from 'node:fs/promises';
import {syncBuiltinESMExports} from 'node:module';
import {dirname} from 'node:path';

const [module, order] = process.argv.slice(2);
const {run, dieAfterStep, dieAtOpen, dieAfterRename, dieAtChange} = JSON.parse(order);
const die = () => process.kill(process.pid, 'SIGKILL');
const {open, rename} = fs;
fs.open = async (...args) => {
  if (dieAtOpen && args[1] !== 'r' && new RegExp(dieAtOpen).test(String(args[0]))) die();
  return open(...args);
};
fs.rename = async (from, to) => {
  await rename(from, to);
  if (dieAfterRename && new RegExp(dieAfterRename).test(String(to))) die();
};
if (dieAtChange !== undefined) await dieAt(dieAtChange);
syncBuiltinESMExports();

const {train} = await import(module);
const result = await train(run, (event) => {
  process.stdout.write(`${JSON.stringify(event)}\n`);
  if (event.kind === 'step' && event.step === dieAfterStep) die();
});
process.stdout.write(`${JSON.stringify({kind: 'result', ...result})}\n`);

/** Counts the changes of files; at the last one, a write leaves half of itself and the process ends. */
async function dieAt(last) {
  const folder = dirname(run.out);
  let changes = 0;
  const isLast = (path) => String(path).startsWith(folder) && changes++ === last;
  const before =
    (fn) =>
    (...args) => {
      if (isLast(args[0])) die();
      return fn(...args);
    };
  const handles = await hookWrites(isLast);
  const plainOpen = fs.open;
  fs.open = async (...args) => {
    const isWriting = args[1] !== undefined && args[1] !== 'r';
    if (isWriting && isLast(args[0])) die();
    const file = await plainOpen(...args);
    if (isWriting) handles.set(file, String(args[0]));
    return file;
  };
  for (const name of ['rename', 'mkdir', 'rm']) fs[name] = before(fs[name]);
}

/** Hooks into the methods of all file handles; returns where the paths of those that count are kept. */
async function hookWrites(isLast) {
  const handles = new WeakMap();
  const probe = await open(process.execPath, 'r');
  const prototype = Object.getPrototypeOf(probe);
  await probe.close();
  const {write} = prototype;
  for (const name of ['write', 'writeFile', 'appendFile', 'sync', 'truncate']) {
    const plain = prototype[name];
    prototype[name] = async function (...args) {
      const path = handles.get(this);
      if (path === undefined || !isLast(path)) return plain.apply(this, args);
      if (name.startsWith('write') || name === 'appendFile') {
        const bytes = Buffer.from(args[0]);
        const [, , , position] = args;
        await write.call(this, bytes, 0, bytes.length >> 1, position ?? null);
      }
      die();
      return plain.apply(this, args);
    };
  }
  return handles;
}
