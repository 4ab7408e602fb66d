import {mkdtemp, readFile, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterEach, beforeEach, describe, expect, it} from 'vitest';
import {escapeHtml, scriptJson} from '../../src/report/html.js';
import {writeReport} from '../../src/report/report.js';
import {embedded, pointAt} from './page-pointer.js';
import {type SyntheticRun, writeRun} from './synthetic-run.js';

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
describe('the page', () => {
  it('needs no network: it names no address but those of namespaces, and forbids loading', async () => {
    await writeReport({runs: [await run('a', {}, 'name: x\n')], out});
    const html = await page();
    const addresses = [...html.matchAll(/https?:\/\/[^"\s<]+/g)].map(([address]) => address);
    expect(new Set(addresses)).toEqual(new Set(['http://www.w3.org/2000/svg', 'http://www.w3.org/1999/xlink']));
    expect(html).not.toMatch(/<(link|img|iframe)\b|\bsrc=|@import/);
    expect(html).toContain("default-src 'none'");
  });

  it('escapes every name and setting that comes from a user', async () => {
    const evil = '</script><script>alert(1)</script>';
    const runs = [await run('a', {arm: evil, name: `<b>${evil}`}, `name: "${evil}"\n`)];
    await writeReport({runs, out, title: evil, reference: {label: evil, loss: 3}});
    const html = await page();
    expect(html).not.toContain('<script>alert');
    expect(html).not.toContain('<b>');
    expect(html.match(/<script/g)).toHaveLength(2);
  });

  it('embeds the numbers behind the pictures', async () => {
    await writeReport({runs: [await run('a')], out});
    expect(JSON.parse(embedded(await page()))).toEqual(JSON.parse(await readFile(join(out, 'summary.json'), 'utf8')));
  });

  it('names seeds, versions, device and settings of what was run, and no path of this machine', async () => {
    await writeReport({runs: [await run('a', {seed: 4711}, 'seed: 4711 # mine\n')], out});
    const html = await page();
    for (const text of ['4711', 'tensorflow 2.20.0', 'node 20.20.2', 'seed: 4711 # mine']) expect(html).toContain(text);
    expect(html).not.toContain(folder);
  });

  it('has a heat map for each arm that routes and none for a dense one', async () => {
    await writeReport({runs: [await run('a'), await run('dense', {experts: []})], out});
    const html = await page();
    expect(html).toContain('Heat map of expert load for a: 2 MoE layers.');
    expect(html).not.toContain('Heat map of expert load for dense');
  });

  it('gives no id twice', async () => {
    await writeReport({runs: [await run('a'), await run('b'), await run('c')], out});
    const ids = [...(await page()).matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });
});

describe('the read-out script', () => {
  it('says the loss of every arm under the pointer, interpolated', async () => {
    await writeReport({runs: [await run('a', {numSteps: 20, evalEvery: 10}), await run('b', {numSteps: 10})], out});
    const html = await page();
    const said = pointAt(html, 0.375); // the axis ends with the longer run, at step 20; evaluations stand at 0 and 10
    const {arms} = JSON.parse(embedded(html)) as {arms: {validation: {loss: number}[]}[]};
    const [first, second] = arms[0]!.validation.map(({loss}) => loss) as [number, number];
    expect(said).toEqual([
      '15.4k tokens',
      `a ${(first + (second - first) * 0.75).toFixed(3)}`,
      expect.stringMatching(/^b \d\.\d{3}$/),
    ]);
  });

  it('leaves out an arm that was not trained that far', async () => {
    await writeReport({runs: [await run('a', {numSteps: 20}), await run('b', {numSteps: 10})], out});
    expect(pointAt(await page(), 0.9).map((text) => text.split(' ')[0])).toEqual(['36.9k', 'a']);
  });
});

describe('escaping', () => {
  it('leaves no letter that HTML gives a meaning', () => {
    expect(escapeHtml(`<a href="x" title='y'>&</a>`)).toBe(
      '&lt;a href=&quot;x&quot; title=&#39;y&#39;&gt;&amp;&lt;/a&gt;',
    );
  });

  it('keeps JSON equal and free of tags', () => {
    const value = {text: '</script><!-- \u2028'};
    expect(scriptJson(value)).not.toContain('<');
    expect(JSON.parse(scriptJson(value))).toEqual(value);
  });
});
