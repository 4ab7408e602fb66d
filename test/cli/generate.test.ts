import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {beforeAll, describe, expect, test, vi} from 'vitest';
import {startEngine} from '../../src/engine/start.js';
import type {Generated} from '../../src/eval/generate.js';
import {DOWNCYCLE} from '../support/program.js';
import {DENSE, writeModel} from '../train/support.js';
import {cli, tempFolder} from './support.js';

vi.setConfig({testTimeout: 120_000}); // a new process, on a machine that may be busy

const SHIPPED = 'checkpoints/dense-4m';

/** The engine that was started first is taken: there is nothing to compile. */
beforeAll(() => startEngine({device: 'wasm'}));

describe('generate', () => {
  test('prints what the shipped model adds, and on standard error how fast', async () => {
    const {code, stdout, stderr} = await cli('generate', SHIPPED, '--prompt', 'In the', '--max-tokens', '3');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^ \S.*\n$/);
    expect(stderr).toMatch(
      /\nprompt: \d tokens in \d+\.\d\d s; text: 3 tokens at \d+\.\d tokens\/s; no more were asked for\n$/,
    );
  });

  test('prints the same as JSON, of a prompt in a file', async () => {
    const folder = await tempFolder();
    const [model, file] = [await writeModel(join(folder, 'model'), DENSE), join(folder, 'prompt.txt')];
    await writeFile(file, 'In the');
    const {code, stdout} = await cli('-q', 'generate', model, '--prompt-file', file, '--max-tokens', '5', '--json');
    expect(code).toBe(0);
    const found = JSON.parse(stdout) as Generated & {tokensPerSecond: number};
    expect(found).toMatchObject({model, prompt: 'In the', end: 'length'});
    expect(found.tokens).toHaveLength(5);
    expect(found.tokensPerSecond).toBeGreaterThan(0);
    const {stdout: text} = await cli('-q', 'generate', model, '--prompt', 'In the', '--max-tokens', '5');
    expect(text).toBe(`${found.text}\n`);
  });

  test('draws with a temperature, the same from the same seed', async () => {
    const model = await writeModel(join(await tempFolder(), 'model'), DENSE);
    const draw = async (seed: string) => {
      const flags = ['--temperature', '0.9', '--top-k', '50', '--top-p', '0.95', '--seed', seed];
      return (await cli('-q', 'generate', model, '--prompt', 'In the', '--max-tokens', '9', ...flags)).stdout;
    };
    const [first, again, other] = [await draw('1'), await draw('1'), await draw('2')];
    expect(again).toBe(first);
    expect(other).not.toBe(first);
  });

  test('warns on standard error of a tokenizer with more ids than the model', async () => {
    const model = await writeModel(join(await tempFolder(), 'model'), {...DENSE, vocab: 200});
    const {code, stderr} = await cli('generate', model, '--prompt', 'In the', '--max-tokens', '2');
    expect(code).toBe(0);
    expect(stderr).toContain(`warning: ${model}: the embedding has 200 rows, the tokenizer knows 274 ids; `);
  });

  test('ends with what there is at Ctrl-C', async () => {
    const model = await writeModel(join(await tempFolder(), 'model'), {...DENSE, contextLength: 100_000});
    const [node = '', ...program] = DOWNCYCLE;
    const flags = ['--prompt', 'In the', '--max-tokens', '90000'];
    const child = spawn(node, [...program, 'generate', model, ...flags], {stdio: ['ignore', 'pipe', 'pipe']});
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    await once(child.stdout, 'data');
    child.kill('SIGINT');
    await once(child, 'close');
    expect(child.exitCode).toBe(130);
    expect(stdout).toMatch(/.\n$/s);
    expect(stderr).toMatch(/; interrupted\n$/);
  });
});

describe('generate exits', () => {
  const SAY = ['--prompt', 'In'];
  test.each([
    [2, [], 'error: What shall the model go on from?\nhint: Give a text with --prompt or --prompt-file, or'],
    [2, [...SAY, '--chat', 'Hi'], "error: option '--prompt <text>' cannot be used with option '--chat <text>'"],
    [2, [...SAY, '--top-p', '0.9'], 'error: --top-p does nothing at temperature 0, where the likeliest'],
    [2, [...SAY, '--seed', '1'], 'error: --seed does nothing at temperature 0, where the likeliest token is taken.\n'],
    [2, [...SAY, '--temperature', '-1'], 'error: --temperature is -1; 0 or more is needed.\n'],
    [2, [...SAY, '--temperature', 'hot'], "error: option '--temperature <number>' argument 'hot' is invalid."],
    [2, [...SAY, '--temperature', '1', '--top-p', '1.1'], 'error: --top-p is 1.1; a share above 0 and at most 1 is'],
    [2, [...SAY, '--max-tokens', '2k'], 'error: A prompt of 1 tokens and 2000 new ones are more than the 1024'],
    [4, ['--prompt', ''], 'error: The prompt is empty.\n'],
    [4, ['--prompt-file', 'nowhere.txt'], 'error: nowhere.txt: there is no such file.\n'],
    [5, ['--chat', 'Hi'], `error: ${SHIPPED} has no chat template, so it does not say how conversations are`],
  ])('with %i for %j', async (code, flags, message) => {
    const {stderr, ...ended} = await cli('-q', 'generate', SHIPPED, ...flags);
    expect(stderr.slice(0, message.length)).toBe(message);
    expect(ended).toEqual({code, stdout: ''});
  });

  test('with 4 for a file without text', async () => {
    const file = join(await tempFolder(), 'empty.txt');
    await writeFile(file, '');
    const {code, stderr} = await cli('-q', 'generate', SHIPPED, '--prompt-file', file);
    expect(stderr).toBe(`error: ${file}: the prompt is empty.\n`);
    await writeFile(file, Buffer.from([0x49, 0xff, 0xfe]));
    const other = await cli('-q', 'generate', SHIPPED, '--prompt-file', file);
    expect(other.stderr).toBe(`error: ${file} is not UTF-8 text.\nhint: Convert it, for example with iconv.\n`);
    expect(other.code).toBe(4);
    expect(code).toBe(4);
  });
});
