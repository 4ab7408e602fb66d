import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {parquetWriteBuffer} from 'hyparquet-writer';
import {describe, expect, it} from 'vitest';
import {dataSchema, type SourceOptions} from '../../src/data/options.js';
import {digestOf, isValidation} from '../../src/data/prepare.js';
import {readTaskDocuments, type TaskDocument} from '../../src/data/task.js';
import {DataError} from '../../src/util/errors.js';
import {tempFolder} from './support.js';

const RECORDS = Array.from({length: 40}, (_, i) => ({domain: i % 2 ? 'law' : 'code', text: `Document number ${i}.`}));

/** Sources `s0`, `s1` ... of files with these names and contents. */
async function sourcesOf(
  files: Readonly<Record<string, string | ArrayBuffer>>,
  field?: string,
): Promise<SourceOptions[]> {
  const folder = await tempFolder();
  const sources: object[] = [];
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(folder, name), typeof content === 'string' ? content : new Uint8Array(content));
    sources.push({name: `s${sources.length}`, path: join(folder, name), ...(field !== undefined && {field})});
  }
  return dataSchema.parse({sources}).sources;
}

const lines = (records: readonly object[]): string => records.map((record) => JSON.stringify(record)).join('\n');

async function read(sources: SourceOptions[], field = 'domain', share = 0): Promise<TaskDocument[]> {
  const found: TaskDocument[] = [];
  for await (const document of readTaskDocuments(sources, field, share)) found.push(document);
  return found;
}

describe('readTaskDocuments', () => {
  it('gives every training document its task, and none that is kept for validation', async () => {
    const found = await read(await sourcesOf({'a.jsonl': lines(RECORDS)}), 'domain', 0.3);
    const training = RECORDS.filter(({text}) => !isValidation(text, 0.3));
    expect(training.length).toBeLessThan(RECORDS.length);
    expect(found).toEqual(training.map(({domain, text}) => ({task: domain, text, digest: digestOf(text)})));
  });

  it('reads records of parquet, takes numbers and truth values for names, and joins prompt and target', async () => {
    const file = parquetWriteBuffer({
      columnData: [
        {name: 'prompt', data: ['a', 'b'], type: 'STRING'},
        {name: 'target', data: ['1', '2'], type: 'STRING'},
        {name: 'kind', data: [7, 8], type: 'INT32'},
        {name: 'other', data: ['x', 'y'], type: 'STRING'},
      ],
    });
    const found = await read(
      await sourcesOf({
        'p.parquet': file,
        'q.jsonl': lines([
          {text: 'c', kind: true},
          {text: ' ', kind: null},
        ]),
      }),
      'kind',
    );
    expect(found.map(({task, text}) => [task, text])).toEqual([
      ['7', 'a 1'],
      ['8', 'b 2'],
      ['true', 'c'],
    ]);
  });

  it('takes the text from the field of the source, and passes over sources without records', async () => {
    const records = lines([{body: 'one', domain: 'law'}]);
    const found = await read(await sourcesOf({'a.jsonl': records, 'b.txt': 'plain text'}, 'body'));
    expect(found).toMatchObject([{task: 'law', text: 'one'}]);
  });

  it.each([
    ['without the field', {text: 'x', url: 'y'}, 'no field `domain`; fields: text, url.'],
    ['whose field is a list', {text: 'x', domain: ['law']}, 'field `domain` names no task; fields: text, domain.'],
    ['whose field is null', {text: 'x', domain: null}, 'field `domain` names no task; fields: text, domain.'],
    ['without text', {domain: 'law'}, 'no field `text`; fields: domain.'],
  ])('refuses a record %s, naming its line', async (_, record, message) => {
    const sources = await sourcesOf({'a.jsonl': lines([RECORDS[0]!, RECORDS[1]!, record])});
    const reading = read(sources);
    await expect(reading).rejects.toThrow(DataError);
    await expect(reading).rejects.toThrow(`${String(sources[0]!.path)}:3: ${message}`);
  });

  it('refuses a column that parquet lacks, naming the row', async () => {
    const file = parquetWriteBuffer({columnData: [{name: 'text', data: ['a'], type: 'STRING'}]});
    await expect(read(await sourcesOf({'p.parquet': file}))).rejects.toThrow(
      'p.parquet: row 0: no field `domain`; fields: text.',
    );
  });

  it('refuses sources that have no records, or none to train on', async () => {
    const texts = await sourcesOf({'a.txt': 'plain text'});
    await expect(read(texts)).rejects.toThrow(
      `No training document is in a record with a field \`domain\`: the sources are s0 (${String(texts[0]!.path)}).`,
    );
    await expect(read(await sourcesOf({'a.jsonl': ''}))).rejects.toThrow(DataError);
  });

  it('refuses a field that names documents instead of tasks', async () => {
    const records = Array.from({length: 1001}, (_, i) => ({text: `${i}`, domain: `https://${i}`}));
    await expect(read(await sourcesOf({'a.jsonl': lines(records)}))).rejects.toThrow(
      'a.jsonl:1001: field `domain` has more than 1000 values so far; each would be a task.',
    );
  });
});
