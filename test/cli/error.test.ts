import {cp, mkdir, readdir, symlink, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, test} from 'vitest';
import {DENSE, writeModel} from '../train/support.js';
import {cli, cliOn, spawnCli, startCli, tempFolder, writeConfig} from './support.js';

const TEXT = 'test/fixtures/train/scripture.txt';
const TOKENIZER = 'test/fixtures/tokenizer/byte-level';

/** A folder with a tokenizer and a config for it, enough for `prepare`. */
async function workplace(): Promise<{folder: string; config: string}> {
  const folder = await tempFolder();
  await cp(TOKENIZER, join(folder, 'model'), {recursive: true});
  return {folder, config: await writeConfig(folder, TEXT)};
}

/** Waits for something another process does. */
async function waitUntil(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise((done) => setTimeout(done, 20));
}

describe('a wrong command line exits with 2', () => {
  test.each([
    [['prepar'], "error: unknown command 'prepar'\nhint: Did you mean prepare?\n"],
    [['inspect', 'x', '--jsn'], "error: unknown option '--jsn'\nhint: Did you mean --json?\n"],
    [['inspect'], "error: missing required argument 'path'\n"],
    [['inspect', 'a', 'b'], "error: too many arguments for 'inspect'. Expected 1 argument but got 2"],
    [['prepare', 'x.yaml'], "error: required option '-o, --out <folder>' not specified\n"],
    [['plot', 'a', '-o', 'b', '--smoothing', '1'], "error: option '--smoothing <share>' argument '1' is invalid."],
    [
      ['plot', 'a', '-o', 'b', '-x', 'hours'],
      "error: option '-x, --x <axis>' argument 'hours' is invalid. Allowed choices are",
    ],
    [['train', 'a', '--resume', '--overwrite'], "error: option '--resume' cannot be used with option '--overwrite'\n"],
    [['inspect', 'nowhere'], 'error: nowhere: there is no such file or folder.\n'],
    [['inspect', 'package.json'], 'error: package.json is nothing that downcycle reads or writes.\nhint: Give a '],
    [['plot', 'a', 'a', '-o', 'b'], 'error: a is given twice.\nhint: Give each run folder once.\n'],
    [
      ['compare', 'configs/quickstart.yaml', '--set', 'train.stpes=3'],
      'error: --set train.stpes=3: train.stpes: unknown key;',
    ],
    [['convert', 'configs/quickstart.yaml', '-o', 'x'], 'error: configs/quickstart.yaml has several arms: downcycle,'],
    [
      ['convert', 'configs/quickstart.yaml', '-a', 'downcycle', '--top-k', '40', '--dry-run'],
      'error: --top-k 40: arms.downcycle.topK: topK (= 40) must be at most experts (= 30). Lower topK or raise experts.\n',
    ],
    [
      ['convert', 'configs/quickstart.yaml', '-a', 'downcycle', '--router', 'ridge', '--dry-run'],
      'error: --router ridge: arms.downcycle.router: ridge needs weights one:',
    ],
    [
      ['convert', 'a', '-o', 'b', '--dry-run'],
      "error: option '--dry-run' cannot be used with option '-o, --out <folder>'\n",
    ],
    [
      ['convert', 'configs/quickstart.yaml', '-o', 'x', '-a', 'y'],
      'error: There is no arm y to take; there are downcycle,',
    ],
  ])('%j', async (args, message) => {
    const {code, stdout, stderr} = await cli(...args);
    expect(stderr.slice(0, message.length)).toBe(message);
    expect({code, stdout}).toEqual({code: 2, stdout: ''});
  });
});

/** An arm that could be measured. */
const CUT = 'arms.a={method: random, experts: 3, shared: 1, topK: 1}';

describe('other errors exit by who must act', () => {
  test('3 for a config, with every mistake at its line and column', async () => {
    const {folder} = await workplace();
    const config = await writeConfig(folder, TEXT, '  stpes: 3\narm: 5\n');
    const {code, stderr} = await spawnCli(['prepare', config, '--out', join(folder, 'out')]);
    expect(stderr).toBe(
      `error: ${config}:15:3: train.stpes: unknown key; did you mean steps?\n${config}:16:6: arm: expected a string, found 5.\n`,
    );
    expect(code).toBe(3);
  });

  test('3 for a config that is not there', async () => {
    expect(await cli('prepare', 'no.yaml', '--out', 'x')).toMatchObject({
      code: 3,
      stderr: 'error: no.yaml: there is no such file.\nhint: configs/ holds configs to start from.\n',
    });
  });

  test('4 for text that is empty, and nothing is left behind', async () => {
    const {folder} = await workplace();
    await writeFile(join(folder, 'empty.txt'), '');
    const config = await writeConfig(folder, join(folder, 'empty.txt'));
    const before = await readdir(folder);
    const {code, stderr} = await cli('-q', 'prepare', config, '--out', join(folder, 'out'));
    expect(stderr).toMatch(/^error: .*empty\.txt/);
    expect(code).toBe(4);
    expect(await readdir(folder)).toEqual(before);
  });

  test('5 for a model folder without weights', async () => {
    const folder = join(await tempFolder(), 'model');
    await mkdir(folder);
    await writeFile(join(folder, 'config.json'), '{"model_type": "llama"}');
    expect(await cli('inspect', folder)).toMatchObject({
      code: 5,
      stderr: `error: ${folder}: there is neither model.safetensors nor model.safetensors.index.json in this folder.\n`,
    });
  });

  test.each([
    ['model', 'model=nowhere', '--set model=nowhere: model: nowhere is not there.'],
    ['text', 'data.sources[0].path=no.txt', '--set data.sources[0].path=no.txt: data.sources[0].path: no.txt is not'],
  ])('3 for a %s that is not there, naming its key', async (_, set, message) => {
    const {folder, config} = await workplace();
    for (const command of [
      ['prepare', '--out', join(folder, 'out')],
      ['conversions', '--set', CUT],
    ]) {
      const {code, stderr} = await cli(...command, config, '--set', set);
      expect(stderr.slice(0, `error: ${message}`.length)).toBe(`error: ${message}`);
      expect(code).toBe(3);
    }
  });

  test('3 for counts that cannot cut the model, before anything is packed or profiled', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), DENSE);
    const config = await writeConfig(folder, TEXT, 'arms:\n  a: {method: expertweaver, experts: 6, topK: 2}\n');
    for (const command of [['compare'], ['convert', '--out', join(folder, 'x')], ['train', '--arm', 'a']]) {
      const [name = '', ...more] = command;
      const {code, stderr} = await spawnCli([name, config, ...more], {cwd: folder});
      expect(stderr).toBe(
        `error: ${config}:16:38: arms.a: experts + shared (= 6) must divide the FFN width 64; nearest that do: 4 and 8.\nhint: Or set pad to true (--pad): neurons of zeros widen every FFN to 66, which changes nothing that it computes.\n`,
      );
      expect(code).toBe(3);
    }
    expect((await readdir(folder)).sort()).toEqual(['config.yaml', 'model']);
  });

  test('2 for a run to be resumed that is not there, or has another config', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), DENSE);
    const config = await writeConfig(folder, TEXT);
    const run = (...args: string[]) =>
      spawnCli(['-q', 'train', config, '--out', join(folder, 'run'), ...args], {cwd: folder});
    expect(await run('--resume')).toMatchObject({
      code: 2,
      stderr: `error: ${join(folder, 'run')} is not there: nothing can be resumed.\nhint: Correct --out, or leave --resume out to start a run.\n`,
    });
    expect((await run('--set', 'train.steps=1')).code).toBe(0);
    const {code, stderr} = await run('--resume', '--set', 'seed=8');
    expect(stderr).toContain('run holds a run of another config: seed (7, now 8), train.steps (1, now 4).\n');
    expect(code).toBe(2);
  });

  test.each(['/proc/x', '/proc/x/y'])('6 for a place where no folder can be made: %s', async (out) => {
    const {config} = await workplace();
    const {code, stderr} = await cli('prepare', config, '--out', out);
    expect(stderr).toBe('error: /proc/x: no folder can be made here.\nhint: Choose another output path.\n');
    expect(code).toBe(6);
  });

  test('6 for an output that exists, which stays as it was', async () => {
    const {folder, config} = await workplace();
    const {code, stderr} = await cli('prepare', config, '--out', join(folder, 'model'));
    expect(stderr).toBe(
      `error: ${join(folder, 'model')} already exists; downcycle never overwrites.\nhint: Remove it or choose another output path.\n`,
    );
    expect(code).toBe(6);
    expect((await readdir(join(folder, 'model'))).sort()).toEqual((await readdir(TOKENIZER)).sort());
  });

  test.each(['--resume', '--overwrite'])('6 for a run folder that holds the config given, with %s', async (mode) => {
    const {folder, config} = await workplace();
    await writeFile(join(folder, 'log.jsonl'), 'mine');
    const names = await readdir(folder);
    const {code, stderr} = await cli('train', config, '--out', folder, mode);
    expect(stderr).toBe(
      `error: ${folder} holds the config that was given, and is no run folder.\nhint: Choose another --out.\n`,
    );
    expect(code).toBe(6);
    expect(await readdir(folder)).toEqual(names);
  });

  test('6 for a run folder that exists, before anything is trained', async () => {
    const {folder, config} = await workplace();
    const {code, stderr} = await cli('train', config, '--out', join(folder, 'model'));
    expect(stderr).toContain('already exists; downcycle never overwrites.\nhint: Say --resume to go on with it');
    expect(code).toBe(6);
  });
});

describe('an error', () => {
  test('shows its stack when DOWNCYCLE_DEBUG is 1', async () => {
    const {stderr} = await cliOn({env: {DOWNCYCLE_DEBUG: '1'}}, 'inspect', 'nowhere');
    expect(stderr).toMatch(/^error: nowhere: .*\n {0}UsageError: .*\n {4}at /);
  });

  test('nobody foresaw exits with 1 and shows no stack', async () => {
    const folder = await tempFolder();
    await symlink('log.jsonl', join(folder, 'log.jsonl')); // a link to itself
    const {code, stderr} = await cli('inspect', folder);
    expect(stderr).toMatch(
      /^error: ELOOP: .*log\.jsonl'\nhint: This was not foreseen\. DOWNCYCLE_DEBUG=1 shows where it happened\.\n$/,
    );
    expect(code).toBe(1);
  });
});

test.skipIf(process.platform === 'win32')(
  'Ctrl-C outside training says so and leaves nothing half-written',
  async () => {
    const {folder, config} = await workplace();
    const text = join(folder, 'long.txt');
    await writeFile(text, `${'In the beginning was the word. '.repeat(20)}\n\n\n`.repeat(20_000));
    const long = ['--set', `data.sources[0].path=${text}`];
    const child = startCli(['prepare', config, '--out', join(folder, 'out'), ...long]);
    await waitUntil(async () => (await readdir(folder)).some((name) => name.startsWith('.out.part-')));
    child.kill('SIGINT');
    const {code, stderr} = await child.ended;
    expect(stderr).toContain('\nStopped. Nothing half-written is left.\n');
    expect(code).toBe(130);
    expect((await readdir(folder)).sort()).toEqual(['config.yaml', 'long.txt', 'model']);
  },
);
