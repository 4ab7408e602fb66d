import {describe, expect} from 'vitest';
import {expertProduct, expertSlots} from '../../src/op/experts.js';
import {MATRIX} from '../../src/op/mat-mul.js';
import {multiplied} from '../../src/op/product.js';
import {swiglu} from '../../src/op/swiglu.js';
import {type Dropout, mapWeight, project, projectSwiglu, solid, type Weight} from '../../src/op/weight.js';
import {onEveryEngine} from '../support/engines.js';
import {checkGradients} from '../support/gradients.js';
import {ints, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

/** T rows, D and F columns, rank r, E experts. */
const [T, D, F, r, E] = [6, 5, 4, 2, 3];
const x = normals([T, D], 1);
const [base, a, b] = [normals([D, F], 2), normals([D, r], 3), normals([r, F], 4)];
const stacked = [normals([E, D, F], 5), normals([E, D, r], 6), normals([E, r, F], 7)] as const;
const SCALE = 1.5;

function weightOf<W extends tf.Tensor>(parts: readonly W[], dropout: Dropout | null = null): Weight<W> {
  const [whole, left, right] = parts as [W, W, W];
  return {base: whole, a: left, b: right, scale: SCALE, dropout};
}

/** Sends row t to expert t % E, with room for all. */
function toExperts(): ReturnType<typeof expertProduct> {
  const choice = tf.tensor2d(
    Array.from({length: T}, (_, t) => t % E),
    [T, 1],
    'int32',
  );
  return expertProduct(expertSlots(choice, E, {rows: T / E, blockRows: 8, blocks: 0}));
}

const product = (rows: tf.Tensor, ...parts: tf.Tensor[]): tf.Tensor =>
  project(rows as tf.Tensor2D, weightOf(parts as tf.Tensor2D[]), MATRIX);
const byExpert = (rows: tf.Tensor, ...parts: tf.Tensor[]): tf.Tensor =>
  project(rows as tf.Tensor2D, weightOf(parts as tf.Tensor3D[]), toExperts());
const secondHalf = (gate: tf.Tensor, up: tf.Tensor, ...parts: tf.Tensor[]): tf.Tensor =>
  projectSwiglu(gate as tf.Tensor2D, up as tf.Tensor2D, weightOf(parts as tf.Tensor2D[]), MATRIX);

describe('a weight with a low-rank term', () => {
  onEveryEngine('multiplies rows as the sum of both does', async ({run}) => {
    const fn = (rows: tf.Tensor2D, ...parts: tf.Tensor2D[]): tf.Tensor[] => [
      product(rows, ...parts),
      multiplied(rows, solid(weightOf(parts)), MATRIX),
    ];
    const [apart, together] = await run(fn, x, base, a, b);
    expect(apart!.values).toBeAllClose(together!.values, {rtol: 1e-5, atol: 1e-5});
  });

  onEveryEngine('multiplies the rows of each expert as the sum of both does', async ({run}) => {
    const fn = (rows: tf.Tensor2D, ...parts: tf.Tensor3D[]): tf.Tensor[] => [
      byExpert(rows, ...parts),
      multiplied(rows, solid(weightOf(parts)), toExperts()),
    ];
    const [apart, together] = await run(fn, x, ...stacked);
    expect(apart!.values).toBeAllClose(together!.values, {rtol: 1e-5, atol: 1e-5});
  });

  onEveryEngine('ends a GLU as the sum of both does', async ({run}) => {
    const [gate, up] = [normals([T, D], 8), normals([T, D], 9)];
    const fn = (left: tf.Tensor2D, right: tf.Tensor2D, ...parts: tf.Tensor2D[]): tf.Tensor[] => [
      secondHalf(left, right, ...parts),
      multiplied(swiglu(left, right), solid(weightOf(parts)), MATRIX),
    ];
    const [apart, together] = await run(fn, gate, up, base, a, b);
    expect(apart!.values).toBeAllClose(together!.values, {rtol: 1e-5, atol: 1e-5});
  });

  onEveryEngine('has the gradient of finite differences, for rows, base and both factors', async (engine) => {
    await checkGradients(engine, product, [x, base, a, b]);
    await checkGradients(engine, secondHalf, [normals([T, D], 8), normals([T, D], 9), base, a, b]);
  });

  onEveryEngine('has the gradient of finite differences by expert', (engine) =>
    checkGradients(engine, byExpert, [x, ...stacked]),
  );

  onEveryEngine('keeps its term when leading axes are reshaped', async ({run}) => {
    const fn = (...parts: tf.Tensor3D[]): tf.Tensor[] => {
      const flat = mapWeight(weightOf(parts), (part) => tf.reshape(part, [1, ...part.shape]));
      return [tf.reshape(solid(flat), [E, D, F]), solid(weightOf(parts))];
    };
    const [flat, plain] = await run(fn, ...stacked);
    expect(flat!.values).toEqual(plain!.values);
  });
});

describe('dropout of a low-rank term', () => {
  const ones = normals([40, 50], 1);
  ones.values.fill(1);
  const [zero, eye, sum] = [normals([50, 1], 2), normals([50, 1], 3), normals([1, 1], 4)];
  zero.values.fill(0);
  eye.values.fill(1);
  sum.values.fill(1 / SCALE);
  /** The sum of each row's kept numbers. */
  const kept = (rows: tf.Tensor2D, seed_2: tf.Tensor1D, ...parts: tf.Tensor2D[]): tf.Tensor =>
    project(rows, weightOf(parts, {rate: 0.25, seed_2}), MATRIX);

  onEveryEngine('drops its share, scales the rest up, and draws the same by the same seed', async ({run}) => {
    const fn = (rows: tf.Tensor2D, ...rest: tf.Tensor[]): tf.Tensor[] => {
      const [first, second, ...parts] = rest as [tf.Tensor1D, tf.Tensor1D, ...tf.Tensor2D[]];
      return [kept(rows, first, ...parts), kept(rows, first, ...parts), kept(rows, second, ...parts)];
    };
    const [once, again, other] = await run(fn, ones, ints([2], [1, 2]), ints([2], [1, 3]), zero, eye, sum);
    expect(again!.values).toEqual(once!.values);
    expect(other!.values).not.toEqual(once!.values);
    const mean = Array.from(once!.values).reduce((total, value) => total + value, 0) / 2000;
    expect(mean, '2000 numbers, of standard deviation 0.6').toBeGreaterThan(0.95);
    expect(mean).toBeLessThan(1.05);
    const wholes = Array.from(once!.values, (value) => value * 0.75);
    expect(wholes).toBeAllClose(wholes.map(Math.round), {rtol: 0, atol: 1e-3});
  });
});
