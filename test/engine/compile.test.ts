import {describe, expect} from 'vitest';
import {compile} from '../../src/engine/compile.js';
import {liveTensors} from '../../src/engine/memory.js';
import {TF} from '../../src/engine/native/dtype.js';
import {getEngine} from '../../src/engine/state.js';
import {expectNoLeak, onEngine, onEveryEngine, onTensorFlow} from '../support/engines.js';
import {normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

/** A bit of everything: matmul, broadcasting, reductions, a comparison, integers, a gradient. */
function program(x: tf.Tensor2D, w: tf.Tensor2D) {
  const y = tf.matMul(x, w).add(1).relu();
  const choice = tf.argMax(y, 1);
  const gradient = tf.grad((t: tf.Tensor) => tf.logSumExp(tf.matMul(x, t as tf.Tensor2D), 1).sum())(w);
  return {y, choice, nested: {gradient, more: [tf.where(tf.greater(y, 1), y, tf.zerosLike(y)), tf.softmax(y)]}};
}

/** On wasm `compile` runs op by op: its laws hold there too. */
const compiledEngines = (name: string, law: () => Promise<void>): void => {
  onEngine('tensorflow-compiled', name, law);
  onEngine('wasm', name, law);
};

describe('a compiled function', () => {
  onEngine('tensorflow-compiled', 'gives what the same program gives op by op', async ({run}) => {
    const [x, w] = [normals([4, 3], 1), normals([3, 5], 2)];
    const compiled = await run(program, x, w);
    const eager = tf.tidy(() => {
      const result = program(tf.tensor2d(x.values, [4, 3]), tf.tensor2d(w.values, [3, 5]));
      const {y, choice, nested} = result;
      return [y, choice, nested.gradient, ...nested.more].map((tensor) => Array.from(tensor.dataSync()));
    });
    for (const [i, {values}] of compiled.entries()) expect(values).toBeAllClose(eager[i]!);
  });

  compiledEngines('returns records as its body nests them', async () => {
    await expectNoLeak(async () => {
      const fn = compile((x: tf.Tensor) => ({sum: tf.sum(x), parts: [tf.neg(x), {twice: tf.mul(x, 2)}] as const}));
      const x = tf.tensor1d([1, 2, 3]);
      const {sum, parts} = await fn(x);
      expect(sum.dataSync()).toBeAllClose([6]);
      expect(parts[0].dataSync()).toBeAllClose([-1, -2, -3]);
      expect(parts[1].twice.dataSync()).toBeAllClose([2, 4, 6]);
      tf.dispose([x, sum, parts[0], parts[1].twice]);
      fn.dispose();
    });
  });

  onTensorFlow('is traced once for each combination of shapes and dtypes', async () => {
    let traces = 0;
    const fn = compile((x: tf.Tensor, y: tf.Tensor) => {
      traces++;
      return tf.add(x, y);
    });
    const call = async (x: tf.Tensor, y: tf.Tensor): Promise<void> => tf.dispose([x, y, await fn(x, y)]);
    for (let i = 0; i < 3; i++) await call(tf.ones([2]), tf.ones([2]));
    expect([traces, fn.numFunctions()]).toEqual([1, 1]);
    await call(tf.ones([3]), tf.ones([3]));
    expect([traces, fn.numFunctions()]).toEqual([2, 2]);
    await call(tf.ones([2]), tf.ones([2]));
    await call(tf.ones([2], 'int32'), tf.ones([2], 'int32'));
    expect([traces, fn.numFunctions()]).toEqual([3, 3]);
    expect(fn.numNodes()).toBeGreaterThanOrEqual(9); // two arguments and a sum, three times
    fn.dispose();
    expect(fn.numFunctions()).toBe(0);
  });

  onTensorFlow('tells shapes apart whose numbers read alike', async () => {
    const fn = compile((x: tf.Tensor, y: tf.Tensor) => [tf.sum(x), tf.sum(y)]);
    const call = async (x: tf.Tensor, y: tf.Tensor): Promise<void> => tf.dispose([x, y, ...(await fn(x, y))]);
    await call(tf.ones([1, 2]), tf.ones([3]));
    await call(tf.ones([1]), tf.ones([2, 3]));
    expect(fn.numFunctions()).toBe(2);
    fn.dispose();
  });

  onTensorFlow('computes what it calls as functions, twice and of several shapes, as it does op by op', async () => {
    const unary = [tf.abs, tf.cos, tf.exp, tf.rsqrt, tf.sigmoid, tf.sign, tf.sqrt, tf.tanh] as ((
      x: tf.Tensor,
    ) => tf.Tensor)[];
    const inTrace: number[][] = [];
    const all = (x: tf.Tensor): tf.Tensor[] => {
      const ops = x.rank === 0 ? unary : [...unary, (y: tf.Tensor) => tf.softmax(y)];
      const results = ops.flatMap((op) => [op(x), op(tf.add(x, 1)), tf.sum(op(x))]);
      inTrace.push(...results.map(({shape}) => shape));
      return results;
    };
    for (const shape of [[], [3], [2, 3], [2, 1, 3]]) {
      await expectNoLeak(async () => {
        const fn = compile(all);
        const x = tf.tensor(
          Array.from({length: tf.util.sizeFromShape(shape)}, (_, i) => i + 0.5),
          shape,
        );
        const compiled = await fn(x);
        const eager = tf.tidy(() => all(x).map((y) => [...y.dataSync()]));
        for (const [i, y] of compiled.entries()) expect(y.dataSync()).toBeAllClose(eager[i]!, {rtol: 1e-5});
        expect(inTrace.slice(0, compiled.length)).toEqual(compiled.map((y) => y.shape));
        inTrace.length = 0;
        tf.dispose([x, ...compiled]);
        fn.dispose();
      });
    }
    const engine = getEngine();
    if (engine.kind !== 'tensorflow') throw new Error('TensorFlow only');
    const called = ['Abs', 'Cos', 'Exp', 'Rsqrt', 'Sigmoid', 'Sign', 'Softmax', 'Sqrt', 'Tanh'];
    expect([...engine.backend.binding.functions]).toEqual(
      expect.arrayContaining(called.map((op) => `shared_${op}_${TF.FLOAT}`)),
    );
  });

  compiledEngines('returns an input, and the same tensor twice, as tensors of their own', async () => {
    await expectNoLeak(async () => {
      const fn = compile((x: tf.Tensor) => {
        const y = tf.neg(x);
        return [x, y, y];
      });
      const x = tf.tensor1d([1, 2]);
      const [same, first, second] = (await fn(x)) as [tf.Tensor, tf.Tensor, tf.Tensor];
      same.dispose();
      first.dispose();
      expect(x.dataSync()).toBeAllClose([1, 2]);
      expect(second.dataSync()).toBeAllClose([-1, -2]);
      tf.dispose([x, second]);
      fn.dispose();
    });
  });

  compiledEngines('takes in tensors from outside, uploaded or not, and leaves them usable', async () => {
    await expectNoLeak(async () => {
      const fresh = tf.tensor1d([1, 2]); // never used: its values are still on the host
      const used = tf.tensor1d([10, 20]);
      tf.tidy(() => tf.neg(used).dataSync());
      const fn = compile((x: tf.Tensor) => [tf.add(tf.add(x, fresh), used), fresh, used]);
      const x = tf.tensor1d([100, 200]);
      for (let i = 0; i < 2; i++) {
        const [sum, a, b] = (await fn(x)) as [tf.Tensor, tf.Tensor, tf.Tensor];
        expect(sum.dataSync()).toBeAllClose([111, 222]);
        expect([...a.dataSync(), ...b.dataSync()]).toBeAllClose([1, 2, 10, 20]);
        tf.dispose([sum, a, b]);
      }
      expect(tf.tidy(() => tf.add(fresh, used).dataSync())).toBeAllClose([11, 22]);
      tf.dispose([fresh, used, x]);
      fn.dispose();
    });
  });

  compiledEngines('makes constants of host values of every kind', async () => {
    const fn = compile((x: tf.Tensor) => [
      tf.add(x, tf.tensor1d([0.5, 1.5])),
      tf.gather(x, tf.tensor1d([1, 0, 1], 'int32')),
      tf.where(tf.tensor1d([true, false], 'bool'), x, tf.scalar(9)),
      tf.fill([2], 7),
      tf.range(0, 3, 1, 'int32'),
    ]);
    const x = tf.tensor1d([1, 2]);
    const results = (await fn(x)).map((tensor) => Array.from(tensor.dataSync()));
    expect(results).toEqual([
      [1.5, 3.5],
      [2, 1, 2],
      [1, 9],
      [7, 7],
      [0, 1, 2],
    ]);
  });

  onTensorFlow('leaves tensors of other shapes alone while it runs: eager work goes on meanwhile', async () => {
    const fn = compile((x: tf.Tensor2D) => tf.sum(tf.matMul(tf.matMul(x, x), x)));
    const x = tf.fill([512, 512], 1 / 512) as tf.Tensor2D;
    const running = fn(x);
    const sums = Array.from({length: 20}, (_, i) => tf.tidy(() => tf.sum(tf.fill([10], i)).dataSync()[0]));
    expect(sums).toEqual(Array.from({length: 20}, (_, i) => 10 * i));
    const result = await running;
    expect(result.dataSync()).toBeAllClose([512], {rtol: 1e-3});
    tf.dispose([x, result]);
    fn.dispose();
  });

  onTensorFlow('may run several times at once', async () => {
    const fn = compile((x: tf.Tensor) => tf.mul(x, x));
    const inputs = [1, 2, 3, 4].map((v) => tf.scalar(v));
    const results = await Promise.all(inputs.map((x) => fn(x)));
    expect(results.map((tensor) => tensor.dataSync()[0])).toEqual([1, 4, 9, 16]);
    tf.dispose([...inputs, ...results]);
    fn.dispose();
  });

  compiledEngines('leaves no tensor behind when its body throws', async () => {
    await expectNoLeak(async () => {
      const x = tf.tensor1d([1, 2]);
      const fn = compile((t: tf.Tensor) => {
        tf.neg(tf.neg(t));
        throw new Error(`refused after ${t.rank}`);
      });
      await expect(fn(x)).rejects.toThrow('refused after 1');
      expect(tf.tidy(() => tf.neg(x).dataSync())).toBeAllClose([-1, -2]);
      x.dispose();
    });
  });
});

describe('liveTensors', () => {
  onEveryEngine('counts what was made and not disposed', () => {
    const before = liveTensors();
    const x = tf.tidy(() => tf.neg(tf.ones([2])));
    const {tfjs, native} = liveTensors();
    expect([tfjs - before.tfjs, native - before.native]).toEqual([1, 1]);
    x.dispose();
    expect(liveTensors()).toEqual(before);
  });
});
