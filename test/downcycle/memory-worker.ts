/**
 * One process for memory.test.ts: `memory-worker.ts <model> <folder> <what>`; prints one JSON line, bytes at the start and at the peak.
 * A profile goes into the folder, from which a conversion takes it, and that into the folder, where it is proved.
 *
 * Peaks are VmHWM, the kernel's record of the most memory a process ever held, so each measurement needs a process.
 */
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import type {Calibration} from '../../src/downcycle/calibration.js';
import {convert, planOf} from '../../src/downcycle/convert.js';
import {openDense} from '../../src/downcycle/model-source.js';
import type {SplitOptions} from '../../src/downcycle/options.js';
import {measureRoutedScale} from '../../src/downcycle/output-scale.js';
import {readProfile, writeProfile} from '../../src/downcycle/profile-file.js';
import {profileText} from '../../src/downcycle/profile-model.js';
import {profileSchema} from '../../src/downcycle/profile-options.js';
import {proveConversion} from '../../src/downcycle/proof.js';
import {startEngine} from '../../src/engine/start.js';
import {createRng} from '../../src/util/rng.js';
import {splitOptions} from './split-options.js';
import {SAMPLES, SEQUENCE_LENGTH, TOKENS, VOCAB} from './wide-model.js';

const [model = '', folder = '', what = ''] = process.argv.slice(2);
const rng = createRng(2, 'tokens');
const calibration: Calibration = {
  tokens: Int32Array.from({length: TOKENS}, () => rng.int(VOCAB)),
  sequenceLength: SEQUENCE_LENGTH,
  tasks: ['a', 'b'],
  taskOfSample_J: Int32Array.from({length: SAMPLES}, (_, j) => (2 * j) / SAMPLES),
  hash: 'h',
};
const METHODS: Readonly<Record<string, object>> = {
  cmoe: {method: 'cmoe'},
  refit: {method: 'weave'},
};

const start = memory('VmRSS');
await startEngine({device: 'cpu'});
const method = METHODS[what];
if (method) await convertBy(splitOptions({experts: 30, shared: 2, topK: 6, ...method}));
else if (what === 'proof') await prove();
else await profileInto(what === 'predictors');
process.stdout.write(`${JSON.stringify({start, peak: memory('VmHWM')})}\n`);

async function convertBy(options: SplitOptions): Promise<void> {
  const profile = await readProfile(join(folder, 'profile'));
  await convert({model, out: join(folder, what), method: options, seed: 1, profile, calibration});
}

/** What `outputScale: match` measures before a conversion, and the proof after it. */
async function prove(): Promise<void> {
  const options = splitOptions({experts: 30, shared: 2, topK: 6, method: 'contiguous'});
  const how = {model, method: options, seed: 1};
  await measureRoutedScale(model, await planOf(how), calibration, how);
  const rows = Array.from({length: SAMPLES}, (_, j) => [
    ...calibration.tokens.subarray(j * SEQUENCE_LENGTH, (j + 1) * SEQUENCE_LENGTH),
  ]);
  if (!(await proveConversion(model, join(folder, 'cmoe'), rows)).passed) throw new Error('not proved');
}

async function profileInto(all: boolean): Promise<void> {
  const source = await openDense(model);
  const settings = profileSchema.parse({predictors: all, gradients: all});
  const partial = join(folder, 'partial');
  await writeProfile(join(folder, 'profile'), await profileText(source, calibration, {profile: settings, partial}));
}

function memory(key: 'VmRSS' | 'VmHWM'): number {
  const [, kilobytes] = new RegExp(`${key}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
  return 1024 * Number(kilobytes);
}
