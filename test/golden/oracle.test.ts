// Oracle routing: what every expert would do is known, and those that would do most are chosen.

import {describe, expect} from 'vitest';
import {type Routing, SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {moe} from '../../src/model/moe.js';
import {onEngine, onEveryEngine} from '../support/engines.js';
import {type Host, normals} from '../support/host.js';
import type * as tf from '../support/tfjs.js';
import {MOE, randomModel, randomTokens} from './random-model.js';
import {forward} from './run-model.js';

const rounding = {rtol: 1e-5, atol: 1e-5};
const [T, D, E, F, K] = [24, 6, 5, 3, 2];
const ONE: Routing = {...SOFTMAX_ROUTING, weight: 'one'};
const layout = {kind: 'moe', experts: E, topK: K, expertWidth: F, sharedWidth: 0, selectionBias: false} as const;
const inputs = [
  normals([T, D], 1),
  normals([D, E], 2),
  normals([E, D, F], 3),
  normals([E, D, F], 4),
  normals([E, F, D], 5),
] as const;

/** y of every token [T, D], expert by expert in float64. */
function byHand([x, router, gate, up, down]: readonly Host[], routing: Routing): number[] {
  const at = (w: Host, ...index: number[]): number =>
    w.values[index.reduce((sum, i, axis) => sum * w.shape[axis]! + i)]!;
  const range = (n: number): number[] => Array.from({length: n}, (_, i) => i);
  const dot = (t: number, column: (d: number) => number): number =>
    range(D).reduce((sum, d) => sum + at(x!, t, d) * column(d), 0);
  return range(T).flatMap((t) => {
    const h = range(E).map((e) =>
      range(F).map((f) => {
        const g = dot(t, (d) => at(gate!, e, d, f));
        return (g / (1 + Math.exp(-g))) * dot(t, (d) => at(up!, e, d, f));
      }),
    );
    const activity = h.map((one) => one.reduce((sum, value) => sum + Math.abs(value), 0));
    const chosen = range(E)
      .sort((a, b) => activity[b]! - activity[a]!)
      .slice(0, K);
    const exponents = range(E).map((e) => Math.exp(dot(t, (d) => at(router!, d, e))));
    const total = exponents.reduce((a, b) => a + b, 0);
    const weight = (e: number): number => (routing.weight === 'one' ? 1 : exponents[e]! / total);
    return range(D).map((d) =>
      chosen.reduce((sum, e) => sum + weight(e) * h[e]!.reduce((y, value, f) => y + value * at(down!, e, f, d), 0), 0),
    );
  });
}

describe('oracle routing', () => {
  for (const [name, routing] of Object.entries({'weights one': ONE, 'the scores of the router': SOFTMAX_ROUTING})) {
    for (const capacity of ['dropless', {factor: E}] as const) {
      const way = capacity === 'dropless' ? 'computing every token' : 'sent their tokens';
      onEveryEngine(`takes the experts of the largest Σ|h|, with ${name}, ${way}`, async ({run}) => {
        const fn = (...[x, router, gate, up, down]: tf.Tensor[]): tf.Tensor => {
          const params = {
            kind: 'moe',
            router,
            routerUp: null,
            routerOut: null,
            bias: null,
            scale: null,
            shared: null,
            sharedGate: null,
            expertBias: null,
            inner: null,
          } as const;
          const experts = {gate: gate!, up: up!, down: down!};
          const linear = {...layout, router: 'linear'} as const;
          return moe(x as tf.Tensor2D, {...params, router: router!, experts}, linear, routing, capacity, 'oracle').y_TD;
        };
        const [y] = await run(fn, ...inputs);
        expect(y!.values).toBeAllClose(byHand(inputs, routing), rounding);
      });
    }
  }

  onEngine('wasm', 'gives what the router gives where all experts are chosen', async (engine) => {
    const tokens = randomTokens(2, 16);
    for (const routing of [ONE, SOFTMAX_ROUTING, {...SOFTMAX_ROUTING, renormalise: true}]) {
      const model = randomModel({ffn: [{...MOE, topK: MOE.experts, selectionBias: true}], routing});
      const [router, oracle] = [
        await forward(engine, model, tokens),
        await forward(engine, model, tokens, {chooser: 'oracle'}),
      ];
      expect(oracle.logits.values).toBeAllClose(router.logits.values, rounding);
    }
    const sparse = randomModel({ffn: [MOE], routing: ONE});
    const {logits} = await forward(engine, sparse, tokens, {chooser: 'oracle'});
    expect(logits.values).not.toBeAllClose((await forward(engine, sparse, tokens)).logits.values, {atol: 1e-2});
  });
});
