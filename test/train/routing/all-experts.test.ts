import {describe, expect} from 'vitest';
import {type FfnLayout, SOFTMAX_ROUTING} from '../../../src/model/architecture.js';
import {moe} from '../../../src/model/moe.js';
import {allExperts} from '../../../src/train/routing/all-experts.js';
import {onEveryEngine} from '../../support/engines.js';
import {checkGradients} from '../../support/gradients.js';
import {type Host, normals} from '../../support/host.js';
import type * as tf from '../../support/tfjs.js';

const [T, D, E, F] = [6, 5, 4, 3];
const LAYOUT: Extract<FfnLayout, {kind: 'moe'}> = {
  ...({kind: 'moe', experts: E, topK: 1, expertWidth: F, sharedWidth: 0, selectionBias: false} as const),
  router: 'linear',
  expertBias: true,
};
const INPUTS = [
  [T, D],
  [D, E],
  [E, D, F],
  [E, D, F],
  [E, F, D],
  [E, D],
].map((shape, i) => normals(shape, i + 1)) as Hosts;
type Inputs = [tf.Tensor2D, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];
type Hosts = [Host, Host, Host, Host, Host, Host];

/** The layer with all experts at a temperature, or as the model routes by itself. */
const layer =
  (temperature: number | null) =>
  (...[x_TD, router, gate, up, down, expertBias]: Inputs) => {
    const tree = {
      router,
      routerUp: null,
      routerOut: null,
      bias: null,
      scale: null,
      shared: null,
      sharedGate: null,
      inner: null,
    };
    const params = {...tree, kind: 'moe', experts: {gate, up, down}, expertBias} as const;
    const chooser =
      temperature === null ? 'router' : (input: Parameters<typeof allExperts>[0]) => allExperts(input, temperature);
    return moe(x_TD, params, LAYOUT, SOFTMAX_ROUTING, 'dropless', chooser);
  };

const rowsOf = (values: ArrayLike<number>, width: number, first: number, count: number): number[][] =>
  Array.from({length: count}, (_, r) => Array.from({length: width}, (_unused, c) => values[first + r * width + c]!));
const times = (x: readonly number[], matrix: readonly number[][]): number[] =>
  matrix[0]!.map((_, j) => x.reduce((sum, value, i) => sum + value * matrix[i]![j]!, 0));

/** What an expert gives for a token, float64. */
function expert([, , gate, up, down, bias]: Hosts, token: readonly number[], e: number): number[] {
  const [g, u] = [gate, up].map(({values}) => times(token, rowsOf(values, F, e * D * F, D))) as [number[], number[]];
  const hidden = g.map((z, f) => (z / (1 + Math.exp(-z))) * u[f]!);
  return times(hidden, rowsOf(down.values, D, e * F * D, F)).map((value, d) => value + bias.values[e * D + d]!);
}

describe('all experts', () => {
  onEveryEngine('are weighed by a softmax over a temperature', async ({run}) => {
    const temperature = 0.5;
    const [y, load] = await run(
      (...given: tf.Tensor[]) => {
        const {y_TD, router} = layer(temperature)(...(given as Inputs));
        return [y_TD, router.load_E];
      },
      ...INPUTS,
    );
    const expected = rowsOf(INPUTS[0].values, D, 0, T).flatMap((token) => {
      const powers = times(token, rowsOf(INPUTS[1].values, E, 0, D)).map((logit) => Math.exp(logit / temperature));
      const total = powers.reduce((a, b) => a + b);
      return powers
        .map((power, e) => expert(INPUTS, token, e).map((value) => (value * power) / total))
        .reduce((a, b) => a.map((value, d) => value + b[d]!));
    });
    expect(y!.values).toBeAllClose(expected, {rtol: 1e-4, atol: 1e-5});
    expect([...load!.values]).toEqual([T, T, T, T]);
  });

  onEveryEngine('come down to the one that the model chooses when it is cold', async ({run}) => {
    const fn = (...given: tf.Tensor[]): tf.Tensor[] => {
      const [cold, own] = [layer(1e-3)(...(given as Inputs)), layer(null)(...(given as Inputs))];
      return [cold.y_TD, own.y_TD, own.router.weight_TK];
    };
    const [cold, own, weight] = await run(fn, ...INPUTS);
    const whole = Array.from(own!.values, (value, i) => value / weight!.values[Math.floor(i / D)]!);
    expect(cold!.values).toBeAllClose(whole, {rtol: 1e-3, atol: 1e-4});
  });

  onEveryEngine('have the gradient of finite differences', (engine) =>
    checkGradients(engine, (...given: tf.Tensor[]) => layer(0.5)(...(given as Inputs)).y_TD, INPUTS),
  );
});
