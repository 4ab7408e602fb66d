import {mkdir, readFile, rename, rm, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, test} from 'vitest';
import {type ConvertOptions, convert} from '../../src/downcycle/convert.js';
import {NEURONS_FILE, renderNeuronMaps} from '../../src/downcycle/neuron-maps.js';
import {
  currentVersions,
  PROVENANCE_FILE,
  readProvenance,
  recordProof,
  renderProvenance,
} from '../../src/downcycle/provenance.js';
import {scratch, upcycle} from '../../src/downcycle/upcycle.js';
import {upcycleSchema} from '../../src/downcycle/upcycle-options.js';
import {displayWidth} from '../../src/report/table.js';
import {splitOptions} from '../downcycle/split-options.js';
import {tinyProfile} from '../downcycle/tiny-profile.js';
import {cli, tempFolder} from './support.js';

const MODEL = 'test/fixtures/model/tiny-llama';
const VERSIONS = `downcycle ${currentVersions().downcycle} on Node ${currentVersions().node}`;
const CONTIGUOUS = {method: 'contiguous', experts: 4, shared: 2, topK: 2};

/** A split of the tiny llama, in a folder that is gone after the test. */
async function split(
  method: {readonly method: string; readonly [setting: string]: unknown} = CONTIGUOUS,
  more: Partial<ConvertOptions> = {},
): Promise<string> {
  const out = join(await tempFolder(), 'moe');
  const profile = method.method === 'contiguous' ? {} : {profile: await tinyProfile()};
  await convert({model: MODEL, out, method: splitOptions(method), seed: 7, ...profile, ...more});
  return out;
}

/** The layers of a split and their legend. */
function tableOf(text: string): string {
  return text.slice(text.indexOf('\nlayer '));
}

/** What is shown after the summary of a model. */
async function originOf(path: string): Promise<string> {
  const {code, stdout} = await cli('inspect', path);
  expect(code).toBe(0);
  return stdout.split('\n\n').slice(1).join('\n\n');
}

describe('downcycle inspect of a split', () => {
  test('says which neurons were appended', async () => {
    const padded = await originOf(await split({method: 'contiguous', experts: 4, shared: 1, topK: 2, pad: true}));
    expect(padded).toContain('method       contiguous, experts 4, shared 1, topK 2, pad true\n');
    expect(padded).toContain(
      'neurons      5 shared, 20 in 4 experts of 5; the same in all 2 layers\npadding      1 a layer: neurons of zeros, appended with the last ids\n',
    );
  });

  test('shows where it came from and how each layer was cut', async () => {
    const path = await split();
    await recordProof(path, {maxLogitDifference: 1.13e-5, limit: 8.7e-4, passed: true, tokens: 256});
    expect(await originOf(path)).toBe(`origin       cut out of ${MODEL}, fingerprint c816a8b22a95
method       contiguous, experts 4, shared 2, topK 2
seed         7
calibration  none recorded: the cut looks at no activations
proof        all experts active: largest logit difference 1.1e-5 (allowed
             8.7e-4) on 256 tokens
made by      ${VERSIONS}
neurons      8 shared, 16 in 4 experts of 4; the same in all 2 layers
neuron map   neurons.st, hash of the map c4d9109c73ef as recorded

layer  24 neurons                                cut                    alpha
-----  ----------------------------------------  ---------------------  -----
    0  █████████████▒▒▒▒▒▒▒▒▒▒▒▒▒▒·············  8 shared + 2 of 4 x 4   0.33
    1  █████████████▒▒▒▒▒▒▒▒▒▒▒▒▒▒·············  8 shared + 2 of 4 x 4   0.33

█ shared   ▒ routed, active for a token   · routed, idle
alpha  shared ratio, before it was rounded to whole experts
`);
  });

  test('shows what else is recorded of its layers, in 80 columns', async () => {
    const method = {...CONTIGUOUS, method: 'expertweaver', allocation: 'adaptive', assignment: 'greedy'};
    const path = await split(method);
    const provenance = await readProvenance(path);
    if (provenance.kind !== 'split') throw new Error('not a split');
    const errors = [
      {before: 0.1234, after: 0.0456},
      {before: 1.5, after: 0.0002},
    ];
    const layers = provenance.layers.map((layer, l) => ({...layer, error: errors[l]!}));
    await writeFile(join(path, PROVENANCE_FILE), renderProvenance({...provenance, layers}));
    const text = await originOf(path);
    expect(text).toContain('\nmethod       expertweaver, experts 4, shared 2, topK 2, assignment greedy,\n');
    expect(text).toContain('\n             allocation adaptive\n');
    expect(text).toContain('3 tasks (prose, code, verse), each 2 samples of 16 tokens');
    expect(text).toMatch(/^layer {2}24 neurons +cut +r +alpha +error$/m);
    expect(text).toMatch(/^ {4}0 {2}█+▒+·+ .* 0\.\d\d +0\.\d\d {2}0\.123 -> 0\.046$/m);
    expect(text).toMatch(/ {2}1\.500 -> <\.001$/m);
    for (const line of text.split('\n')) expect(displayWidth(line), line).toBeLessThanOrEqual(80);
  });

  test('shows the factors of its experts, and that it was found not to equal its parent', async () => {
    const path = await split({...CONTIGUOUS, outputScale: 'match'}, {routedScale: [1.25, 1]});
    await recordProof(path, {maxLogitDifference: 0.25, limit: 8.7e-4, passed: false, tokens: 64});
    const text = await originOf(path);
    expect(text).toMatch(/^proof +failed; all experts active: largest logit difference 2\.5e-1$/m);
    expect(text).toMatch(/^ {4}0 {2}.* 0\.33 {3}1\.25$/m);
    expect(text).toMatch(/^ {4}1 {2}.* 0\.33 {3}1\.00$/m);
    expect(text).toMatch(/^scale {2}factor that the routed experts carry$/m);
  });

  test('that is pruned shows what was kept', async () => {
    const path = await split({...CONTIGUOUS, method: 'all-shared', topK: 1});
    const text = await originOf(path);
    expect(text).toContain('none: not equal to its parent by design: neurons were left out');
    expect(text).toMatch(/^neurons +12 kept, 12 left out; the same in all 2 layers$/m);
    expect(text).toMatch(/^ {4}1 {2}█{20}·{20} {2}12 of 24 kept +0\.33$/m);
    expect(text).toContain('\n█ kept   · left out\n');

    await rm(join(path, NEURONS_FILE));
    const older = await originOf(path);
    expect(older).toMatch(/^ {4}1 {2}\? +12 kept +0\.33$/m);
    expect(older).toContain('\n? how many neurons were left out is not recorded\n');
  });

  test('of an older version, without a map, shows its layers all the same', async () => {
    const path = await split();
    const before = tableOf(await originOf(path));
    await rm(join(path, NEURONS_FILE));
    const text = await originOf(path);
    expect(text).toMatch(/^neuron map {3}none: neurons.st is not in the folder; older versions wrote none$/m);
    expect(tableOf(text)).toBe(before);
  });

  test('that says it was trained since says so', async () => {
    const path = await split();
    const provenance = await readProvenance(path);
    await writeFile(join(path, PROVENANCE_FILE), renderProvenance({...provenance, trained: true}));
    expect(await originOf(path)).toMatch(/^trained +since it was made; what follows tells how it started\n/);
  });

  test('in a checkpoint of an older version says that it was trained since', async () => {
    const path = await split();
    const checkpoint = join(await tempFolder(), 'step-000002');
    await mkdir(checkpoint);
    await rename(path, join(checkpoint, 'model'));
    await writeFile(join(checkpoint, 'trainer.json'), '{}');
    expect(await originOf(checkpoint)).toMatch(
      /^trained +since it was made; what follows tells how it started\norigin +cut out of/,
    );
  });

  test('prints everything but the map as JSON', async () => {
    const {stdout} = await cli('inspect', await split(), '--json');
    const count = {shared: 8, experts: [4, 4, 4, 4], leftOut: 0};
    expect(JSON.parse(stdout)).toMatchObject({
      provenance: {kind: 'split', method: CONTIGUOUS, layers: [{sharedWidth: 8}, {sharedWidth: 8}]},
      neurons: [count, count],
      isTrained: false,
    });
  });
});

describe('downcycle inspect of other mixtures', () => {
  test('shows what an upcycled one was copied from', async () => {
    const out = join(await tempFolder(), 'moe');
    const method = upcycleSchema.parse({method: 'drop-upcycle', experts: 2, topK: 1, ratio: 0.25});
    await upcycle({model: MODEL, out, method, seed: 3, revision: 'main'});
    expect(await originOf(out)).toBe(`origin   copied from ${MODEL} at main, fingerprint
         c816a8b22a95
method   drop-upcycle, experts 2, topK 1, ratio 0.25
seed     3
proof    none: not equal to its parent by design: 25% of the neurons of each
         copy were drawn anew
made by  ${VERSIONS}
`);
  });

  test('shows that one was made from scratch', async () => {
    const out = join(await tempFolder(), 'moe');
    const {architecture} = await convert({
      model: MODEL,
      out,
      method: splitOptions(CONTIGUOUS),
      seed: 1,
      dryRun: true,
    });
    await scratch({architecture, out, seed: 5});
    expect(await originOf(out)).toBe(`origin   made from scratch, weights drawn at random
seed     5
proof    none: there is no dense model that it could equal
made by  ${VERSIONS}
`);
  });
});

describe('downcycle inspect refuses', () => {
  test('a damaged record, naming the key', async () => {
    const path = await split();
    const record = join(path, PROVENANCE_FILE);
    await writeFile(record, (await readFile(record, 'utf8')).replace('"sharedWidth": 8', '"sharedWidth": "8"'));
    expect(await cli('inspect', path)).toEqual({
      code: 5,
      stdout: '',
      stderr: `error: ${record}: layers.0.sharedWidth: Invalid input: expected number, received string.\n`,
    });
  });

  test('a map that is not the one of the record', async () => {
    const path = await split();
    const map = new Int32Array(24);
    await writeFile(join(path, NEURONS_FILE), renderNeuronMaps({maps: [map, map], padding: 0}));
    const {code, stderr} = await cli('inspect', path);
    expect(stderr).toContain(`${join(path, NEURONS_FILE)}: this is not the map that downcycle.json names`);
    expect(stderr).toContain('hint: Take both files from the folder that was converted, or convert again.');
    expect(code).toBe(5);
  });
});
