import {readdir, readFile, writeFile} from 'node:fs/promises';
import {describe, expect, it} from 'vitest';
import type {Evaluation, Scores} from '../../src/eval/evaluate.js';
import {countTokens, emptyCounts, layerRouting} from '../../src/eval/routing.js';
import {writeEvaluation} from '../../src/experiment/evaluation-report.js';
import {type EvaluationTable, evaluationTables} from '../../src/experiment/evaluation-tables.js';
import {useScratch} from '../format/scratch.js';
import {experts} from '../train/support.js';

const scratch = useScratch();
const EVIL = '<script>alert(1)</script>';

/** Scores of two texts, whose tokens go to the first or the last two of three experts; layer 0 has none. */
function scores(model: string): Scores {
  const layers = [1, 2].map((layer) => {
    const counts = emptyCounts(layer, experts(3, 2), 2);
    const chosen = [...Array<number[]>(30).fill([0, 1]), ...Array<number[]>(10).fill([1, 2])];
    countTokens(
      counts,
      Int32Array.from(chosen.flat()),
      Int32Array.from(chosen, (_, t) => (t < 30 ? 0 : 1)),
    );
    return layerRouting(counts, chosen.length);
  });
  const text = (name: string, tokens: number) => ({
    ...{name, tokens, bytes: 2 * tokens, windows: 1},
    ...{loss: 2, perplexity: Math.exp(2), bitsPerByte: 1.5, bytePerplexity: 2.8},
  });
  const texts = [text(`mixed ${EVIL}`, 30), text('b', 10)];
  const routing = {texts: texts.map(({name, tokens}) => ({name, tokens})), layers};
  return {model, tasks: [], texts, whole: text('all', 40), routing};
}

const evaluation = (): Evaluation => ({...scores('moe'), window: 8, stride: 4, against: null});
const titled = (tables: readonly EvaluationTable[], title: string): EvaluationTable =>
  tables.find((table) => table.title.startsWith(title))!;

describe('evaluationTables', () => {
  it('have a row a text and model, all texts last, and of each mixture a row a layer', () => {
    const against = {...scores('other'), routing: null, differences: []};
    const tables = evaluationTables({...evaluation(), against});
    const {rows} = titled(tables, 'Texts');
    expect(rows.map(([name, model, tokens]) => [name, model, tokens])).toEqual([
      ...['moe', 'other'].map((model) => [`mixed ${EVIL}`, model, '30']),
      ...['moe', 'other'].map((model) => ['b', model, '10']),
      ...['moe', 'other'].map((model) => ['all', model, '40']),
    ]);
    expect(tables.filter(({title}) => title.startsWith('Routing of')).map(({title}) => title)).toEqual([
      'Routing of moe',
    ]);
    const [, row] = titled(tables, 'Routing').rows;
    expect(row).toEqual(['2', '3', '2', '0.887', '1.50', '-', '0.500', '-']);
    expect(titled(tables, 'Experts of').rows[0]).toEqual(['1', '0 (50%)', '2 (50%)']);
  });
});

describe('writeEvaluation', () => {
  it('writes a page with a heat map of loads and two for each layer, and all numbers', async () => {
    const out = scratch('report');
    const {page, json} = await writeEvaluation(out, evaluation());
    expect(await readdir(out)).toEqual(['evaluation.json', 'index.html']);
    expect(JSON.parse(await readFile(json, 'utf8'))).toEqual(evaluation());
    const html = await readFile(page, 'utf8');
    expect(html.match(/<svg/g)).toHaveLength(5);
    expect(html).toContain('Heat map of experts used together in layer 2.');
    expect(html).not.toContain('<script');
    const ids = [...html.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it('refuses a path where something stands, and leaves it', async () => {
    await writeFile(scratch('here'), 'mine');
    const plain = {...evaluation(), routing: null};
    await expect(writeEvaluation(scratch('here'), plain)).rejects.toThrow(
      'here already exists; downcycle never overwrites.',
    );
    expect(await readFile(scratch('here'), 'utf8')).toBe('mine');
  });
});
