// Adafactor and Muon against PyTorch: numbers of test/fixtures/train/make_optimizers.py.
import {readFileSync} from 'node:fs';
import {describe, expect, it} from 'vitest';
import {orthogonal} from '../../../src/train/optimizer/muon.js';
import {optimizerOf, optimizerSchema} from '../../../src/train/optimizer/options.js';
import {type Movable, type OptimizerOptions, slotShapes} from '../../../src/train/optimizer/update.js';
import {onEveryEngine, type TestEngine} from '../../support/engines.js';
import {floats, type Host, normals} from '../../support/host.js';
import {moved, startOf} from './moved.js';

const torch = JSON.parse(readFileSync('test/fixtures/train/optimizers.json', 'utf8')) as Readonly<
  Record<'adafactor' | 'muon', Readonly<Record<string, number[][]>>>
>;
const LR = 0.05;
const STEPS = 5;
const SHAPES: Readonly<Record<string, number[]>> = {tall: [5, 3], wide: [3, 4], vector: [4]};
const optimizer = (input: object): OptimizerOptions => optimizerOf(optimizerSchema.parse(input));
const ADAFACTOR = optimizer({kind: 'adafactor', weightDecay: 0.1});
const MUON = optimizer({kind: 'muon'});

const numbers = (shape: readonly number[], seed: number, factor = 1): Host =>
  floats(
    [...shape],
    Array.from({length: shape.reduce((a, b) => a * b, 1)}, (_, i) => factor * Math.sin(1.3 * i * i + seed)),
  );
const movable = (shape: readonly number[]): Movable => ({shape, part: 'ffn', decays: true});

/** What became of a parameter after each of five steps. */
async function run(engine: TestEngine, options: OptimizerOptions, name: string): Promise<Host[]> {
  const shape = SHAPES[name]!;
  const place = Object.keys(SHAPES).indexOf(name);
  let state = startOf(options, movable(shape), numbers(shape, 1));
  const values: Host[] = [];
  for (let t = 1; t <= STEPS; t++) {
    state = await moved(engine, options, movable(shape), state, numbers(shape, 10 * place + t, t / 2), {lr: LR, t});
    values.push(state[0]!);
  }
  return values;
}

/** Two matrices of one shape as a stack of two. */
const stack = (a: Host, b: Host): Host => floats([2, ...a.shape], [...a.values, ...b.values]);

describe.each([
  ['adafactor', ADAFACTOR, ['tall', 'wide', 'vector']],
  ['muon', MUON, ['tall', 'wide']],
] as const)('%s', (kind, options, names) => {
  for (const name of names) {
    onEveryEngine(`moves a ${name} parameter as torch does over five steps`, async (engine) => {
      const values = await run(engine, options, name);
      for (const [i, value] of values.entries()) {
        expect(value.values).toBeAllClose(torch[kind][name]![i]!, {rtol: 1e-6, atol: 2e-6});
      }
    });
  }

  onEveryEngine('moves each matrix of a stack as if it were alone', async (engine) => {
    const [a, b] = [normals([5, 3], 1), normals([5, 3], 2)];
    const [da, db] = [
      normals([5, 3], 3),
      floats(
        [5, 3],
        normals([5, 3], 4).values.map((x) => 100 * x),
      ),
    ];
    const one = (value: Host, gradient: Host): Promise<Host[]> => {
      const parameter = movable(value.shape);
      return moved(engine, options, parameter, startOf(options, parameter, value), gradient, {lr: LR, t: 1});
    };
    const [both, first, second] = [await one(stack(a, b), stack(da, db)), await one(a, da), await one(b, db)];
    expect(both[0]!.values).toBeAllClose([...first[0]!.values, ...second[0]!.values], {rtol: 1e-6, atol: 1e-7});
  });

  onEveryEngine('leaves all as it is when the step is not safe', async (engine) => {
    const parameter = movable([3, 4]);
    const before = startOf(options, parameter, normals([3, 4], 1));
    const broken = floats([3, 4], new Float32Array(12).fill(Number.NaN));
    const after = await moved(engine, options, parameter, before, broken, {lr: LR, t: 2, isSafe: false});
    expect(after.map(({values}) => [...values])).toEqual(before.map(({values}) => [...values]));
  });
});

describe('adafactor', () => {
  it('keeps a number for each row and each column of a matrix', () => {
    expect(slotShapes(ADAFACTOR, movable([8, 5, 3]))).toEqual({rowSquare: [8, 5, 1], columnSquare: [8, 1, 3]});
    expect(slotShapes(ADAFACTOR, movable([4]))).toEqual({square: [4]});
  });
});

describe('muon', () => {
  it('is for the matrices of layers; the rest goes to AdamW', () => {
    const kept = (part: Movable['part'], decays: boolean): string[] =>
      Object.keys(slotShapes(MUON, {shape: [4, 4], part, decays}));
    for (const part of ['attention', 'ffn', 'shared', 'experts'] as const)
      expect(kept(part, true)).toEqual(['momentum']);
    for (const part of ['embeddings', 'routers'] as const) expect(kept(part, true)).toEqual(['first', 'second']);
    expect(kept('attention', false), 'biases').toEqual(['first', 'second']);
  });

  onEveryEngine('brings singular values near one and keeps their vectors', async ({run: call}) => {
    for (const shape of [
      [6, 3],
      [3, 6],
    ]) {
      const [y] = await call((x) => [orthogonal(x, 5)], normals(shape, 5));
      const [rows, columns] = shape as [number, number];
      const short = Math.min(rows, columns);
      const at = (i: number, k: number): number => y!.values[rows > columns ? k * columns + i : i * columns + k]!;
      const gram = Array.from({length: short * short}, (_, n) => {
        const [i, j] = [Math.floor(n / short), n % short];
        return Array.from({length: Math.max(rows, columns)}, (_unused, k) => at(i, k) * at(j, k)).reduce(
          (a, b) => a + b,
        );
      });
      const trace = Array.from({length: short}, (_, i) => gram[i * short + i]!).reduce((a, b) => a + b);
      expect(trace / short).toBeGreaterThan(0.5);
      expect(trace / short).toBeLessThan(1.5);
    }
  });
});
