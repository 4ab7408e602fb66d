import {describe, expect} from 'vitest';
import {type ActivitySums, fitActivity, fitSums, predictedProfiles} from '../../src/downcycle/ridge.js';
import {createRng} from '../../src/util/rng.js';
import {onEveryEngine} from '../support/engines.js';
import * as tf from '../support/tfjs.js';

type Rows = readonly (readonly number[])[];

/** Sums over tokens, of inputs and activities a row each. */
function sumsOf(x_TD: Rows, a_TF: Rows): ActivitySums {
  const columns = (rows: Rows) => Array.from(rows[0] ?? [], (_, i) => rows.map((row) => row[i]!));
  const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, value, t) => sum + value * b[t]!, 0);
  const [x_DT, a_FT, one_T] = [columns(x_TD), columns(a_TF), x_TD.map(() => 1)];
  return {
    count: x_TD.length,
    x_D: Float64Array.from(x_DT, (x) => dot(x, one_T)),
    xx_DD: Float64Array.from(x_DT.flatMap((x) => x_DT.map((y) => dot(x, y)))),
    a_F: Float64Array.from(a_FT, (a) => dot(a, one_T)),
    xa_DF: Float64Array.from(x_DT.flatMap((x) => a_FT.map((a) => dot(x, a)))),
  };
}

/** [rows, columns] of normal numbers. */
function normals(rows: number, columns: number, seed: string): number[][] {
  const rng = createRng(3, seed);
  return Array.from({length: rows}, () => Array.from({length: columns}, () => rng.normal()));
}

describe('the ridge regression of activity', () => {
  onEveryEngine('holds weights down by 0.3 of the mean variance', async () => {
    // x1 is 0 or 2 (variance 1), x2 is 1 or 5 (variance 4), independent; a = 3 x1 + x2. λ = 0.3 · 2.5 = 0.75.
    const tokens = [0, 2].flatMap((x) => [1, 5].map((y) => ({x: [x, y], a: [3 * x + y]})));
    const {weight_DK, intercept_K} = fitActivity(
      sumsOf(
        tokens.map(({x}) => x),
        tokens.map(({a}) => a),
      ),
    );
    const [first, second] = [3 / 1.75, 4 / 4.75];
    expect(await weight_DK.data()).toBeAllClose([first, second], {rtol: 1e-6});
    expect(await intercept_K.data()).toBeAllClose([6 - first - 3 * second], {rtol: 1e-6}); // the mean of a is 6
    tf.dispose([weight_DK, intercept_K]);
  });

  // More neurons, and more inputs, than are looked at together.
  const [T, D, F] = [40, 290, 300];
  const [x_TD, a_TF] = [normals(T, D, 'inputs'), normals(T, F, 'activities')];
  const sums = sumsOf(x_TD, a_TF);

  onEveryEngine('of sums of neurons is the sum of theirs', async () => {
    const {weight_DK: weight_DF, intercept_K: intercept_F} = fitActivity(sums);
    const member_KF = tf.tensor2d(
      [0, 1].flatMap((k) => Array.from({length: F}, (_, f) => (f % 3 === k ? 1 : 0))),
      [2, F],
    );
    const {weight_DK, intercept_K} = fitSums(sums, member_KF);
    const expected_DK = tf.matMul(weight_DF, member_KF, false, true);
    expect(await weight_DK.data()).toBeAllClose(Array.from(await expected_DK.data()), {atol: 1e-4});
    const expected_K1 = tf.matMul(member_KF, tf.reshape(intercept_F, [F, 1]));
    expect(await intercept_K.data()).toBeAllClose(Array.from(await expected_K1.data()), {atol: 1e-4});
    tf.dispose([weight_DF, intercept_F, member_KF, weight_DK, intercept_K, expected_DK, expected_K1]);
  });

  onEveryEngine('makes points as far apart as predictions vary apart over the text', async () => {
    const point_FD = predictedProfiles(sums, null);
    const {weight_DK: weight_DF, intercept_K: intercept_F} = fitActivity(sums);
    const foreseen_TF = tf.matMul(tf.tensor2d(x_TD as number[][]), weight_DF) as tf.Tensor2D;
    const [points, foreseen] = [await point_FD.array(), await foreseen_TF.array()];
    for (const [one, other] of [
      [0, 1],
      [17, 299],
      [255, 256],
    ] as const) {
      const distance = Math.hypot(...points[one]!.map((value, d) => value - points[other]![d]!));
      const apart_T = foreseen.map((row) => row[one]! - row[other]!);
      const mean = apart_T.reduce((sum, value) => sum + value, 0) / T;
      const variance = apart_T.reduce((sum, value) => sum + (value - mean) ** 2, 0) / T;
      expect(distance).toBeCloseTo(Math.sqrt(variance), 3);
    }
    tf.dispose([point_FD, weight_DF, intercept_F, foreseen_TF]);
  });

  onEveryEngine('projects points as it is told to', async () => {
    const direction_DP = tf.tensor2d(normals(D, 5, 'directions'));
    const [point_FD, projected_FP] = [predictedProfiles(sums, null), predictedProfiles(sums, direction_DP)];
    const expected_FP = tf.matMul(point_FD, direction_DP);
    expect(await projected_FP.data()).toBeAllClose(Array.from(await expected_FP.data()), {atol: 1e-4});
    tf.dispose([direction_DP, point_FD, projected_FP, expected_FP]);
  });
});
