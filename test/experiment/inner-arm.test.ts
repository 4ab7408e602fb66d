// From a dense model to a mixture to one whose experts have experts inside, as a user types it.
import {existsSync} from 'node:fs';
import {writeFile} from 'node:fs/promises';
import {join, resolve} from 'node:path';
import {describe, expect, it, vi} from 'vitest';
import {parseConfig} from '../../src/config/load.js';
import {checkArms} from '../../src/experiment/check.js';
import {readRunLog} from '../../src/format/run-log.js';
import {openTensors} from '../../src/format/tensor-store.js';
import {ConfigError} from '../../src/util/errors.js';
import {type Ended, spawnCli, tempFolder} from '../cli/support.js';
import {experts, TEXT, tiny, writeModel} from '../train/support.js';

vi.setConfig({testTimeout: 180_000});

const MIXTURE = tiny([experts(4, 2)]);

/** A folder with a mixture and a config of some arms. */
async function workplace(): Promise<string> {
  const folder = await tempFolder();
  await writeModel(join(folder, 'mixture'), MIXTURE);
  await writeFile(
    join(folder, 'config.yaml'),
    `name: tiny
seed: 7
engine: {device: wasm}
model: mixture
data:
  sequenceLength: 32
  sources:
    - {name: scripture, path: ${resolve(TEXT)}}
  validation: {share: 0.2}
profile: {samplesPerTask: 4, tokensPerSample: 16, markers: {count: 4}}
train:
  batch: {sequences: 8}
  steps: 8
  optimizer: {lr: 3e-3}
  schedule: {kind: constant}
  validation: {every: 8, maxRows: 4}
arms:
  inner: {method: cmoe, experts: 5, shared: 3, topK: 2, weights: score}
  random: {method: random, experts: 4, topK: 2}
  scratch: {like: inner, init: scratch}
`,
  );
  return folder;
}

const run = (folder: string, ...args: string[]): Promise<Ended> => spawnCli(args, {cwd: folder});

describe('an arm of cmoe whose model is a mixture', () => {
  it('is planned, converted, inspected and trained', async () => {
    const folder = await workplace();
    const plan = await run(folder, 'convert', 'config.yaml', '--arm', 'inner', '--dry-run');
    expect(plan.code, plan.stderr).toBe(0);
    expect(plan.stderr).toContain('watching experts  1 of 1');
    expect(plan.stdout).toMatch(/^ +0 +2 of 4 +64 +24 shared \+ 2 of 5 x 8 +80$/m);
    expect(plan.stdout).toMatch(/^parameters .* active a token \(the mixture: /m);
    expect(plan.stdout).toMatch(/^compute .* less than the mixture$/m);

    const made = await run(folder, 'convert', 'config.yaml', '--arm', 'inner', '--out', 'moe');
    expect(made.code, made.stderr).toBe(0);
    expect(made.stdout).toMatch(
      /^inner {2}.* active, with all experts equal to its parent: largest logit difference \d/,
    );
    const {stdout} = await run(folder, 'inspect', 'moe');
    expect(stdout).toMatch(/^ffn +2 of 4 experts 24 wide, with 2 of 5 inside each 8 wide, and a shared one 16 wide$/m);
    expect(stdout).toMatch(/^origin +cut inside the experts of mixture, fingerprint /m);
    expect(stdout).toMatch(/^method +cmoe, experts 5, shared 3, topK 2, weights score$/m);
    expect(stdout).toMatch(/^proof +all experts active: largest logit/m);
    expect(stdout).toContain(plan.stdout.slice(0, plan.stdout.indexOf('\n\nparameters')));

    const trained = await run(folder, 'train', 'config.yaml', '--arm', 'inner', '--out', 'run');
    expect(trained.code, trained.stderr).toBe(0);
    const records = await readRunLog(join(folder, 'run', 'log.jsonl'));
    const losses = records.flatMap((record) => (record.kind === 'eval' ? [record.loss!] : []));
    expect(losses.at(-1)).toBeLessThan(losses[0]! - 0.05);
    const checkpoint = join(folder, 'run', 'step-000008', 'model');
    for (const part of ['gate.weight', 'gate_up.weight', 'experts.4.down_proj.weight']) {
      const name = `model.layers.0.mlp.experts.3.${part}`;
      expect(await valuesOf(checkpoint, name), name).not.toEqual(await valuesOf(join(folder, 'moe'), name));
    }
    expect((await run(folder, 'inspect', 'run/step-000008')).stdout).toContain('cut inside the experts of mixture');
    const again = await run(folder, 'train', 'config.yaml', '--arm', 'scratch', '--out', 'fresh');
    expect(again.code, again.stderr).toBe(0);
  });

  it('takes no profile, and other methods no mixture', async () => {
    const folder = await workplace();
    const profiled = await run(folder, 'profile', 'config.yaml', '--out', 'profile.safetensors');
    expect(profiled.stderr).toContain('mixture: this is a mixture of experts already; a dense model is needed.');
    const given = ['--profile', 'profile.safetensors', '--dry-run'];
    const refused = await run(folder, 'convert', 'config.yaml', '--arm', 'inner', ...given);
    expect(refused.stderr).toContain('mixture is a mixture: its experts are watched as they are cut');
    expect(refused.stderr).toContain('hint: Leave --profile out.');
    const other = await run(folder, 'convert', 'config.yaml', '--arm', 'random', '--out', 'moe');
    expect(other.stderr).toContain('mixture: this is a mixture of experts already; a dense model is needed.');
    expect(other.stderr).toContain('Only method cmoe cuts a mixture: each of its experts once more.');
    expect(other.code).toBe(5);
    expect(existsSync(join(folder, 'moe'))).toBe(false);
  });

  it('is refused before anything is computed if its counts do not cut the experts', async () => {
    const path = join(await tempFolder(), 'mixture');
    await writeModel(path, MIXTURE);
    const text = `model: ${path}
data:
  {sequenceLength: 32, sources: [{name: a, path: package.json}]}
arms:
  d: {method: cmoe, experts: 5, shared: 2, topK: 2}
`;
    const refused = checkArms(parseConfig(text, 'x.yaml'), ['d']);
    await expect(refused).rejects.toThrow(ConfigError);
    await expect(refused).rejects.toThrow(
      'x.yaml:5:30: arms.d: experts + shared (= 7) must divide the 64 neurons of the experts of layer 0; nearest that do: 4 and 8.',
    );
  });
});

async function valuesOf(path: string, name: string): Promise<number[]> {
  const tensors = await openTensors(path);
  const values = [...(await tensors.read(name))];
  await tensors.close();
  return values;
}
