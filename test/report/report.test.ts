import {appendFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterEach, beforeEach, describe, expect, it} from 'vitest';
import {reportSchema} from '../../src/report/options.js';
import {replaceFolder} from '../../src/report/replace.js';
import {writeReport} from '../../src/report/report.js';
import {DataError, EnvironmentError, UsageError} from '../../src/util/errors.js';
import {type SyntheticRun, syntheticRecords, writeRun} from './synthetic-run.js';

let folder: string;
let out: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'report-'));
  out = join(folder, 'report');
});
afterEach(() => rm(folder, {recursive: true, force: true}));

const run = (name: string, options: Partial<SyntheticRun> = {}, config?: string): Promise<string> =>
  writeRun(folder, name, {arm: name, numSteps: 20, experts: [8, 4], ...options}, config);
const page = (): Promise<string> => readFile(join(out, 'index.html'), 'utf8');
const FILES = ['curves.png', 'curves.svg', 'curves.vl.json', 'index.html', 'summary.json'];

describe('writeReport', () => {
  it('writes the page, the curves as SVG, PNG and spec, and the table, and nothing else', async () => {
    const written = await writeReport({runs: [await run('a'), await run('b')], out});
    expect((await readdir(out)).sort()).toEqual(FILES);
    expect(written.files.map((file) => file.slice(out.length + 1)).sort()).toEqual(FILES);
    expect(written).toMatchObject({page: join(out, 'index.html'), notes: []});
    expect((await readFile(join(out, 'curves.png'))).subarray(1, 4).toString()).toBe('PNG');
  });

  it('is the same bytes for the same runs', async () => {
    const runs = [await run('a'), await run('b')];
    await writeReport({runs, out});
    await writeReport({runs, out: join(folder, 'again')});
    for (const file of FILES) {
      expect(await readFile(join(folder, 'again', file))).toEqual(await readFile(join(out, file)));
    }
  });

  it('stores in summary.json what it returns', async () => {
    const {summary} = await writeReport({runs: [await run('a'), await run('b', {last: 4})], out});
    const stored = JSON.parse(await readFile(join(out, 'summary.json'), 'utf8')) as Record<string, unknown>;
    expect(stored).toMatchObject({kind: 'downcycle-report', version: 1, x: 'tokens', smoothing: 0.9});
    expect(stored.target).toEqual(summary.target);
    expect(stored.rows).toEqual(JSON.parse(JSON.stringify(summary.rows)));
  });

  it('goes on without a PNG where the renderer is missing, and says so', async () => {
    const loadResvg = (): Promise<never> => Promise.reject(new Error('no binary'));
    const {notes} = await writeReport({runs: [await run('a')], out, loadResvg});
    expect(await readdir(out)).not.toContain('curves.png');
    expect(notes).toEqual(['No PNG was drawn: @resvg/resvg-js does not load here (Error: no binary).']);
  });

  it('draws against steps or operations when asked', async () => {
    await writeReport({runs: [await run('a')], out, x: 'steps'});
    expect(await readFile(join(out, 'curves.svg'), 'utf8')).toContain('Optimizer steps');
  });

  it('draws runs without evaluations by their training loss alone', async () => {
    const records = syntheticRecords({arm: 'a', numSteps: 5}).filter(({kind}) => kind !== 'eval');
    await mkdir(join(folder, 'a'));
    await writeFile(join(folder, 'a', 'log.jsonl'), records.map((record) => `${JSON.stringify(record)}\n`).join(''));
    await writeReport({runs: [join(folder, 'a')], out});
    const svg = await readFile(join(out, 'curves.svg'), 'utf8');
    expect(svg).toContain('Training loss');
    expect(svg).not.toContain('Validation loss');
  });

  it('warns of runs that did not end, in the page and to the caller', async () => {
    const runs = [await run('a', {end: 'interrupted'}), await run('b', {end: null}), await run('c')];
    const {notes} = await writeReport({runs, out});
    expect(notes).toEqual([
      'a (a) has not run to its end: it stands at step 20.',
      'b (b) has not run to its end: it stands at step 20.',
    ]);
    expect(await page()).toContain(notes[0]);
  });

  it('reads past a torn last line, which a killed run leaves', async () => {
    const path = await run('a', {end: null});
    await appendFile(join(path, 'log.jsonl'), '{"kind":"step","step":21,"lo');
    const {notes} = await writeReport({runs: [path], out});
    expect(notes[0]).toContain('stands at step 20');
  });
});

describe('the output folder', () => {
  it('is never overwritten unless that is asked for', async () => {
    const runs = [await run('a')];
    await writeReport({runs, out});
    const before = await page();
    await expect(writeReport({runs, out, title: 'other'})).rejects.toThrow(EnvironmentError);
    expect(await page()).toBe(before);
  });

  it('is replaced as a whole when asked, and nothing is left beside it', async () => {
    const runs = [await run('a')];
    await writeReport({runs, out, title: 'old'});
    await writeReport({runs, out, title: 'new', replace: true, loadResvg: () => Promise.reject(new Error('none'))});
    expect(await page()).toContain('<title>new</title>');
    expect((await readdir(out)).sort()).toEqual(FILES.filter((file) => file !== 'curves.png'));
    expect((await readdir(folder)).sort()).toEqual(['a', 'report']);
  });

  it('may be new when replacing', async () => {
    await writeReport({runs: [await run('a')], out, replace: true});
    expect((await readdir(out)).sort()).toEqual(FILES);
  });

  it('is not replaced if it holds anything that is not part of a report', async () => {
    await mkdir(out);
    await writeFile(join(out, 'thesis.tex'), 'years of work');
    await expect(writeReport({runs: [await run('a')], out, replace: true})).rejects.toThrow(
      /holds thesis\.tex, which is not part of a report; it is not replaced/,
    );
    expect(await readdir(out)).toEqual(['thesis.tex']);
  });

  it('is not replaced if it is a file', async () => {
    await writeFile(out, 'text');
    await expect(writeReport({runs: [await run('a')], out, replace: true})).rejects.toThrow(/is a file/);
    expect(await readFile(out, 'utf8')).toBe('text');
  });

  it('stays as it was when the new one cannot be written, and nothing is left beside it', async () => {
    await writeReport({runs: [await run('a')], out});
    const before = await page();
    const full = Object.assign(new Error('write'), {code: 'ENOSPC'});
    await expect(replaceFolder(out, FILES, () => Promise.reject(full))).rejects.toThrow(/no space left on the disk/);
    expect(await page()).toBe(before);
    expect((await readdir(folder)).sort()).toEqual(['a', 'report']);
  });
});

describe('bad runs', () => {
  it('are refused when there are none, or one twice', async () => {
    const path = await run('a');
    await expect(writeReport({runs: [], out})).rejects.toThrow(UsageError);
    await expect(writeReport({runs: [path, `${path}/`], out})).rejects.toThrow(/is given twice/);
  });

  it('are refused when the folder has no log, by name', async () => {
    const error = writeReport({runs: [join(folder, 'nothing')], out});
    await expect(error).rejects.toThrow(DataError);
    await expect(error).rejects.toThrow(/nothing is not a run folder: it has no log\.jsonl/);
  });

  it('are refused when the log has no step', async () => {
    const path = await run('a', {numSteps: 0});
    await expect(writeReport({runs: [path], out})).rejects.toThrow(/log\.jsonl: no step records/);
  });

  it('are refused when the log has no head', async () => {
    const path = await run('a');
    const [, ...rest] = (await readFile(join(path, 'log.jsonl'), 'utf8')).split('\n');
    await writeFile(join(path, 'log.jsonl'), rest.join('\n'));
    await expect(writeReport({runs: [path], out})).rejects.toThrow(/log\.jsonl: no run record/);
  });

  it('are refused when the log is damaged, with the line, and nothing is written', async () => {
    const path = await run('a');
    const lines = (await readFile(join(path, 'log.jsonl'), 'utf8')).split('\n');
    await writeFile(join(path, 'log.jsonl'), lines.with(4, '{"kind":"st').join('\n'));
    const error = writeReport({runs: [path], out});
    await expect(error).rejects.toThrow(DataError);
    await expect(error).rejects.toThrow(/log\.jsonl:5: /);
    expect(await readdir(folder)).toEqual(['a']);
  });
});

describe('reportSchema', () => {
  it('fills in defaults and refuses unknown keys and impossible values', () => {
    expect(reportSchema.parse({})).toEqual({smoothing: 0.9, x: 'tokens'});
    for (const bad of [{smooth: 0.5}, {smoothing: 1}, {smoothing: -0.1}, {x: 'time'}, {out: ''}]) {
      expect(reportSchema.safeParse(bad).success).toBe(false);
    }
  });

  it('describes every key', () => {
    for (const schema of Object.values(reportSchema.shape)) expect(schema.description).toBeTruthy();
  });
});
