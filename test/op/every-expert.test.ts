import {describe, expect} from 'vitest';
import {fromEveryExpert, toEveryExpert} from '../../src/op/every-expert.js';
import {solid, type Weight} from '../../src/op/weight.js';
import {onEveryEngine} from '../support/engines.js';
import {checkGradients} from '../support/gradients.js';
import {normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';

/** T rows, E experts, D and F columns, rank r. */
const [T, E, D, F, r] = [6, 3, 5, 4, 2];
const x = normals([T, D], 1);
const h = normals([T, E, F], 2);
const into = [normals([E, D, F], 3), normals([E, D, r], 4), normals([E, r, F], 5)] as const;
const back = [normals([E, F, D], 6), normals([E, F, r], 7), normals([E, r, D], 8)] as const;

/** A stack alone, or with a low-rank term. */
function weightOf([base, a, b]: readonly tf.Tensor[]): Weight<tf.Tensor3D> {
  if (!a || !b) return base as tf.Tensor3D;
  return {base: base as tf.Tensor3D, a: a as tf.Tensor3D, b: b as tf.Tensor3D, scale: 1.5, dropout: null};
}

const to = (rows: tf.Tensor, ...parts: tf.Tensor[]): tf.Tensor => toEveryExpert(rows as tf.Tensor2D, weightOf(parts));
const from = (hidden: tf.Tensor, ...parts: tf.Tensor[]): tf.Tensor =>
  fromEveryExpert(hidden as tf.Tensor3D, weightOf(parts));

describe.each([
  ['stacked matrices', 1],
  ['matrices with low-rank terms', 3],
] as const)('%s', (_, numParts) => {
  const [wide, narrow] = [into.slice(0, numParts), back.slice(0, numParts)];

  onEveryEngine('multiply every row by every expert', async ({run}) => {
    const fn = (rows: tf.Tensor2D, ...parts: tf.Tensor[]): tf.Tensor[] => {
      const whole_EDF = solid(weightOf(parts));
      const oneByOne = Array.from({length: E}, (_unused, e) =>
        tf.matMul(rows, tf.reshape(tf.slice(whole_EDF, [e, 0, 0], [1, D, F]), [D, F])),
      );
      return [to(rows, ...parts), tf.stack(oneByOne, 1)];
    };
    const [all, each] = await run(fn, x, ...wide);
    expect(all!.values).toBeAllClose(each!.values, {rtol: 1e-5, atol: 1e-5});
  });

  onEveryEngine('add up what every expert makes of its own', async ({run}) => {
    const fn = (hidden: tf.Tensor3D, ...parts: tf.Tensor[]): tf.Tensor[] => {
      const whole_EFD = solid(weightOf(parts));
      const oneByOne = Array.from({length: E}, (_unused, e) =>
        tf.matMul(
          tf.reshape(tf.slice(hidden, [0, e, 0], [T, 1, F]), [T, F]),
          tf.reshape(tf.slice(whole_EFD, [e, 0, 0], [1, F, D]), [F, D]),
        ),
      );
      return [from(hidden, ...parts), tf.addN(oneByOne)];
    };
    const [all, each] = await run(fn, h, ...narrow);
    expect(all!.values).toBeAllClose(each!.values, {rtol: 1e-5, atol: 1e-5});
  });

  onEveryEngine('have the gradient of finite differences', async (engine) => {
    await checkGradients(engine, to, [x, ...wide]);
    await checkGradients(engine, from, [h, ...narrow]);
  });
});
