import {describe, expect, it} from 'vitest';
import {ropeAngles, rotate} from '../../src/op/rope.js';
import {onEveryEngine} from '../support/engines.js';
import {checkGradients} from '../support/gradients.js';
import {dot, floats, type Host, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

const [S, d] = [5, 6];
const frequencies = Float32Array.from({length: d / 2}, (_, j) => 10_000 ** ((-2 * j) / d));
const {cos, sin} = ropeAngles(S, frequencies);
const table: readonly [Host, Host] = [floats([S, d / 2], cos), floats([S, d / 2], sin)];
const fn = (x: tf.Tensor, c: tf.Tensor, s: tf.Tensor): tf.Tensor => rotate(x, {cos: c, sin: s});

/** Every pair (j, j + d/2) as a complex number times exp(i·angle). */
function turned({values}: Host): number[] {
  return Array.from(values, (_, index) => {
    const [j, s] = [index % d, Math.floor(index / d) % S];
    const pair = j % (d / 2);
    const angle = s / 10_000 ** ((2 * pair) / d);
    const start = index - j;
    const [re, im] = [values[start + pair]!, values[start + pair + d / 2]!];
    return j < d / 2 ? re * Math.cos(angle) - im * Math.sin(angle) : re * Math.sin(angle) + im * Math.cos(angle);
  });
}

describe('rotate', () => {
  onEveryEngine('turns pairs (j, j + d/2) by position · theta^(-2j/d)', async ({run}) => {
    const x = normals([2, 3, S, d], 1);
    const [result] = await run(fn, x, ...table);
    expect(result!.shape).toEqual(x.shape);
    expect(result!.values).toBeAllClose(turned(x));
  });

  onEveryEngine('is undone by the negated sines', async ({run}) => {
    const x = normals([2, S, d], 1);
    const back = (t: tf.Tensor, c: tf.Tensor, s: tf.Tensor): tf.Tensor =>
      rotate(rotate(t, {cos: c, sin: s}), {cos: c, sin: s.neg()});
    const [result] = await run(back, x, ...table);
    expect(result!.values).toBeAllClose(x.values);
  });

  onEveryEngine('keeps products of a query and a key the same when both positions move equally', async ({run}) => {
    const wide = ropeAngles(12, frequencies);
    const [q, k] = [normals([1, d], 1), normals([1, d], 2)];
    const at = async (x: Host, position: number): Promise<Host> => {
      const part = (values: Float32Array): Host =>
        floats([1, d / 2], values.subarray((position * d) / 2, ((position + 1) * d) / 2));
      const [result] = await run(fn, x, part(wide.cos), part(wide.sin));
      return result!;
    };
    const near = dot((await at(q, 5)).values, (await at(k, 2)).values);
    const far = dot((await at(q, 11)).values, (await at(k, 8)).values);
    expect(near).toBeAllClose(far, {rtol: 1e-5, atol: 1e-5});
  });

  onEveryEngine('takes a table of its own for each row of a batch', async ({run}) => {
    const x = normals([2, 3, S, d], 1);
    const own = table.map(({values}) => floats([2, 1, S, d / 2], [...values, ...values])) as [Host, Host];
    const [result] = await run(fn, x, ...own);
    expect(result!.values).toBeAllClose(turned(x));
  });

  onEveryEngine('has the gradient of finite differences', (engine) => {
    const constant = (x: tf.Tensor): tf.Tensor =>
      rotate(x, {cos: tf.tensor(cos, [S, d / 2]), sin: tf.tensor(sin, [S, d / 2])});
    return checkGradients(engine, constant, [normals([2, S, d], 1)]);
  });
});

describe('ropeAngles', () => {
  it('starts at angle zero and turns the first pair by one radian a position', () => {
    expect(cos.subarray(0, d / 2)).toBeAllClose([1, 1, 1]);
    expect(sin.subarray(0, d / 2)).toBeAllClose([0, 0, 0]);
    for (let s = 0; s < S; s++) expect(sin[(s * d) / 2]).toBeAllClose(Math.sin(s));
  });

  it('grow by the amplitude', () => {
    const grown = ropeAngles(S, frequencies, 1.5);
    expect(grown.cos).toBeAllClose(Array.from(cos, (value) => 1.5 * value));
    expect(grown.sin).toBeAllClose(Array.from(sin, (value) => 1.5 * value));
  });
});
