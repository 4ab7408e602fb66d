import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {readdir, readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {startEncodePool} from '../../src/data/encode-pool.js';
import {encodeSamples} from '../../src/data/encode-stream.js';
import {dataSchema} from '../../src/data/options.js';
import {prepare} from '../../src/data/prepare.js';
import type {Sample} from '../../src/data/sample.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import {DataError} from '../../src/util/errors.js';
import {DOWNCYCLE} from '../support/program.js';
import {collect, STORIES, tempFolder} from './support.js';

const MODEL = 'checkpoints/dense-4m';
const TEXT = 'data/scripture.txt';
const OPTIONS = {special: 'recognised', loss: 'completion'} as const;

/** Enough for threads to be started: 40 texts of 20,000 characters, then what is given. */
async function* manySamples(...last: Sample[]): AsyncGenerator<Sample> {
  for (let i = 0; i < 40; i++) yield {kind: 'text', text: `number ${i} `.repeat(2000)};
  yield* last;
}

describe('tokenizing in threads', () => {
  it('makes the same bytes as one thread does', async () => {
    const folder = await tempFolder();
    const tokenizer = await loadTokenizer(MODEL);
    const data = dataSchema.parse({sources: [{name: 'a', path: TEXT}], sequenceLength: 64});
    for (const threads of [1, 3]) await prepare({data, tokenizer, threads, out: join(folder, String(threads))});
    for (const name of ['a.train.arrow', 'a.valid.arrow']) {
      const [one, three] = await Promise.all(['1', '3'].map((run) => readFile(join(folder, run, name))));
      expect(one?.equals(three ?? Buffer.alloc(0)), name).toBe(true);
    }
  });

  it('keeps masks with their samples', async () => {
    const tokenizer = await loadTokenizer(MODEL);
    const short = Array.from({length: 200}, (_, i): Sample => ({kind: 'prompt', prompt: 'a b', completion: ` ${i}`}));
    const long: Sample = {kind: 'prompt', prompt: 'once upon a time '.repeat(33_000), completion: 'x'};
    const source = async function* () {
      yield long;
      yield* short;
    };
    const [one, two] = await Promise.all(
      [1, 2].map((threads) => collect(encodeSamples(source(), tokenizer, OPTIONS, threads))),
    );
    expect(two).toEqual(one);
    expect(two?.at(-1)?.mask?.at(-1)).toBe(1);
  });

  it('fails as one thread does, at the sample at fault', async () => {
    const tokenizer = await loadTokenizer(MODEL);
    const bad: Sample = {kind: 'chat', where: 'a.jsonl:41', messages: [{role: 'user', content: 'x'}], promptLength: 0};
    const encoding = collect(encodeSamples(manySamples(bad), tokenizer, OPTIONS, 2));
    await expect(encoding).rejects.toThrow(DataError);
    await expect(encoding).rejects.toThrow('a.jsonl:41: a conversation needs a chat template');
  });

  it('goes on here when threads cannot be had', async () => {
    const tokenizer = await loadTokenizer(MODEL);
    const elsewhere = {...tokenizer, folder: 'no/such/model'};
    const [one, two] = await Promise.all([
      collect(encodeSamples(manySamples(), tokenizer, OPTIONS, 1)),
      collect(encodeSamples(manySamples(), elsewhere, OPTIONS, 2)),
    ]);
    expect(two).toEqual(one);
  });

  it('does not use a tokenizer that has changed since', async () => {
    const pool = startEncodePool(1, {folder: STORIES, fingerprint: 'another', options: OPTIONS});
    expect(await pool.encode([{kind: 'text', text: 'x'}])).toBeNull();
    await pool.close();
  });

  it('leaves nothing when it is interrupted', async () => {
    const folder = await tempFolder();
    const config = join(folder, 'x.yaml');
    await writeFile(config, `model: ${MODEL}\ndata: {sources: [{name: a, path: 'data/*.txt'}]}\n`);
    const [node = '', ...program] = DOWNCYCLE;
    const child = spawn(node, [...program, 'prepare', config, '--out', join(folder, 'out')], {stdio: 'ignore'});
    while (!(await readdir(folder)).some((name) => name.startsWith('.out')))
      await new Promise((go) => setTimeout(go, 50));
    await new Promise((go) => setTimeout(go, 1500));
    child.kill('SIGINT');
    const [code] = (await once(child, 'exit')) as [number | null];
    expect(code).toBe(130);
    expect(await readdir(folder)).toEqual(['x.yaml']);
  }, 60_000);
});
