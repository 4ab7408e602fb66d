import {existsSync, readFileSync, renameSync} from 'node:fs';
import {join} from 'node:path';
import {describe, expect, test} from 'vitest';
import {parse} from 'yaml';
import {writeRun} from '../report/synthetic-run.js';
import {DENSE, TEXT, writeModel} from '../train/support.js';
import {cli, cliOn, spawnCli, tempFolder, writeConfig} from './support.js';

const ARMS = `arms:
  a: {method: expertweaver, experts: 7, shared: 1, topK: 2}
  b: {like: a}
`;

/** A folder with a tiny dense model and a config for it. */
async function workplace(): Promise<{folder: string; config: string}> {
  const folder = await tempFolder();
  await writeModel(join(folder, 'model'), DENSE);
  return {folder, config: await writeConfig(folder, TEXT, ARMS)};
}

describe('downcycle prepare', () => {
  test('writes shards that inspect shows', async () => {
    const {folder, config} = await workplace();
    const out = join(folder, 'packed');
    const {code, stdout} = await cli('prepare', config, '--out', out);
    expect(code).toBe(0);
    expect(stdout).toMatch(/scripture +text +\d+ .*\n\n.* tokens of text, packed into \d+ rows.*\n.*packed\n$/);
    expect((await cli('inspect', out)).stdout).toMatch(/scripture\.train\.arrow +\d+ +32 +\d+ +unknown/);
    const shard = await cli('inspect', join(out, 'scripture.valid.arrow'));
    expect(shard.stdout).toMatch(/rows +\d+ of 32 tokens and one more/);
  });

  test('says nothing but the result if it is to be quiet', async () => {
    const {folder, config} = await workplace();
    const {stdout, stderr} = await cli('prepare', config, '--out', join(folder, 'packed'), '--quiet');
    expect(stderr).toBe('');
    expect(stdout).toContain('packed');
  });

  test('says on standard error how far it is', async () => {
    const {folder, config} = await workplace();
    const {stderr} = await cli('prepare', config, '--out', join(folder, 'packed'));
    expect(stderr).toMatch(/^scripture {2}1 documents/);
  });
});

describe('downcycle inspect', () => {
  test('shows architecture, parameters, tensors and tokenizer of a model', async () => {
    const {folder} = await workplace();
    const {stdout} = await cli('inspect', join(folder, 'model'), '--tensors');
    expect(stdout).toContain('llama, 2 layers, width 32, vocabulary 274, tied embedding');
    expect(stdout).toContain('dense, 64 wide');
    expect(stdout).toContain('tokenizer  274 ids');
    expect(stdout).toContain('model.layers.1.mlp.up_proj.weight');
  });

  test('prints all it knows as JSON', async () => {
    const {folder} = await workplace();
    const {stdout} = await cli('inspect', join(folder, 'model'), '--json');
    expect(JSON.parse(stdout)).toMatchObject({kind: 'model', dtypes: {F32: 20}, provenance: null});
  });

  test('shows how far a run is', async () => {
    const folder = await tempFolder();
    const run = await writeRun(folder, 'run', {arm: 'a', end: null});
    const {stdout} = await cli('inspect', run);
    expect(stdout).toContain('a of quickstart, seed 7');
    expect(stdout).toContain('60, 123k tokens, not ended');
    expect((await cli('inspect', join(run, 'log.jsonl'))).stdout).toBe(stdout);
  });

  test('lists the runs of an experiment', async () => {
    const folder = await tempFolder();
    await writeRun(folder, 'one', {arm: 'a'});
    await writeRun(folder, 'two', {arm: 'b', end: null});
    const {stdout} = await cli('inspect', folder);
    expect(stdout).toMatch(/^one .* completed$/m);
    expect(stdout).toMatch(/^two .*123k .* not ended$/m);
  });
});

describe('downcycle plot', () => {
  test('writes a page and prints the table', async () => {
    const folder = await tempFolder();
    const runs = [await writeRun(folder, 'one', {arm: 'one'}), await writeRun(folder, 'two', {arm: 'two', last: 3})];
    const {code, stdout} = await cli('plot', ...runs, '--out', join(folder, 'report'), '-x', 'steps');
    expect(code).toBe(0);
    expect(stdout).toContain(join(folder, 'report', 'index.html'));
    expect(stdout).toMatch(/^two .*3\.0/m);
    expect(readFileSync(join(folder, 'report', 'curves.svg'), 'utf8')).toMatch(/^<svg/);
  });
});

describe('downcycle doctor', () => {
  test('names the engine it started and exits with 0', async () => {
    const {code, stdout} = await spawnCli(['doctor', '--device', 'wasm']);
    expect(stdout).toMatch(/^note {3}engine {3}WebAssembly 4\.22\.0/);
    expect(code).toBe(0);
  });

  test('says what to do and exits with 6 if the engine asked for cannot be had', async () => {
    const folder = await tempFolder();
    const {code, stdout, stderr} = await spawnCli(['doctor', '--device', 'cpu', '--library', folder]);
    expect(stdout).toContain(`engine.library names ${folder}, which does not hold both`);
    expect(stdout).toContain('to do: Name the folder that does');
    expect(stderr).toBe('error: No engine runs with these settings.\n');
    expect(code).toBe(6);
  });
});

describe('colour', () => {
  test.each([
    ['is used on a terminal', {isTTY: true}, [], true],
    ['is not used where there is no terminal', {}, [], false],
    ['is not used after --no-color', {isTTY: true}, ['--no-color'], false],
    ['is not used if NO_COLOR is set', {isTTY: true, env: {NO_COLOR: '1'}}, [], false],
  ])('%s', async (_, io, flags, isUsed) => {
    const folder = await tempFolder();
    const run = await writeRun(folder, 'one', {arm: 'one'});
    const {stdout} = await cliOn(io, ...flags, 'plot', run, '--out', join(folder, 'report'));
    expect(stdout.includes('\u001b[1m')).toBe(isUsed);
  });
});

describe('one config from a dense model to a trained mixture', () => {
  test('profile, convert, train, and train on from where it stopped', async () => {
    const {folder, config} = await workplace();
    const run = (...args: string[]) => spawnCli(args, {cwd: folder});
    const profile = join(folder, 'profile.safetensors');

    const profiled = await run('profile', config, '--out', profile);
    expect(profiled.stdout).toContain('1 task (scripture), each 4 samples of 16 tokens');
    expect(profiled.code).toBe(0);
    const shown = await cli('inspect', profile);
    expect(shown.stdout).toMatch(/^model +2 layers of 64 neurons/m);
    expect(shown.stdout).toContain('1 task (scripture), each 4 samples of 16 tokens');
    expect((await cli('inspect', profile, '--json')).stdout.length).toBeLessThan(2000);

    const plan = await run('convert', config, '--arm', 'a', '--profile', profile, '--dry-run');
    expect(plan.stdout).toMatch(/^ +0 +8 +7 +8 +2 +24 +- +0\.13$/m); // r needs two tasks
    expect(plan.stdout).toMatch(/^compute .* less than dense$/m);
    expect(await run('convert', config, '--arm', 'b', '--dry-run')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining(
        'arm b copies FFNs or draws them anew: it has no plan that could be shown.',
      ) as string,
    });
    expect((await run('convert', config, '--arm', 'a')).stderr).toBe(
      'error: Where shall the model go?\nhint: Say --out <folder>, or --dry-run to see the plan only.\n',
    );

    const moe = join(folder, 'moe');
    const converted = await run('convert', config, '--arm', 'a', '--profile', profile, '--out', moe);
    expect(converted.stdout).toMatch(/equal to its parent: largest logit difference \d/);
    expect(existsSync(join(moe, 'downcycle.json'))).toBe(true);
    expect((await run('inspect', moe)).stdout).toContain('2 of 7 experts 8 wide, and a shared one 8 wide');

    const scaled = join(folder, 'scaled');
    const match = ['--arm', 'a', '--set', 'arms.a.outputScale=match', '--profile', profile];
    expect((await run('convert', config, ...match, '--out', scaled)).code).toBe(0);
    const record = JSON.parse(readFileSync(join(scaled, 'downcycle.json'), 'utf8')) as Record<string, unknown>;
    expect(record).toMatchObject({calibration: {tasks: ['scripture']}, equivalence: {passed: true}});
    for (const {routedScale} of record.layers as {routedScale: number}[]) expect(routedScale).toBeGreaterThan(1);
    const other = await run(
      'convert',
      config,
      ...match,
      '--set',
      'profile.samplesPerTask=2',
      '--out',
      join(folder, 'x'),
    );
    expect(other.stderr).toMatch(
      /config\.yaml:\d+:\d+: .*outputScale match, regroup, router ridge, router centroid, repair refit and method dive measure on the calibration text/,
    );
    expect(other.code).toBe(3);

    const scratch = await run('train', config, '--arm', 'b', '--set', 'train.steps=2');
    expect(scratch.stdout).toBe('checkpoints/tiny/b\n');
    expect((await run('inspect', 'checkpoints/tiny/b')).stdout).toContain('completed');
    const checkpoint = await cli('inspect', join(folder, 'checkpoints/tiny/b/step-000002'));
    expect(checkpoint.stdout).toContain('2 of 7 experts 8 wide');
    const written = parse(readFileSync(join(folder, 'checkpoints/tiny/b/config.yaml'), 'utf8')) as {arm: string};
    expect(written.arm).toBe('b');

    const set = ['--set', `model=${moe}`, '--out', join(folder, 'again')];
    const trained = await run('train', config, ...set);
    expect(trained.stderr).toMatch(/held-out loss \d/);
    expect((await run('train', config, ...set, '--resume')).code).toBe(0);
    expect((await run('train', config, ...set)).code).toBe(6);
    renameSync(join(folder, 'again/step-000004/model'), join(folder, 'moved'));
    const further = await cli('inspect', join(folder, 'moved'));
    expect(further.stdout).toMatch(/^trained +since it was made; what follows tells how it started$/m);
    expect(further.stdout).toMatch(/^neurons +8 shared, 56 in 7 experts of 8; the same in all 2 layers$/m);
  }, 240_000);

  test('weave profiles what it needs, is fitted, and says why it is not equal to its parent', async () => {
    const {folder, config} = await workplace();
    const method = '{method: weave, experts: 6, shared: 2, topK: 2}';
    const how = ['--arm', 'a', '--set', `arms.a=${method}`, '--set', 'profile.markers.count=4'];
    const made = await spawnCli(['convert', config, ...how, '--out', 'woven'], {cwd: folder});
    expect(made.stdout).toMatch(/not equal to its parent by design: down projections were fitted/);
    expect(made.stderr).toContain('taking gradients');
    expect(made.code).toBe(0);
    const record = JSON.parse(readFileSync(join(folder, 'woven', 'downcycle.json'), 'utf8')) as Record<string, unknown>;
    for (const {error} of record.layers as {error: {before: number; after: number}}[]) {
      expect(error.after).toBeLessThan(error.before);
    }
  });

  test('moefication needs no profile, and llama-moe profiles what it needs; both equal their parent', async () => {
    const {folder, config} = await workplace();
    const convert = (method: string, out: string) =>
      spawnCli(['convert', config, '--arm', 'a', '--set', `arms.a=${method}`, '--out', out], {cwd: folder});
    const byWeights = await convert('{method: moefication, experts: 8, topK: 2}', 'by-weights');
    expect(byWeights.stderr).not.toContain('watching layers');
    expect(byWeights.code).toBe(0);
    const important = await convert(
      '{method: llama-moe, split: importance, experts: 6, shared: 2, topK: 2}',
      'important',
    );
    expect(important.stderr).toContain('taking gradients');
    expect(important.code).toBe(0);
    for (const {stdout} of [byWeights, important]) expect(stdout).toContain('with all experts equal to its parent');
  });

  test('compare makes, trains and draws all arms', async () => {
    const {folder, config} = await workplace();
    const compared = await spawnCli(['compare', config], {cwd: folder});
    expect(compared.stderr).toContain('b  ');
    expect(compared.stdout).toMatch(/^a +1 /m);
    expect(compared.stdout).toContain('checkpoints/tiny/report/index.html');
    expect(compared.code).toBe(0);
  }, 240_000);
});
