// convert and profile as a person meets them: flags, padding, tasks by field, bad input.
import {execFileSync, spawnSync} from 'node:child_process';
import {existsSync, readFileSync} from 'node:fs';
import {readdir, readFile, rm, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, test, vi} from 'vitest';
import {readProfile} from '../../src/downcycle/profile-file.js';
import {DOWNCYCLE} from '../support/program.js';
import {DENSE, TEXT, writeModel} from '../train/support.js';
import {cli, spawnCli, tempFolder, writeConfig} from './support.js';

vi.setConfig({testTimeout: 240_000});

const WORDS = {law: 'The court finds that the tenant owes rent. ', code: 'const x = f(y) + 1; return x; '};

/** A folder with a tiny dense model, records of two domains and a config for plain text. */
async function workplace(more = ''): Promise<{folder: string; config: string; records: string}> {
  const folder = await tempFolder();
  await writeModel(join(folder, 'model'), DENSE);
  const records = join(folder, 'records.jsonl');
  const lines = Array.from({length: 60}, (_, i) => {
    const domain = i % 2 ? 'law' : 'code';
    return JSON.stringify({text: `${i}. ${WORDS[domain].repeat(3)}`, domain});
  });
  await writeFile(records, lines.join('\n'));
  return {folder, config: await writeConfig(folder, TEXT, more), records};
}

describe('downcycle convert', () => {
  test('makes an arm out of flags alone, pads, proves, and inspect tells of it', async () => {
    const {folder, config} = await workplace();
    const flags = ['--method', 'contiguous', '--experts', '5', '--shared', '1', '--top-k', '2', '--pad'];
    const plan = await spawnCli(['convert', config, ...flags, '--dry-run'], {cwd: folder});
    expect(plan.stdout).toMatch(/^padding +2 a layer: neurons of zeros, appended$/m);
    const unread = await spawnCli(['convert', config, ...flags, '--profile', 'none.st', '--dry-run'], {cwd: folder});
    expect(unread).toMatchObject({code: 2, stderr: expect.stringContaining('contiguous reads no profile') as string});
    const made = await spawnCli(['convert', config, ...flags, '--out', 'moe'], {cwd: folder});
    expect(made.stdout).toMatch(/^contiguous .*equal to its parent: largest logit difference \d/);
    expect(made.code).toBe(0);
    const shown = await cli('inspect', join(folder, 'moe'));
    expect(shown.stdout).toMatch(/^padding +2 a layer: neurons of zeros, appended with the last ids$/m);
    const again = await spawnCli(['convert', config, ...flags, '--set', 'model=moe', '--out', 'twice'], {cwd: folder});
    expect(again.stderr).toMatch(
      /moe: this is a mixture of experts already, cut out of .*model by contiguous; a dense model is needed\.\nhint: Give the dense model that it was made from: .*model\./,
    );
    expect(again.code).toBe(5);
    expect(existsSync(join(folder, 'twice'))).toBe(false);
  });

  test('refuses to compare one task, and takes samples instead', async () => {
    const {folder, config} = await workplace('arms:\n  a: {method: expertweaver, experts: 7, shared: 1, topK: 2}\n');
    const convert = (...more: string[]) =>
      spawnCli(['convert', config, '--shared-by', 'low-cv', '--dry-run', ...more], {cwd: folder});
    const refused = await convert();
    expect(refused.stderr).toMatch(
      /config\.yaml:\d+:\d+: allocation adaptive and sharedBy low-cv ask how neurons differ/,
    );
    expect(refused.stderr).toContain('or set profile.cv to samples; then profile again.');
    expect(refused.code).toBe(3);
    expect((await convert('--set', 'profile.cv=samples')).code).toBe(0);
  });
});

test('downcycle convert names tensors that the config does not ask for, and has no model without its proof', async () => {
  const {folder, config} = await workplace();
  await rm(join(folder, 'model'), {recursive: true});
  await writeModel(join(folder, 'model'), {...DENSE, ffn: [...DENSE.ffn, ...DENSE.ffn.slice(0, 1)]});
  const path = join(folder, 'model', 'config.json');
  const json = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
  await writeFile(path, JSON.stringify({...json, num_hidden_layers: DENSE.ffn.length}));
  const arm = ['--method', 'random', '--experts', '3', '--shared', '1', '--top-k', '1'];
  const record = join(folder, 'moe', 'downcycle.json');
  const proof = () => (JSON.parse(readFileSync(record, 'utf8')) as {equivalence: unknown}).equivalence;
  const seen: unknown[] = [];
  const look = setInterval(() => {
    if (existsSync(record)) seen.push(proof());
  }, 5);
  const made = await spawnCli(['convert', config, ...arm, '--out', 'moe'], {cwd: folder}).finally(() =>
    clearInterval(look),
  );
  expect(made.code, made.stderr).toBe(0);
  expect(proof()).toMatchObject({passed: true});
  expect(seen.filter((equivalence) => equivalence === null)).toEqual([]);
  const warning = new RegExp(
    `warning: .*config.json does not ask for model.layers.${DENSE.ffn.length}.input_layernorm`,
  );
  expect(made.stderr).toMatch(warning);
  const planned = await spawnCli(['convert', config, ...arm, '--dry-run'], {cwd: folder});
  expect(planned.stdout).toMatch(warning);
  const profiled = await spawnCli(['profile', config, '--out', 'p.safetensors'], {cwd: folder});
  expect(profiled.stderr).toMatch(warning);
});

test('downcycle convert cuts shards where flags alone say how', async () => {
  const {folder, config} = await workplace();
  const flags = ['--method', 'granular-upcycle', '--experts', '8', '--top-k', '4', '--shards', '4'];
  const made = await spawnCli(['convert', config, ...flags, '--out', 'moe'], {cwd: folder});
  expect(made.stdout).toMatch(/^granular-upcycle .*equal to its parent: largest logit difference \d/);
});

describe('downcycle profile', () => {
  test('refuses text of a tokenizer that the model was not trained with', async () => {
    const {folder, config} = await workplace();
    await writeModel(join(folder, 'small'), {...DENSE, vocab: 20});
    const args = ['profile', config, '--set', 'model=small', '--out', 'c.st'];
    const {code, stderr} = await spawnCli(args, {cwd: folder});
    expect(stderr).toMatch(
      /^error: small: token \d+ of the text is outside the vocabulary of 20\.\nhint: Put the tokenizer/m,
    );
    expect(code).toBe(4);
    expect((await readdir(folder)).filter((name) => name.startsWith('c.st'))).toEqual([]);
  });

  test('takes tasks from a field of records, the same each time, and never what is held out', async () => {
    const {folder, config, records} = await workplace();
    const by = (field: string, ...more: string[]) => [
      '--set',
      `data.sources=[{name: r, path: ${records}}]`,
      '--set',
      `profile.task={field: ${field}}`,
      ...more,
    ];
    const profiled = await spawnCli(['profile', config, '--out', 'a.st', ...by('domain')], {cwd: folder});
    expect(profiled.stdout).toContain('2 tasks by field domain (code, law), each 4 samples of 16 tokens');
    expect(profiled.code).toBe(0);
    const lines = (await readFile(records, 'utf8')).split('\n');
    await writeFile(records, lines.toReversed().join('\n'));
    expect((await spawnCli(['profile', config, '--out', 'b.st', ...by('domain')], {cwd: folder})).code).toBe(0);
    const shown = await cli('inspect', join(folder, 'a.st'));
    expect(shown.stdout).toMatch(/^profile +.*a\.st$/m);
    await writeFile(join(folder, 'cut.st'), (await readFile(join(folder, 'a.st'))).subarray(0, 1000));
    const cut = await cli('inspect', join(folder, 'cut.st'));
    expect(cut.stderr).toMatch(/cut\.st: the header claims \d+ bytes, the file has 992 more; it is truncated\./);
    const [a, b] = [await readProfile(join(folder, 'a.st')), await readProfile(join(folder, 'b.st'))];
    expect(b.metadata).toEqual(a.metadata);
    expect(a.metadata).toMatchObject({tasks: ['code', 'law'], options: {task: {field: 'domain'}}});
    expect(existsSync(join(folder, 'checkpoints'))).toBe(false); // no text was packed

    const missing = await spawnCli(['profile', config, '--out', 'c.st', ...by('topic')], {cwd: folder});
    expect(missing.stderr).toContain(
      `${records}:1: no field \`topic\`; fields: text, domain.\nhint: Set profile.task.field`,
    );
    expect(missing.code).toBe(4);
    const few = await spawnCli(
      ['profile', config, '--out', 'c.st', ...by('domain', '--set', 'profile.samplesPerTask=500')],
      {cwd: folder},
    );
    expect(few.stderr).toMatch(/Tasks with fewer than the 500 samples of 16 tokens .*: code \(\d+\), law \(\d+\)\./);
    const text = ['profile', config, '--out', 'c.st', '--set', 'profile.task={field: domain}'];
    expect((await spawnCli(text, {cwd: folder})).stderr).toContain('the sources are scripture (');
    expect((await readdir(folder)).filter((name) => name.startsWith('c.st'))).toEqual([]);
  });
});

describe.skipIf(!hasFileLimit())('where no file may grow (skipped where a shell cannot limit it)', () => {
  test('convert says so and leaves nothing', async () => {
    const {folder, config} = await workplace('arms:\n  a: {method: contiguous, experts: 7, shared: 1, topK: 2}\n');
    expect((await spawnCli(['profile', config, '--out', 'p.st'], {cwd: folder})).code, 'packs the text').toBe(0);
    const before = await readdir(folder);
    const limited = (...args: string[]) => {
      const script = 'ulimit -f 8; exec "$@"';
      return spawnSync('bash', ['-c', script, 'bash', ...DOWNCYCLE, ...args], {cwd: folder, encoding: 'utf8'});
    };
    const converted = limited('convert', config, '--out', 'moe');
    expect(converted.stderr).toContain(
      'error: moe: a file grew larger than this disk or the limit of the process allows.',
    );
    expect(converted.status).toBe(6);
    expect(await readdir(folder)).toEqual(before);
  });
});

function hasFileLimit(): boolean {
  if (process.platform !== 'linux') return false;
  try {
    execFileSync('bash', ['-c', 'ulimit -f 8']);
    return true;
  } catch {
    return false;
  }
}
