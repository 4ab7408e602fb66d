// Laws of experts inside experts.
import {describe, expect} from 'vitest';
import {type FfnLayout, SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {onEngine} from '../support/engines.js';
import {floats, type Host} from '../support/host.js';
import {MOE, NESTED, randomModel, randomTokens, rowsOf} from './random-model.js';
import {referenceLogits} from './reference.js';
import {forward, type HostModel, lossAndGradients} from './run-model.js';

const rounding = {rtol: 1e-5, atol: 1e-5};
const ENGINES = ['wasm', 'tensorflow-compiled'] as const;
const tokens = randomTokens(2, 48);
const GLU = ['gate', 'up', 'down'] as const;
const {inner: INNER} = NESTED;

/** The neurons of an expert, the shared ones first; `from` takes them out of order. */
const WIDTH = NESTED.expertWidth + INNER.experts * INNER.expertWidth;
const NEURONS = Array.from({length: WIDTH}, (_, i) => (7 * i) % WIDTH);

/** The experts of a mixture cut once more: its own neurons first, then those of each expert inside. */
function cutExperts({architecture, weights}: HostModel, layout: FfnLayout, router: HostModel): HostModel {
  const cut = (which: (typeof GLU)[number], ids: readonly number[]): number[][] => {
    const {shape, values} = weights[`layers.0.ffn.experts.${which}`]!;
    const [G = 0, rows = 0, columns = 0] = shape;
    const at = (g: number, r: number, c: number): number => values[(g * rows + r) * columns + c]!;
    const picked = (g: number): number[] =>
      which === 'down'
        ? ids.flatMap((id) => Array.from({length: columns}, (_, c) => at(g, id, c)))
        : Array.from({length: rows}, (_, r) => ids.map((id) => at(g, r, id))).flat();
    return Array.from({length: G}, (_, g) => picked(g));
  };
  const inside = (i: number): number[] => NEURONS.slice(3 + 3 * i, 6 + 3 * i);
  const parts = GLU.flatMap((which) => {
    const pieces = Array.from({length: INNER.experts}, (_, i) => cut(which, inside(i)));
    const nested = cut(which, NEURONS.slice(0, 3)).map((_, g) => pieces.flatMap((piece) => piece[g]!));
    return [
      [`layers.0.ffn.experts.${which}`, cut(which, NEURONS.slice(0, 3)).flat()],
      [`layers.0.ffn.inner.experts.${which}`, nested.flat()],
    ] as const;
  });
  const changed = parts.map(([path, values]) => [path, floats(router.weights[path]!.shape, values)] as const);
  const {'layers.0.ffn.inner.router': gate, 'layers.0.ffn.inner.routerUp': up} = router.weights;
  const routers = {'layers.0.ffn.inner.router': gate!, 'layers.0.ffn.inner.routerUp': up!};
  return {
    architecture: {...architecture, ffn: [layout]},
    weights: {...weights, ...routers, ...Object.fromEntries(changed)},
  };
}

/** With zeros for the parameters at these paths. */
function zeroed(model: HostModel, paths: readonly string[]): HostModel {
  const zero = ({shape, values}: Host): Host => floats(shape, new Float32Array(values.length));
  const changed = paths.map((path) => [path, zero(model.weights[path]!)] as const);
  return {...model, weights: {...model.weights, ...Object.fromEntries(changed)}};
}

describe('experts inside experts', () => {
  for (const engineName of ENGINES) {
    onEngine(engineName, 'that are all active with weight one are the experts they were cut from', async (engine) => {
      const parent = randomModel({ffn: [{...MOE, experts: NESTED.experts, expertWidth: WIDTH}]});
      const layout = {...NESTED, inner: {...INNER, topK: INNER.experts, weight: 'one'}} as const;
      const cut = cutExperts(parent, layout, randomModel({ffn: [layout]}));
      const {logits: expected} = await forward(engine, parent, tokens);
      for (const options of [{}, {gather: 4}]) {
        const {logits, missing} = await forward(engine, cut, tokens, options);
        expect(missing).toBe(0);
        expect(logits.values).toBeAllClose(expected.values, rounding);
      }
    });

    onEngine(engineName, 'of one expert of weight one are a flat mixture with a shared expert', async (engine) => {
      const nested = randomModel({ffn: [{...NESTED, experts: 1, topK: 1, sharedWidth: 0}]});
      const {weights} = nested;
      const renamed = Object.entries(weights).map(([path, {shape, values}]) => {
        const flat = path.includes('.ffn.') ? shape.slice(1) : shape;
        if (path.startsWith('layers.0.ffn.experts.')) return [path.replace('experts', 'shared'), floats(flat, values)];
        return [path.replace('.inner', ''), floats(path.includes('.inner.') ? flat : shape, values)];
      });
      const {inner, expertWidth, ...layout} = NESTED;
      const flat: HostModel = {
        architecture: {
          ...nested.architecture,
          ffn: [{...layout, ...inner, sharedWidth: expertWidth, router: 'representative'}],
        },
        weights: Object.fromEntries(renamed) as HostModel['weights'],
      };
      for (const chooser of ['router', 'oracle'] as const) {
        const {logits: expected} = await forward(engine, flat, tokens, {chooser});
        expect((await forward(engine, nested, tokens, {chooser})).logits.values).toBeAllClose(
          expected.values,
          rounding,
        );
      }
    });

    onEngine(engineName, 'lose no token when all of them choose one of one expert', async (engine) => {
      // Wide enough, and so many, that sending rows around costs less than computing every token.
      const layout = {...NESTED, topK: 1, inner: {...INNER, experts: 8, topK: 1, expertWidth: 64}} as const;
      const routers = ['router', 'inner.router', 'inner.routerUp'].map((name) => `layers.0.ffn.${name}`);
      const model = zeroed(randomModel({ffn: [layout]}), routers);
      const dropless = await forward(engine, model, tokens);
      expect([...dropless.routers[0]!.innerLoad.values]).toEqual([96, ...new Array<number>(31).fill(0)]);
      expect(dropless.missing).toBe(0);
      expect(dropless.logits.values).toBeAllClose(
        rowsOf(tokens).flatMap((row) => referenceLogits(model, row)),
        {rtol: 1e-5, atol: 2e-5},
      );
    });
  }

  onEngine('wasm', 'are reported as dropped where their room is too small', async (engine) => {
    const model = randomModel({ffn: [NESTED]});
    const [small, ample] = [
      await forward(engine, model, tokens, {gather: 1}),
      await forward(engine, model, tokens, {gather: 4}),
    ];
    expect(ample.missing).toBe(0);
    expect(small.missing).toBeGreaterThan(0);
    expect(small.logits.values).not.toBeAllClose(ample.logits.values, {atol: 1e-3});
  });

  onEngine('wasm', 'have routers without a gradient where they weigh one', async (engine) => {
    const model = randomModel({ffn: [{...NESTED, inner: {...INNER, weight: 'one'}}]});
    const {gradients} = await lossAndGradients(engine, model, tokens);
    for (const name of ['router', 'routerUp']) {
      expect(
        gradients[`layers.0.ffn.inner.${name}`]!.values.every((value) => value === 0),
        name,
      ).toBe(true);
    }
  });

  onEngine('wasm', 'are chosen by what they would do if an oracle chooses', async (engine) => {
    const all = randomModel({
      ffn: [{...NESTED, topK: NESTED.experts, inner: {...INNER, topK: INNER.experts}}],
      routing: {...SOFTMAX_ROUTING, renormalise: true},
    });
    const some = randomModel({ffn: [NESTED]});
    const run = async (model: HostModel, chooser: 'router' | 'oracle') =>
      (await forward(engine, model, tokens, {chooser})).logits.values;
    expect(await run(all, 'oracle')).toBeAllClose(await run(all, 'router'), rounding);
    expect(await run(some, 'oracle')).not.toBeAllClose(await run(some, 'router'), {atol: 1e-2});
  });
});
