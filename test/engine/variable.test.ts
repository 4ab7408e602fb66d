import {describe, expect} from 'vitest';
import {compile} from '../../src/engine/compile.js';
import {liveTensors} from '../../src/engine/memory.js';
import {createVariable, type Variable} from '../../src/engine/variable.js';
import {expectNoLeak, onEveryEngine, onTensorFlow} from '../support/engines.js';
import * as tf from '../support/tfjs.js';

const valuesOf = (variable: Variable): number[] => tf.tidy(() => Array.from(variable.read().dataSync()));

describe('a variable', () => {
  onEveryEngine('holds a copy of its first values', async () => {
    await expectNoLeak(() => {
      const values = Float32Array.of(1, 2, 3, 4);
      const variable = createVariable('w', [2, 2], values);
      values.fill(0);
      expect(valuesOf(variable)).toEqual([1, 2, 3, 4]);
      variable.dispose();
    });
  });

  onEveryEngine('keeps what a read gave when it is assigned afterwards', () => {
    const variable = createVariable('w', [2], Float32Array.of(1, 2));
    const [before, next] = [variable.read(), tf.tensor1d([3, 4])];
    variable.assign(next);
    next.dispose();
    expect(Array.from(before.dataSync())).toEqual([1, 2]);
    expect(valuesOf(variable)).toEqual([3, 4]);
    before.dispose();
    variable.dispose();
  });

  onEveryEngine('is not shared with another of the same name', () => {
    const [a, b] = [createVariable('w', [1], Float32Array.of(1)), createVariable('w', [1], Float32Array.of(2))];
    tf.tidy(() => a.assign(tf.tensor1d([5])));
    expect([valuesOf(a), valuesOf(b)]).toEqual([[5], [2]]);
    a.dispose();
    b.dispose();
  });

  onEveryEngine('changes inside a compiled function, for every call and for eager reads', async () => {
    await expectNoLeak(async () => {
      const variable = createVariable('w', [2], Float32Array.of(1, 2));
      const step = compile((x: tf.Tensor) => {
        variable.assign(tf.add(variable.read(), x));
        return tf.sum(x);
      });
      const x = tf.tensor1d([10, 20]);
      for (let i = 0; i < 3; i++) tf.dispose(await step(x));
      expect(valuesOf(variable)).toEqual([31, 62]);
      tf.tidy(() => variable.assign(tf.tensor1d([0, 0])));
      tf.dispose(await step(x));
      expect(valuesOf(variable)).toEqual([10, 20]);
      x.dispose();
      step.dispose();
      variable.dispose();
    });
  });

  onEveryEngine('has no value once released, until the next one is assigned', async () => {
    await expectNoLeak(async () => {
      const variable = createVariable('w', [2], Float32Array.of(1, 2));
      const twice = compile(() => tf.mul(variable.read(), 2));
      tf.dispose(await twice());
      const before = variable.read();
      variable.release();
      expect(Array.from(before.dataSync())).toEqual([1, 2]);
      before.dispose();
      expect(() => variable.read()).toThrow(/Variable w was used at .*variable\.test\.ts:\d+.* after it was released/);
      variable.release();
      tf.tidy(() => variable.assign(tf.tensor1d([3, 4])));
      expect(valuesOf(variable)).toEqual([3, 4]);
      const doubled = await twice();
      expect(Array.from(await doubled.data())).toEqual([6, 8]);
      doubled.dispose();
      variable.release();
      twice.dispose();
      variable.dispose();
      expect(() => variable.release()).toThrow('after it was disposed');
    });
  });

  onEveryEngine('is read and assigned in program order', async () => {
    const variable = createVariable('w', [1], Float32Array.of(1));
    const step = compile((x: tf.Tensor) => {
      const first = variable.read();
      variable.assign(tf.mul(first, x));
      const second = variable.read();
      variable.assign(tf.add(second, 1));
      return [first, second, variable.read()];
    });
    const x = tf.tensor1d([10]);
    const read = async (): Promise<number[]> => {
      const results = await step(x);
      const numbers = results.map((tensor) => tensor.dataSync()[0]!);
      tf.dispose(results);
      return numbers;
    };
    expect(await read()).toEqual([1, 10, 11]);
    expect(await read()).toEqual([11, 110, 111]);
    x.dispose();
    step.dispose();
    variable.dispose();
  });

  onEveryEngine('swapped with another takes the old value of each', async () => {
    const [a, b] = [createVariable('a', [1], Float32Array.of(1)), createVariable('b', [1], Float32Array.of(2))];
    const swap = compile((x: tf.Tensor) => {
      const [old, other] = [a.read(), b.read()];
      a.assign(other);
      b.assign(old);
      return tf.neg(x);
    });
    const x = tf.scalar(0);
    tf.dispose([await swap(x), x]);
    expect([valuesOf(a), valuesOf(b)]).toEqual([[2], [1]]);
    swap.dispose();
    a.dispose();
    b.dispose();
  });

  onEveryEngine('refuses values of another shape, naming itself', () => {
    const variable = createVariable('layers.0.norm', [2], Float32Array.of(1, 2));
    const wrong = tf.ones([3]);
    expect(() => variable.assign(wrong)).toThrow(/layers\.0\.norm.*3.*2/);
    expect(() => createVariable('w', [2], new Float32Array(3))).toThrow('variable w needs 2 values, got 3');
    wrong.dispose();
    variable.dispose();
  });

  onEveryEngine('disposed is an error that names it and the line', () => {
    const variable = createVariable('layers.0.norm', [2], Float32Array.of(1, 2));
    const before = liveTensors();
    variable.dispose();
    const pattern = /Variable layers\.0\.norm was used at .*variable\.test\.ts:\d+:\d+ after it was disposed/;
    expect(() => variable.read()).toThrow(pattern);
    expect(() => variable.dispose()).toThrow(pattern);
    expect(liveTensors().native).toBe(before.native - 1);
  });

  onTensorFlow('keeps its shape inside a compiled function', async () => {
    const variable = createVariable('w', [2, 3], new Float32Array(6));
    const shapes: number[][] = [];
    const fn = compile((x: tf.Tensor) => {
      shapes.push(variable.read().shape);
      return tf.neg(x);
    });
    const x = tf.scalar(0);
    tf.dispose([await fn(x), x]);
    expect(shapes).toEqual([[2, 3]]);
    fn.dispose();
    variable.dispose();
  });
});

describe('a train step', () => {
  onEveryEngine('leaves no tensor behind in 200 steps, and learns', async ({name}) => {
    const [w, m] = [
      createVariable('w', [8, 4], new Float32Array(32)),
      createVariable('m', [8, 4], new Float32Array(32)),
    ];
    const step = (x: tf.Tensor2D, y: tf.Tensor2D): tf.Tensor => {
      const {value, grads} = tf.valueAndGrads((t: tf.Tensor) =>
        tf.mean(tf.squaredDifference(tf.matMul(x, t as tf.Tensor2D), y)),
      )([w.read()]);
      m.assign(tf.add(tf.mul(m.read(), 0.9), grads[0]!));
      w.assign(tf.sub(w.read(), tf.mul(m.read(), 0.1)));
      return value;
    };
    const run =
      name === 'tensorflow-eager' ? async (...a: Parameters<typeof step>) => tf.tidy(() => step(...a)) : compile(step);
    const losses: number[] = [];
    const [x, y] = [tf.randomNormal([16, 8], 0, 1, 'float32', 7), tf.randomNormal([16, 4], 0, 1, 'float32', 8)];
    const one = async (): Promise<void> => {
      const loss = await run(x as tf.Tensor2D, y as tf.Tensor2D);
      losses.push(loss.dataSync()[0]!);
      loss.dispose();
    };
    await one(); // the first step uploads and compiles
    await expectNoLeak(async () => {
      for (let i = 0; i < 200; i++) await one();
    });
    expect(losses.at(-1)!).toBeLessThan(0.8 * losses[0]!);
    tf.dispose([x, y]);
    w.dispose();
    m.dispose();
  });
});
