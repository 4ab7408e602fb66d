import {describe, expect} from 'vitest';
import {type Routing, SOFTMAX_ROUTING} from '../../../src/model/architecture.js';
import {moe} from '../../../src/model/moe.js';
import {expertChoice} from '../../../src/train/routing/expert-choice.js';
import {onEveryEngine} from '../../support/engines.js';
import {checkGradients} from '../../support/gradients.js';
import {type Host, normals} from '../../support/host.js';
import type * as tf from '../../support/tfjs.js';

/** Four experts of width F that take C = T·K·factor/E = 9 of 12 tokens. */
const [T, D, E, K, F, FACTOR, C] = [12, 5, 4, 2, 3, 1.5, 9];
const LAYOUT = {
  ...({kind: 'moe', experts: E, topK: K, expertWidth: F, sharedWidth: 0, selectionBias: false} as const),
  router: 'linear',
  expertBias: true,
} as const;
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

function layer(routing: Routing = SOFTMAX_ROUTING) {
  return (...[x_TD, router, gate, up, down, expertBias]: Inputs) => {
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
    const params = {
      ...tree,
      kind: 'moe',
      experts: {gate, up, down},
      expertBias,
    } as const;
    return moe(x_TD, params, LAYOUT, routing, 'dropless', (input) => expertChoice(input, FACTOR));
  };
}

const rowsOf = (values: ArrayLike<number>, width: number, first = 0, count = values.length / width): number[][] =>
  Array.from({length: count}, (_, r) => Array.from({length: width}, (_, c) => values[first + r * width + c]!));
const times = (x: readonly number[], matrix: readonly number[][]): number[] =>
  matrix[0]!.map((_, j) => x.reduce((sum, value, i) => sum + value * matrix[i]![j]!, 0));

/** Every expert in turn sorts all tokens by their softmax and adds to the first C: float64. */
function reference([x, router, gate, up, down, bias]: Hosts, {weight, scale}: Routing): number[][] {
  const tokens = rowsOf(x.values, D);
  const scores = tokens.map((token) => {
    const powers = times(token, rowsOf(router.values, E)).map(Math.exp);
    return powers.map((power) => power / powers.reduce((a, b) => a + b, 0));
  });
  const sums = tokens.map(() => new Array<number>(D).fill(0));
  for (let e = 0; e < E; e++) {
    const ranked = scores.map((row, t) => ({t, score: row[e]!})).sort((a, b) => b.score - a.score);
    for (const {t, score} of ranked.slice(0, C)) {
      const through = (w: Host): number[] => times(tokens[t]!, rowsOf(w.values, F, e * D * F, D));
      const [g, u] = [through(gate), through(up)];
      const hidden = g.map((z, f) => (z / (1 + Math.exp(-z))) * u[f]!);
      const y = times(hidden, rowsOf(down.values, D, e * F * D, F));
      const factor = scale * (weight === 'one' ? 1 : score);
      for (let d = 0; d < D; d++) sums[t]![d]! += factor * (y[d]! + bias.values[e * D + d]!);
    }
  }
  return sums;
}

describe('experts that choose their tokens', () => {
  const SCALED: Routing = {...SOFTMAX_ROUTING, scale: 1.7};

  onEveryEngine('equal a loop over experts, each with the tokens of its highest scores', async ({run}) => {
    for (const routing of [SOFTMAX_ROUTING, SCALED, {...SCALED, weight: 'one'} as const]) {
      const [y] = await run((...inputs: Inputs) => layer(routing)(...inputs).y_TD, ...INPUTS);
      expect(y!.values).toBeAllClose(reference(INPUTS, routing), {rtol: 1e-5, atol: 1e-5});
    }
  });

  onEveryEngine('have the gradient of finite differences', async (engine) => {
    await checkGradients(engine, (...inputs: Inputs) => layer(SCALED)(...inputs).y_TD, INPUTS, {
      step: 2e-3,
      tolerance: 5e-3,
    });
  });
});
