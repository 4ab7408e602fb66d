import {describe, expect} from 'vitest';
import {routerLogits} from '../../src/model/router.js';
import {matMul} from '../../src/op/mat-mul.js';
import {onEngine, onEveryEngine, type TestEngine} from '../support/engines.js';
import {checkGradients} from '../support/gradients.js';
import {floats, type Host, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

const TRANSPOSES = [
  {transposeA: false, transposeB: false},
  {transposeA: true, transposeB: false},
  {transposeA: false, transposeB: true},
  {transposeA: true, transposeB: true},
] as const;
type Transposes = (typeof TRANSPOSES)[number];

/** Operands of `op(a)·op(b)`: 3 x 5 by 5 x 4, in two batches if asked. */
function operands(batch: readonly number[], {transposeA, transposeB}: Transposes): [Host, Host] {
  const a = normals([...batch, ...(transposeA ? [5, 3] : [3, 5])], 1);
  const b = normals([...batch, ...(transposeB ? [4, 5] : [5, 4])], 2);
  return [a, b];
}

/** The definition, one number at a time in float64. */
function product(a: Host, b: Host, {transposeA, transposeB}: Transposes): number[] {
  const [m, n, k] = [3, 4, 5];
  const result: number[] = [];
  for (let batch = 0; batch < a.values.length / (m * k); batch++) {
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let l = 0; l < k; l++) {
          const x = a.values[batch * m * k + (transposeA ? l * m + i : i * k + l)]!;
          sum += x * b.values[batch * k * n + (transposeB ? j * k + l : l * n + j)]!;
        }
        result.push(sum);
      }
    }
  }
  return result;
}

describe('matMul', () => {
  for (const batch of [[], [2], [2, 3]]) {
    for (const transposes of TRANSPOSES) {
      const what = `${batch.length + 2}-D, transposeA ${transposes.transposeA}, transposeB ${transposes.transposeB}`;
      const fn = (a: tf.Tensor, b: tf.Tensor): tf.Tensor => matMul(a, b, transposes);

      onEveryEngine(`equals the sum of products: ${what}`, async ({run}) => {
        const [a, b] = operands(batch, transposes);
        const [result] = await run(fn, a, b);
        expect(result!.shape).toEqual([...batch, 3, 4]);
        expect(result!.values).toBeAllClose(product(a, b, transposes), {rtol: 1e-5, atol: 1e-5});
      });

      onEveryEngine(`has the gradient of finite differences: ${what}`, (engine) =>
        checkGradients(engine, fn, operands(batch, transposes)),
      );
    }
  }
});

describe('matMul compiled with bfloat16', () => {
  for (const batch of [[], [2]]) {
    onEngine('tensorflow-compiled', `rounds its inputs to bfloat16, ${batch.length + 2}-D`, async (engine) => {
      const [a, b] = operands(batch, TRANSPOSES[0]);
      const values = await runNarrow(engine, a, b);
      const exact = product(rounded(a), rounded(b), TRANSPOSES[0]);
      // The product itself comes out as bfloat16: half a unit in its eighth bit.
      expect(values).toBeAllClose(exact, {rtol: 2 ** -8, atol: 1e-6});
      expect(values).not.toBeAllClose(product(a, b, TRANSPOSES[0]), {rtol: 1e-4, atol: 1e-4});
    });
  }
});

describe('routers compiled with bfloat16', () => {
  onEngine('tensorflow-compiled', 'have float32 logits and gradients all the same', async (engine) => {
    const [x, router, dy] = [normals([6, 16], 1), normals([16, 4], 2), normals([6, 4], 3)];
    const fn = (...given: tf.Tensor[]): tf.Tensor[] => {
      const [x_TD, router_DE, dy_TE] = given as [tf.Tensor2D, tf.Tensor2D, tf.Tensor2D];
      const logits = (a: tf.Tensor2D, b: tf.Tensor2D): tf.Tensor2D =>
        routerLogits(a, {router: b, routerUp: null, routerOut: null});
      const gradients = tf.grads((a, b) => logits(a as tf.Tensor2D, b as tf.Tensor2D))([x_TD, router_DE], dy_TE);
      return [logits(x_TD, router_DE), ...gradients];
    };
    const [narrow, wide] = [engine.prepare(fn, {precision: 'bfloat16'}), engine.prepare(fn)];
    const [found, expected] = [await narrow(x, router, dy), await wide(x, router, dy)];
    for (const [i, {values}] of found.entries()) expect([...values]).toEqual([...expected[i]!.values]);
    for (const each of [narrow, wide]) each.dispose();
  });

  onEngine(
    'tensorflow-compiled',
    'have them with a low-rank term, too, where lengths are divided out',
    async (engine) => {
      const given = [normals([6, 16], 1), normals([16, 4], 2), normals([16, 2], 3), normals([2, 4], 4)];
      const fn = (...[x_TD, base, a, b]: tf.Tensor[]): tf.Tensor[] => {
        const cosine = {router: 'cosine', experts: 4, temperature: 0.1} as const;
        const router = {...({base, a, b} as {base: tf.Tensor; a: tf.Tensor; b: tf.Tensor}), scale: 2, dropout: null};
        return [routerLogits(x_TD as tf.Tensor2D, {router, routerUp: null, routerOut: null}, cosine)];
      };
      const [narrow, wide] = [engine.prepare(fn, {precision: 'bfloat16'}), engine.prepare(fn)];
      const [[found], [expected]] = [await narrow(...given), await wide(...given)];
      expect([...found!.values]).toEqual([...expected!.values]);
      for (const each of [narrow, wide]) each.dispose();
    },
  );
});

async function runNarrow(engine: TestEngine, a: Host, b: Host): Promise<ArrayLike<number>> {
  const narrow = engine.prepare((x: tf.Tensor, y: tf.Tensor) => matMul(x, y), {precision: 'bfloat16'});
  const [result] = await narrow(a, b);
  narrow.dispose();
  return result!.values;
}

/** Nearest bfloat16, ties to even: the upper half of the float32 bits. */
function rounded({shape, values}: Host): Host {
  const bits = new Uint32Array(Float32Array.from(values).buffer);
  const half = bits.map((word) => (word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000);
  return floats(shape, new Float32Array(half.buffer));
}
