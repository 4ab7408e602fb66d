import {readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {beforeAll, expect, test} from 'vitest';
import {startEngine} from '../../src/engine/start.js';
import type {Evaluation} from '../../src/eval/evaluate.js';
import {DENSE, MOE, writeModel} from '../train/support.js';
import {cli, tempFolder} from './support.js';

const TEXT = 'test/fixtures/train/scripture.txt';

/** The engine that was started first is taken: there is nothing to compile. */
beforeAll(() => startEngine({device: 'wasm'}));

/** A model and a task, the last record of which is `last`. */
async function workplace(last: object = {query: 'the', choices: ['b', 'e'], gold: 0}) {
  const folder = await tempFolder();
  const task = join(folder, 'task.jsonl');
  const first = {query: 'In the', choices: ['be', 'the word'], gold: 1};
  await writeFile(task, [first, last].map((record) => `${JSON.stringify(record)}\n`).join(''));
  return {model: await writeModel(join(folder, 'model'), DENSE), task};
}

test('eval prints tables, or everything as JSON', async () => {
  const {model, task} = await workplace();
  const {code, stdout} = await cli(
    '-q',
    'eval',
    model,
    '--tasks',
    task,
    '--few-shot',
    '1',
    '--text',
    TEXT,
    '--tokens',
    '90',
    '--against',
    model,
  );
  expect(code).toBe(0);
  expect(stdout).toMatch(/^task +model +items +acc +acc_norm\n-.*\ntask, 1-shot +\S+ +1 +[01]\.0000 +[01]\.0000\n/);
  expect(stdout).toMatch(/\nscripture +\S+ +89 +\d+ +5\.\d{3} /);
  expect(stdout).toMatch(/\nscripture +loss +0\.0000 +0\.0000 to 0\.0000 +50%\n/);
  const {stdout: json} = await cli('-q', 'eval', model, '--tasks', task, '--json');
  expect(JSON.parse(json) as Evaluation).toMatchObject({
    model,
    tasks: [{name: 'task', file: task, items: 2}],
    texts: [],
    against: null,
  });
});

test('eval says what routers do, and writes a page and everything as JSON', async () => {
  const folder = await tempFolder();
  const model = await writeModel(join(folder, 'model'), MOE);
  const out = join(folder, 'report');
  const flags = ['--text', TEXT, '--tokens', '40', '--routing', '--out', out];
  const {code, stdout} = await cli('-q', 'eval', model, ...flags);
  expect(code).toBe(0);
  expect(stdout).toMatch(/\n +1 +4 +2 +[01]\.\d{3} +\d\.\d\d /);
  expect(stdout.endsWith(`\n${join(out, 'index.html')}\n`)).toBe(true);
  const written = JSON.parse(await readFile(join(out, 'evaluation.json'), 'utf8')) as Evaluation;
  expect(written.routing!.layers.map(({layer}) => layer)).toEqual([1]);
  const again = await cli('-q', 'eval', model, ...flags);
  expect(again.stderr).toMatch(/^error: .*report already exists; downcycle never overwrites\./);
  expect(again.code).toBe(6);
});

test.each([
  [2, [], 'error: What shall be measured?\nhint: Name files of multiple choice with --tasks, or texts with --text.\n'],
  [2, ['--text', TEXT, '--limit', '2'], 'error: --limit does nothing without --tasks.\n'],
  [2, ['--text', TEXT, '--window', '0'], "error: option '--window <tokens>' argument '0' is invalid."],
])('eval exits with %i for %j', async (code, flags, message) => {
  const {stderr, ...ended} = await cli('eval', 'nowhere', ...flags);
  expect(stderr.slice(0, message.length)).toBe(message);
  expect(ended).toEqual({code, stdout: ''});
});

test('eval exits with 4 for a record that is no item, naming its line', async () => {
  const {model, task} = await workplace({query: 'the', choices: ['b', 'e'], gold: 2});
  const {code, stderr} = await cli('-q', 'eval', model, '--tasks', task);
  expect(stderr).toMatch(
    /^error: .*task\.jsonl:2: field `gold` is no place in 2 choices, 0 to 1 \(2\); fields: query, choices, gold\.\nhint: A record/,
  );
  expect(code).toBe(4);
});
