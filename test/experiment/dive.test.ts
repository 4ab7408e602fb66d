import {existsSync} from 'node:fs';
import {readFile, writeFile} from 'node:fs/promises';
import {join, resolve} from 'node:path';
import {describe, expect, it, vi} from 'vitest';
import {parseConfig} from '../../src/config/load.js';
import {checkArms} from '../../src/experiment/check.js';
import {readRunLog} from '../../src/format/run-log.js';
import {openTensors} from '../../src/format/tensor-store.js';
import {ConfigError} from '../../src/util/errors.js';
import {type Ended, spawnCli, tempFolder} from '../cli/support.js';
import {TINY_LLAMA} from '../model/tiny-llama.js';
import {DENSE, TEXT, writeModel} from '../train/support.js';

vi.setConfig({testTimeout: 180_000});

/** A folder with a tiny dense model, three texts and a config of one arm. */
async function workplace(arm = '{method: dive, experts: 2, topK: 1}', more = ''): Promise<string> {
  const folder = await tempFolder();
  await writeModel(join(folder, 'model'), DENSE);
  for (const name of ['javascript', 'geography']) {
    const text = await readFile(resolve('data', `${name}.txt`), 'utf8');
    await writeFile(join(folder, `${name}.txt`), text.slice(0, 12_000));
  }
  await writeFile(
    join(folder, 'config.yaml'),
    `name: tiny
seed: 7
engine: {device: wasm}
model: model
data:
  sequenceLength: 32
  sources:
    - {name: scripture, path: ${resolve(TEXT)}}
    - {name: javascript, path: javascript.txt}
    - {name: geography, path: geography.txt}
  validation: {share: 0.2}
profile: {samplesPerTask: 4, tokensPerSample: 16, markers: {count: 4}}
train:
  batch: {sequences: 8}
  steps: 8
  optimizer: {lr: 3e-3}
  schedule: {kind: constant}
  validation: {every: 8, maxRows: 4}
arms:
  pruned: ${arm}
${more}`,
  );
  return folder;
}

const run = (folder: string, ...args: string[]): Promise<Ended> => spawnCli(args, {cwd: folder});

describe('an arm of dive', () => {
  it('is planned, converted, inspected and trained', async () => {
    const folder = await workplace();
    const plan = await run(folder, 'convert', 'config.yaml', '--dry-run');
    expect(plan.code, plan.stderr).toBe(0);
    expect(plan.stderr).toContain('taking pruned models through layers  2 of 2');
    expect(plan.stdout).toMatch(/^expert {2}task +own {2}elsewhere {2}nearest\n/);
    for (const task of ['scripture', 'javascript', 'geography']) {
      expect(plan.stdout).toMatch(new RegExp(`^ +[01] {2}${task} +[\\d.]+ +[\\d.]+ {2}\\w+ -?[01]\\.\\d\\d$`, 'm'));
    }
    expect(plan.stdout).toContain('every layer: 1 of 2 experts 32 wide, each with a bias');
    expect(plan.stdout).toMatch(/^layer {2}left out {2}in one {2}in several {2}in all$/m);
    expect(plan.stdout).toMatch(/^parameters {2}/m);
    expect(existsSync(join(folder, 'moe'))).toBe(false);

    const made = await run(folder, 'convert', 'config.yaml', '--out', 'moe');
    expect(made.stdout).toMatch(
      /^pruned {2}.* parameters, .* active, not equal to its parent by design: each expert keeps 50% of the neurons/,
    );
    const {stdout} = await run(folder, 'inspect', 'moe');
    expect(stdout).toContain('\norigin        pruned copies of model, fingerprint ');
    expect(stdout).toContain('\nmethod        dive, experts 2, topK 1\n');
    expect(stdout).toContain('\nneurons       each expert keeps 32 of 64; experts may overlap\n');
    expect(stdout).toContain(
      plan.stdout.slice(plan.stdout.indexOf('layer  left out'), plan.stdout.indexOf('\nneurons of')),
    );
    expect(stdout).toContain(plan.stdout.slice(0, plan.stdout.indexOf('\n\nown')));
    const json = JSON.parse((await run(folder, 'inspect', 'moe', '--json')).stdout) as Record<string, unknown>;
    expect(json).toMatchObject({provenance: {kind: 'prune', affinity: {clusters: [[0], {}]}}, neurons: null});
    expect(json.kept).toHaveLength(2);

    const trained = await run(folder, 'train', 'config.yaml', '--arm', 'pruned', '--out', 'run');
    expect(trained.code, trained.stderr).toBe(0);
    const records = await readRunLog(join(folder, 'run', 'log.jsonl'));
    const losses = records.flatMap((record) => (record.kind === 'eval' ? [record.loss!] : []));
    expect(losses.at(-1)).toBeLessThan(losses[0]! - 0.05);
    expect(await biasesOf(join(folder, 'run', 'step-000008', 'model'))).not.toEqual(
      await biasesOf(join(folder, 'moe')),
    );
    expect((await run(folder, 'inspect', 'run/step-000008')).stdout).toContain('each expert keeps 32 of 64');
  });

  it('that keeps everything is proved', async () => {
    const folder = await workplace('{method: dive, experts: 3, topK: 2, keep: 1}');
    const made = await run(folder, 'convert', 'config.yaml', '--out', 'moe');
    expect(made.stdout).toContain('with all experts equal to its parent: largest logit difference');
    expect((await run(folder, 'inspect', 'moe')).stdout).toMatch(/^proof +all experts active: largest logit/m);
  });

  it('stands in the table of conversions at an equal active width', async () => {
    const more = 'conversions: {sparsities: [0.25, 0.5], seeds: [1, 2], windowTokens: 16, maxTokens: 64}\n';
    const folder = await workplace('{method: dive, experts: 3, topK: 2}', more);
    const {code, stdout, stderr} = await run(folder, 'conversions', 'config.yaml');
    expect(code, stderr).toBe(0);
    expect(stdout.match(/^pruned /gm)).toHaveLength(2);
    const csv = await readFile(join(folder, 'checkpoints/tiny/conversions/conversions.csv'), 'utf8');
    const rows = csv.split('\n').map((line) => line.split(','));
    const rowsAt = (sparsity: string) => rows.filter(([arm, at]) => arm === 'pruned' && at === sparsity);
    for (const sparsity of ['0.25', '0.5']) expect(rowsAt(sparsity).map(([, , seed]) => seed)).toEqual(['1', '2']);
    // Two experts of a quarter of 64 neurons, or of three eighths: 3 · 32 weights a neuron, in each of two layers.
    const active = (sparsity: string): number => Number(rowsAt(sparsity)[0]!.at(-3));
    expect(active('0.25') - active('0.5')).toBe(2 * 2 * 8 * 3 * 32);
  });
});

async function biasesOf(path: string): Promise<number[][]> {
  const tensors = await openTensors(path);
  const names = tensors.names.filter((name) => name.endsWith('.down_proj.bias'));
  expect(names).toHaveLength(4);
  const values: number[][] = [];
  for (const name of names.sort()) values.push([...(await tensors.read(name))]);
  await tensors.close();
  return values;
}

describe('before anything is computed', () => {
  const text = `model: ${TINY_LLAMA}
data:
  sequenceLength: 32
  sources:
    [{name: a, path: package.json}, {name: b, path: package.json}]
arms:
`;
  const check = (arm: string, more = '') => checkArms(parseConfig(`${text}  d: ${arm}\n${more}`, 'x.yaml'), ['d']);

  it('refuses more experts than there are sources', async () => {
    const refused = check('{method: dive, experts: 3, topK: 1}');
    await expect(refused).rejects.toThrow(ConfigError);
    await expect(refused).rejects.toThrow('x.yaml:7:6: arms.d: method dive makes each expert of a cluster of tasks;');
    await expect(refused).rejects.toMatchObject({
      hint: 'Each data source is a task: lower experts to 2, or give more sources.',
    });
  });

  it('leaves tasks by a field of records to be counted when they are read', async () => {
    const byField = 'profile: {task: {field: domain}}\n';
    await expect(check('{method: dive, experts: 3, topK: 1}', byField)).resolves.toBeUndefined();
  });

  it('refuses samples of one token', async () => {
    await expect(check('{method: dive, experts: 2, topK: 1}', 'profile: {tokensPerSample: 1}\n')).rejects.toThrow(
      'x.yaml:7:6: arms.d: method dive measures how well a sample is foretold; one of 1 token is not.',
    );
  });

  it('refuses experts without a neuron', async () => {
    await expect(check('{method: dive, experts: 2, topK: 1, keep: 0.01}')).rejects.toThrow(
      'x.yaml:7:6: arms.d: keep 0.01 of 24 neurons leaves an expert none. Raise keep.',
    );
  });

  it('lets what can be made pass', async () => {
    await expect(check('{method: dive, experts: 2, topK: 2, keep: 0.25}')).resolves.toBeUndefined();
  });
});
