/**
 * One process for memory.test.ts: `memory-worker.mjs <modules> <order>`; prints one JSON line, its peak in bytes. In the order
 * are a model, a folder, a stage and the text. A profile goes into the folder, from which a conversion takes it, and that into
 * the folder, where it is proved.
 *
 * Peaks are VmHWM, the kernel's record of the most memory a process ever held, so each measurement needs a process. Plain
 * JavaScript: where the product is built, no compiler is in that memory.
 */
import {readFileSync} from 'node:fs';
import {join} from 'node:path';

const [modules = '', order = ''] = process.argv.slice(2);
const {model, folder, stage, samples, sequenceLength, vocab} = JSON.parse(order);
const load = (name) => import(modules.replace('*', name));

const {createRng} = await load('util/rng');
const {startEngine} = await load('engine/start');
const rng = createRng(2, 'tokens');
const calibration = {
  tokens: Int32Array.from({length: samples * sequenceLength}, () => rng.int(vocab)),
  sequenceLength,
  tasks: ['a', 'b'],
  taskOfSample_J: Int32Array.from({length: samples}, (_, j) => (2 * j) / samples),
  hash: 'h',
};

await startEngine({device: 'cpu'});
await run();
const [, kilobytes] = /VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
process.stdout.write(`${JSON.stringify({peak: 1024 * Number(kilobytes)})}\n`);
process.exit();

function run() {
  switch (stage) {
    case 'profile':
      return profileInto(false);
    case 'predictors':
      return profileInto(true);
    case 'cmoe':
      return convertBy('cmoe');
    case 'refit':
      return convertBy('weave');
    case 'proof':
      return prove();
    default:
      throw new Error(`there is no stage ${stage}`);
  }
}

async function splitOptions(method) {
  const {splitSchema} = await load('downcycle/options');
  return splitSchema.parse({experts: 30, shared: 2, topK: 6, method});
}

async function profileInto(all) {
  const {openDense} = await load('downcycle/model-source');
  const {writeProfile} = await load('downcycle/profile-file');
  const {profileText} = await load('downcycle/profile-model');
  const {profileSchema} = await load('downcycle/profile-options');
  const profile = profileSchema.parse({predictors: all, gradients: all});
  const partial = join(folder, `partial-${stage}`);
  const result = await profileText(await openDense(model), calibration, {profile, partial});
  await writeProfile(join(folder, stage), result);
}

async function convertBy(name) {
  const {convert} = await load('downcycle/convert');
  const {readProfile} = await load('downcycle/profile-file');
  const profile = await readProfile(join(folder, name === 'weave' ? 'predictors' : 'profile'));
  await convert({model, out: join(folder, stage), method: await splitOptions(name), seed: 1, profile, calibration});
}

/** What `outputScale: match` measures before a conversion, and the proof after it. */
async function prove() {
  const {planOf} = await load('downcycle/convert');
  const {measureRoutedScale} = await load('downcycle/output-scale');
  const {proveConversion} = await load('downcycle/proof');
  const how = {model, method: await splitOptions('contiguous'), seed: 1};
  await measureRoutedScale(model, await planOf(how), calibration, how);
  const rows = Array.from({length: samples}, (_, j) => [
    ...calibration.tokens.subarray(j * sequenceLength, (j + 1) * sequenceLength),
  ]);
  if (!(await proveConversion(model, join(folder, 'cmoe'), rows)).passed) throw new Error('not proved');
}
