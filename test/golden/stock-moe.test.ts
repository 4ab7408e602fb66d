import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import type {DecoderOutput} from '../../src/model/decoder.js';
import {route} from '../../src/model/router.js';
import {onEveryEngine, type TestEngine} from '../support/engines.js';
import {dot, type Host} from '../support/host.js';
import * as tf from '../support/tfjs.js';
import {FIXTURES, GOLDENS, hasGoldens} from './goldens.js';
import {forward, lossAndGradients, oncePerEngine} from './run-model.js';
import {pathsOf, readStockMoe, type StockMoe, type StockName} from './stock-moe.js';

/** Room for all tokens at any expert, in even shares: two of eight are chosen. */
const ROOM = 4;

laws('mixtral', join(FIXTURES, 'mixtral'));
for (const name of ['glm4_moe', 'granitemoeshared'] as const) {
  if (hasGoldens) laws(name, join(GOLDENS, 'moe', name));
  else it.skip(`${name} (skipped: no ../shared/goldens)`);
}

function laws(name: StockName, folder: string): void {
  const model = readStockMoe(name, folder);
  const {golden, tensors} = model;
  const ids = tensors.input_ids!;

  describe(`${name} of transformers`, () => {
    const onEveryToken = oncePerEngine((engine) => forward(engine, model, ids));

    onEveryEngine('has equal logits', async (engine) => {
      const {logits} = await onEveryToken(engine);
      expect(logits.values).toBeAllClose(tensors.logits!.values, {rtol: 0, atol: 5e-5});
    });

    onEveryEngine('has equal logits, its experts computing only the tokens sent to them', async (engine) => {
      const {logits} = await forward(engine, model, ids, {gather: ROOM});
      expect(logits.values).toBeAllClose(tensors.logits!.values, {rtol: 0, atol: 5e-5});
    });

    onEveryEngine('has equal router logits, choices and weights', async (engine) => {
      const {routers} = await onEveryToken(engine);
      const routes: Choice[] = [];
      for (const [layer, {logits}] of routers.entries()) routes.push(...(await routesOf(engine, model, logits, layer)));
      expect(routers.flatMap(({logits}) => Array.from(logits.values))).toBeAllClose(tensors.router_logits!.values, {
        rtol: 0,
        atol: 1e-5,
      });
      expect(routes.map(({expert}) => expert)).toEqual(Array.from(tensors.selected!.values));
      expect(routes.map(({weight}) => weight)).toBeAllClose(tensors.weights!.values, {rtol: 0, atol: 1e-5});
    });

    for (const options of [{}, {gather: ROOM}]) {
      const way = 'gather' in options ? ', its experts computing only the tokens sent to them' : '';
      onEveryEngine(`has equal loss and gradient norms${way}`, async (engine) => {
        const extra = (output: DecoderOutput): tf.Scalar => tf.mul(pooledBalance(output), golden.aux_coefficient ?? 0);
        const result = await lossAndGradients(engine, model, ids, {...options, extra});
        expect(result.crossEntropy).toBeAllClose(golden.cross_entropy, {rtol: 0, atol: 1e-5});
        expect(result.loss).toBeAllClose(golden.loss_reported, {rtol: 0, atol: 1e-5});
        for (const [module, norms] of Object.entries(golden.gradient_norms_of_loss_reported)) {
          const parts = pathsOf(module).map((path) => result.gradients[path]!);
          const received = typeof norms === 'number' ? norm(parts) : expertNorms(parts[0]!);
          expect(received, module).toBeAllClose(norms, {rtol: 1e-4, atol: 0});
        }
      });
    }
  });
}

interface Choice {
  readonly expert: number;
  readonly weight: number;
}

/** The choices of all tokens with their weights, those of a token by ascending expert. */
async function routesOf(
  {run}: TestEngine,
  {architecture, weights}: StockMoe,
  logits: Host,
  layer: number,
): Promise<Choice[]> {
  const layout = architecture.ffn[layer]!;
  if (layout.kind !== 'moe') throw new Error(`layer ${layer} has no router`);
  const {topK} = layout;
  const fn = (logit_TE: tf.Tensor2D, bias_E: tf.Tensor1D | null): tf.Tensor[] => {
    const {expert_TK, weight_TK} = route(logit_TE, bias_E, topK, architecture.routing);
    return [expert_TK, weight_TK];
  };
  const bias = weights[`layers.${layer}.ffn.bias`];
  const onTensors = (...[logit_TE, bias_E]: tf.Tensor[]): tf.Tensor[] =>
    fn(logit_TE as tf.Tensor2D, (bias_E ?? null) as tf.Tensor1D | null);
  const [experts, shares] = await run(onTensors, ...(bias ? [logits, bias] : [logits]));
  const choices = Array.from(experts!.values, (expert, i) => ({expert, weight: shares!.values[i]!}));
  const tokens = Array.from({length: choices.length / topK}, (_, t) => choices.slice(t * topK, (t + 1) * topK));
  return tokens.flatMap((pair) => pair.sort((a, b) => a.expert - b.expert));
}

/** E·Σ_e f_e·P_e over the rows of all layers together, f summing to K: transformers' load_balancing_loss_func. */
function pooledBalance({routers}: DecoderOutput): tf.Scalar {
  const logit_NE = tf.concat2d(
    routers.map(({logit_TE}) => logit_TE),
    0,
  );
  const [N, E] = logit_NE.shape;
  const load_E = tf.addN(routers.map(({load_E: load}) => tf.cast(load, 'float32')));
  return tf.mul(tf.sum(tf.mul(tf.div(load_E, N), tf.mean(tf.softmax(logit_NE), 0))), E);
}

function norm(parts: readonly Host[]): number {
  return Math.sqrt(parts.reduce((sum, {values}) => sum + dot(values, values), 0));
}

function expertNorms({shape: [E = 0], values}: Host): number[] {
  const size = values.length / E;
  return Array.from({length: E}, (_, e) => {
    const part = values.subarray(e * size, (e + 1) * size);
    return Math.sqrt(dot(part, part));
  });
}
