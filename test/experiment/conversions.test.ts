import {readFileSync} from 'node:fs';
import {appendFile, readFile, rm} from 'node:fs/promises';
import {join, resolve} from 'node:path';
import * as fc from 'fast-check';
import {describe, expect, it, vi} from 'vitest';
import {configSchema} from '../../src/config/schema.js';
import {roundHalfEven} from '../../src/downcycle/allocation.js';
import {isDive} from '../../src/downcycle/dive-options.js';
import {methodSchema} from '../../src/downcycle/options.js';
import type {EngineInfo} from '../../src/engine/start.js';
import {basisOf, keyOf, openRows} from '../../src/experiment/conversion-rows.js';
import {countsAt, requireCounts} from '../../src/experiment/conversion-tasks.js';
import {
  conversionColumns,
  conversionCsv,
  type MeasuredConversion,
  summariseConversions,
} from '../../src/report/conversion-table.js';
import {DataError} from '../../src/util/errors.js';
import {spawnCli, tempFolder, writeConfig} from '../cli/support.js';
import {splitOptions} from '../downcycle/split-options.js';
import {tinyProfile} from '../downcycle/tiny-profile.js';
import {DENSE, TEXT, writeModel} from '../train/support.js';

vi.setConfig({testTimeout: 120_000});

describe('countsAt', () => {
  it('keeps the chunks, leaves the share asked for idle, and shares the same part of the active ones', () => {
    expect(countsAt({experts: 24, shared: 8, topK: 8}, 0.5, 'a')).toEqual({experts: 24, shared: 8, topK: 8});
    expect(countsAt({experts: 24, shared: 8, topK: 8}, 0.25, 'a')).toEqual({experts: 20, shared: 12, topK: 12});
    expect(countsAt({experts: 8, shared: 0, topK: 2}, 0.25, 'a')).toEqual({experts: 8, shared: 0, topK: 6});
  });

  it('gives counts that can be converted, whatever they come from', () => {
    const counts = fc.record({experts: fc.integer({min: 2, max: 64}), shared: fc.integer({min: 0, max: 32})});
    fc.assert(
      fc.property(counts, fc.integer({min: 1, max: 9}), ({experts, shared}, tenths) => {
        const idle = roundHalfEven((tenths / 10) * (experts + shared));
        fc.pre(idle >= 1 && idle < experts + shared - 1);
        const found = countsAt({experts, shared, topK: 1 + (experts >> 1)}, tenths / 10, 'a');
        expect(found.experts + found.shared).toBe(experts + shared);
        expect(found.topK).toBeGreaterThanOrEqual(1);
        expect(found.topK).toBeLessThanOrEqual(found.experts);
      }),
    );
  });

  it('refuses a sparsity that leaves nothing idle, or nothing active', () => {
    expect(() => countsAt({experts: 2, shared: 0, topK: 1}, 0.1, 'x.yaml:3:5')).toThrow(
      'x.yaml:3:5: of 2 chunks 2 are active at a sparsity of 0.1.',
    );
    expect(() => countsAt({experts: 2, shared: 0, topK: 1}, 0.9, 'x.yaml:3:5')).toThrow('of 2 chunks 0 are active');
  });
});

describe('requireCounts', () => {
  it('refuses what no layer can have by arm and sparsity, before anything is measured', async () => {
    const profile = await tinyProfile();
    const flat = profile.layers.map((layer) => ({...layer, gateMean_JF: layer.gateMean_JF.map(() => 1)}));
    const method = splitOptions({method: 'expertweaver', allocation: 'adaptive', experts: 6, shared: 2, topK: 2});
    const task = {arm: 'a', method, sparsity: 0.5, seed: 1};
    const at = () => 'x.yaml:3:5';
    requireCounts({at}, [{...task, method: splitOptions({method: 'random', experts: 6, shared: 2, topK: 2})}], profile);
    const dive = methodSchema.parse({method: 'dive', experts: 1, topK: 1, keep: 0.01});
    if (!isDive(dive)) throw new Error('not dive');
    expect(() => requireCounts({at}, [{...task, method: dive}], profile)).toThrow(
      'x.yaml:3:5: at a sparsity of 50%: keep 0.01 of 24 neurons leaves an expert none.',
    );
    // Neurons that never change: alpha is 0.7, 6 of the 8 chunks are shared.
    expect(() => requireCounts({at}, [task], {...profile, layers: flat})).toThrow(
      'x.yaml:3:5: at a sparsity of 50%, layer 0: adaptive allocation shares 6 of 8 chunks,',
    );
  });
});

describe('openRows', () => {
  it('names a damaged line that is not the last', async () => {
    const path = join(await tempFolder(), 'rows.jsonl');
    await appendFile(path, '{"key": "a"}\n{"key": \n{"key": "b"}\n');
    await expect(openRows(path)).rejects.toThrow(DataError);
    await expect(openRows(path)).rejects.toThrow(/rows\.jsonl:2:\d+: /);
  });
});

describe('basisOf', () => {
  const profile = tinyProfile();
  const conversions = configSchema.parse({model: 'm', data: {sources: [{name: 's', path: 'p'}]}}).conversions;
  const engine = {engine: 'wasm', device: 'wasm'} as EngineInfo;
  const basis = async (options: object = {}, on: object = {}) => {
    const {layers, metadata} = await profile;
    const changed = {layers, metadata: {...metadata, options: {...metadata.options, ...options}}};
    return keyOf(basisOf(changed, [], conversions, {...engine, ...on}), 'dense');
  };

  it('leaves a row as it is where another arm asks for more of the profile', async () => {
    expect(await basis({gradients: true, predictors: true})).toBe(await basis());
  });

  it.each([
    ['samples', {cv: 'samples'}, {}],
    ['another engine', {}, {engine: 'tensorflow'}],
    ['another device', {}, {device: 'cpu'}],
  ])('makes another row of %s', async (_, options, on) => {
    expect(await basis(options, on)).not.toBe(await basis());
  });
});

const measured = (arm: string, sparsity: number, seed: number | null, a: number, b: number): MeasuredConversion => ({
  arm,
  sparsity,
  seed,
  perplexities: [
    {name: 'a', perplexity: a},
    {name: 'b, c', perplexity: b},
  ],
  parameters: {total: 10, active: 7},
  seconds: 2,
  peakBytes: 3e6,
});

describe('the table of conversions', () => {
  const rows = summariseConversions([
    measured('dense', 0, null, 2, 8),
    measured('x', 0.5, 1, 10, 40),
    measured('x', 0.5, 2, 12, 48),
    measured('x', 0.5, 3, 14, 56),
    measured('x', 0.25, 1, 5, 20),
  ]);

  it('has a row for each sparsity and arm, with means, intervals and geometric means', () => {
    expect(rows.map(({arm, sparsity, numSeeds}) => [arm, sparsity, numSeeds])).toEqual([
      ['dense', 0, 1],
      ['x', 0.25, 1],
      ['x', 0.5, 3],
    ]);
    expect(rows[0]!.geometricMean).toEqual({mean: expect.closeTo(4, 10) as number, halfWidth: null});
    expect(rows.map(({oracle}) => oracle)).toEqual([null, null, null]);
    expect(conversionColumns(rows).map(({title}) => title)).not.toContain('with\noracle');
    const [a] = rows[2]!.perplexities;
    expect(a!.mean).toBe(12);
    expect(a!.halfWidth).toBeCloseTo((4.303 * 2) / Math.sqrt(3), 6); // standard deviation 2, two degrees of freedom
    expect(rows[2]!.geometricMean.mean).toBeCloseTo(24, 10);
  });

  it('has a column with the oracle where some row was measured with it', () => {
    const oracle = (a: number, b: number) => ({
      oracle: [
        {name: 'a', perplexity: a},
        {name: 'b, c', perplexity: b},
      ],
    });
    const some = [measured('dense', 0, null, 2, 8), {...measured('x', 0.5, 1, 10, 40), ...oracle(4, 9)}];
    const summaries = summariseConversions(some);
    expect(summaries[1]!.oracle!.mean).toBeCloseTo(6, 10);
    const column = conversionColumns(summaries).find(({title}) => title === 'with\noracle');
    expect(summaries.map((row) => column!.cell(row))).toEqual(['-', '6.00']);
    expect(conversionCsv(some).split('\n')).toEqual([
      'method,sparsity,seed,a,"b, c",oracle_a,"oracle_b, c",total_parameters,active_parameters,seconds,peak_bytes',
      'dense,0,,2,8,,,10,7,2,3000000',
      'x,0.5,1,10,40,4,9,10,7,2,3000000',
      '',
    ]);
  });

  it('is written as comma-separated values, a line a seed', () => {
    const lines = conversionCsv([measured('x', 0.5, 1, 10, 40), measured('y', 0.5, null, 1, 2)]).split('\n');
    expect(lines).toEqual([
      'method,sparsity,seed,a,"b, c",total_parameters,active_parameters,seconds,peak_bytes',
      'x,0.5,1,10,40,10,7,2,3000000',
      'y,0.5,,1,2,10,7,2,3000000',
      '',
    ]);
  });
});

describe('downcycle conversions', () => {
  const arms = `arms:
  mine: {method: weave, experts: 6, shared: 2, topK: 2}
  lots: {method: random, experts: 6, shared: 2, topK: 2, weights: one}
  pruned: {method: all-shared, experts: 6, shared: 2, topK: 2}
  copies: {method: sparse-upcycle, experts: 2, topK: 1}
conversions: {sparsities: [0.5], seeds: [1, 2], windowTokens: 32, maxTokens: 128}
`;
  const run = (folder: string, ...more: string[]) =>
    spawnCli(['conversions', join(folder, 'config.yaml'), '--set', 'profile.markers.count=4', ...more], {cwd: folder});

  it('prints the table, writes page and CSV, and measures nothing twice', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), DENSE);
    await writeConfig(folder, TEXT, arms);
    const first = await run(folder);
    expect(first.code, first.stderr).toBe(0);
    for (const name of ['dense', 'mine', 'lots', 'pruned']) expect(first.stdout).toMatch(new RegExp(`^${name} `, 'm'));
    expect(first.stderr).toContain('5 of 5  pruned at 50%');
    expect(first.stderr).toContain('left out, for their sparsity cannot be chosen: copies');
    expect(first.stdout).toContain("± is half a 95% interval over seeds (Student's t).");
    const root = join(folder, 'checkpoints', 'tiny', 'conversions');
    expect(readFileSync(join(root, 'conversions.csv'), 'utf8').split('\n')).toHaveLength(8);
    expect(readFileSync(join(root, 'index.html'), 'utf8')).toMatch(/<svg[\s\S]*Perplexity/);
    const rows = await readFile(join(root, 'rows.jsonl'), 'utf8');
    for (const again of [1, 2]) {
      await appendFile(join(root, 'rows.jsonl'), `{"key": "torn ${again}`);
      expect((await run(folder)).stdout).toBe(first.stdout);
    }
    expect(await readFile(join(root, 'rows.jsonl'), 'utf8')).toBe(rows);
    // Other weights under the same path: profile and rows are of no use any more.
    await rm(join(folder, 'model'), {recursive: true});
    await writeModel(join(folder, 'model'), {...DENSE, normEps: 1e-3});
    expect((await run(folder)).stdout).not.toBe(first.stdout);
    expect((await readFile(join(root, 'rows.jsonl'), 'utf8')).split('\n')).toHaveLength(2 * 6 + 1);
  });

  it('prints what an oracle would give beside every router, and nothing where nothing is chosen', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), DENSE);
    await writeConfig(folder, TEXT, arms);
    const asked = ['--set', 'conversions.oracle=true', '--set', 'conversions.seeds=[1]'];
    const {code, stdout, stderr} = await run(folder, ...asked);
    expect(code, stderr).toBe(0);
    const [head, oracle] = [stdout.split('\n').slice(0, 2), / +(\S+) +\S+ +\S+ +\S+$/];
    expect(head.join(' ')).toMatch(/with.*oracle/);
    const cellOf = (arm: string) => oracle.exec(stdout.split('\n').find((line) => line.startsWith(`${arm} `))!)![1]!;
    expect(['dense', 'pruned'].map(cellOf)).toEqual(['-', '-']);
    for (const arm of ['mine', 'lots']) expect(Number(cellOf(arm))).toBeGreaterThan(1);
    const root = join(folder, 'checkpoints', 'tiny', 'conversions');
    expect(readFileSync(join(root, 'index.html'), 'utf8')).toContain('With oracle:');
    expect(readFileSync(join(root, 'conversions.csv'), 'utf8')).toMatch(
      /^method,sparsity,seed,scripture,oracle_scripture,/,
    );
  });

  it('draws routers by every seed, though neurons are not drawn', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), DENSE);
    const arm = (router: string) =>
      `  ${router}: {method: contiguous, experts: 8, topK: 4, weights: one, router: ${router}}`;
    const routers = ['gate-mean', 'random', 'mlp', 'centroid'];
    // 0.52 of 8 chunks is 4 of them as well, and no row of its own.
    const section = 'conversions: {sparsities: [0.5, 0.52], seeds: [1, 2], windowTokens: 32, maxTokens: 128}';
    await writeConfig(folder, TEXT, `arms:\n${routers.map(arm).join('\n')}\n${section}\n`);
    const {code, stderr} = await run(folder);
    expect(code, stderr).toBe(0);
    const csv = readFileSync(join(folder, 'checkpoints', 'tiny', 'conversions', 'conversions.csv'), 'utf8').split('\n');
    for (const router of routers) {
      const rows = csv.filter((line) => line.startsWith(`${router},`)).map((line) => line.split(','));
      expect(rows.map(([, , seed]) => seed)).toEqual(router === 'gate-mean' ? [''] : ['1', '2']);
      expect(new Set(rows.map(([, , , perplexity]) => perplexity)).size).toBe(rows.length);
    }
  });

  it('refuses what it cannot measure, before anything is computed', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), DENSE);
    await writeConfig(folder, TEXT, 'arms:\n  up: {method: sparse-upcycle, experts: 2, topK: 1}\n');
    expect(await run(folder)).toMatchObject({
      code: 3,
      stderr: expect.stringContaining(
        'no arm has a sparsity that can be chosen: copies of FFNs and arms from scratch are not compared.\nhint: Name at least one',
      ) as string,
    });
    await writeConfig(folder, TEXT, arms);
    const {code, stderr} = await run(folder, '--set', 'conversions.windowTokens=64');
    expect(stderr).toContain(
      '--set conversions.windowTokens=64: conversions.windowTokens (64) is more than a row of data.sequenceLength (32) holds.',
    );
    expect(code).toBe(3);
    const wide = await run(folder, '--set', 'conversions.windowTokens=5000');
    expect(wide.stderr).toMatch(
      /conversions\.windowTokens \(5000\) is more than the \d+ positions of .*max_position_embeddings/,
    );
    const none = await run(folder, '--set', 'conversions.windowTokens=32', '--set', 'conversions.maxTokens=31');
    expect(none.stderr).toContain(
      'conversions.windowTokens (32) is more than conversions.maxTokens (31): not one window',
    );
    expect([wide.code, none.code]).toEqual([3, 3]);
    const named = `{name: held, path: ${resolve(TEXT)}}`;
    const alike = await run(folder, '--set', `conversions.texts=[${named}, ${named}]`);
    expect(alike).toMatchObject({code: 2, stderr: expect.stringContaining('two texts have the same name') as string});
    const greedy =
      'method: expertweaver, experts: 6, shared: 2, topK: 2, allocation: adaptive, alphaMin: 1, alphaMax: 1';
    await writeConfig(folder, TEXT, arms.replace('arms:\n', `arms:\n  greedy: {${greedy}}\n`));
    const late = await run(folder, '--set', 'profile.cv=samples');
    expect(late.stderr).toContain(
      'at a sparsity of 50%, layer 0: adaptive allocation shares 8 of 8 chunks, but shared + topK (= 4) are active: no routed expert could run.\nhint: Lower alphaMax (1).',
    );
    expect(late.code).toBe(3);
    const rows = join(folder, 'checkpoints', 'tiny', 'conversions', 'rows.jsonl');
    expect(await readFile(rows, 'utf8').catch(() => 'none')).toBe('none');
    const twice = await run(folder, '--set', 'conversions.sparsities=[0.5,0.5]');
    expect(twice).toMatchObject({code: 2, stderr: expect.stringContaining('a sparsity stands twice') as string});
  });
});
