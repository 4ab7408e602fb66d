import {describe, expect} from 'vitest';
import {type Architecture, type Routing, SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {type EngineName, onEngine, onEveryEngine, type TestEngine} from '../support/engines.js';
import {dot, floats, normals} from '../support/host.js';
import {DENSE, MOE, NESTED, randomModel, randomTokens, rowsOf} from './random-model.js';
import {type ReferenceModel, referenceLogits, referenceLoss} from './reference.js';
import {forward, type HostModel, lossAndGradients} from './run-model.js';

const limit = {rtol: 1e-5, atol: 2e-5};
const tokens = randomTokens(2, 37);
/** A slope in float64 takes two passes for every parameter. */
const few = randomTokens(2, 13);
/** Room for every row of the models below, in even shares of their experts. */
const ROOM = 4;

const DENSE_CASES: Readonly<Record<string, Partial<Architecture>>> = {
  'a dense model': {ffn: [DENSE, DENSE]},
  'a dense model with a tied head': {ffn: [DENSE, DENSE], tied: true},
  'a dense model with one key-value head a head': {ffn: [DENSE], kvHeads: 6},
  'a model whose heads are wider than their share': {ffn: [DENSE], headDim: 8},
};

/** The words of a dialect, each in a model with experts, and some together. */
const DIALECT_CASES: Readonly<Record<string, Partial<Architecture>>> = {
  'layer norms without weights': {norm: {kind: 'layer', placement: 'before'}},
  'norms after each part': {norm: {kind: 'rms', placement: 'after'}},
  'layer norms after each part': {norm: {kind: 'layer', placement: 'after'}},
  'norms of the heads of queries and keys': {qkNorm: 'head'},
  'norms of all queries and keys, biases and a clip': {qkNorm: 'width', attentionBias: 'qkv', qkvClip: 0.8},
  'biases in all of attention': {attentionBias: 'qkvo'},
  'a window': {slidingWindow: 4},
  multipliers: {multipliers: {embedding: 3, attention: 0.2, residual: 0.5, logitsDivisor: 1.7}},
};

const ROUTINGS: Readonly<Record<string, Partial<Routing>>> = {
  'softmax over all': {},
  'softmax over all, renormalised': {renormalise: true},
  'softmax over the chosen': {order: 'topk-then-score'},
  'sigmoid times a factor': {score: 'sigmoid', scale: 2.5},
  'sigmoid, renormalised': {score: 'sigmoid', renormalise: true, scale: 1.5},
  'weights of one': {weight: 'one'},
  'a top p': {topP: 0.4},
  'a top p and renormalised weights': {topP: 0.3, renormalise: true},
  'a top p and weights of one': {topP: 0.3, weight: 'one'},
  'a top p and weights of one and a scaled score': {topP: 0.4, weight: 'one-plus-scaled'},
  'a reach': {reach: 0.8, scale: 1.5},
  'weights of one and a scaled score': {weight: 'one-plus-scaled', scale: 1.5},
  'weights of one and a scaled sigmoid': {weight: 'one-plus-scaled', score: 'sigmoid', order: 'topk-then-score'},
};

const EXPERT_CASES: Readonly<Record<string, Partial<Architecture>>> = {
  'with a selection bias': {
    ffn: [{...MOE, selectionBias: true, router: 'linear'}],
    routing: {...SOFTMAX_ROUTING, score: 'sigmoid'},
  },
  'with a representative router': {ffn: [{...MOE, router: 'representative'}]},
  'with a router of two layers': {ffn: [{...MOE, router: 'mlp'}]},
  'with a cosine router': {ffn: [{...MOE, router: 'cosine', temperature: 0.3}]},
  'with an autonomy router': {ffn: [{...MOE, router: 'autonomy', rank: 3}]},
  'with biases of their own': {ffn: [{...MOE, expertBias: true}], routing: {...SOFTMAX_ROUTING, renormalise: true}},
  'with experts inside': {ffn: [NESTED]},
  'with a gate of the shared one': {ffn: [{...MOE, sharedGate: true}]},
  'with experts inside of weight one, and biases': {
    ffn: [{...NESTED, inner: {...NESTED.inner, weight: 'one'}, expertBias: true}, DENSE],
    routing: {...SOFTMAX_ROUTING, renormalise: true},
  },
  'of which there is one': {ffn: [{...MOE, experts: 1, topK: 1}]},
  'without a shared one': {ffn: [{...MOE, sharedWidth: 0}, DENSE, MOE]},
  ...Object.fromEntries(
    Object.entries(ROUTINGS).map(([name, words]) => [`with ${name}`, {routing: {...SOFTMAX_ROUTING, ...words}}]),
  ),
};

/** Where there is nothing to compile; what compiling changes is another law's business. */
const OP_BY_OP: readonly EngineName[] = ['tensorflow-eager', 'wasm'];

describe('the logits of the float64 decoder', () => {
  for (const engineName of OP_BY_OP) {
    for (const [name, changes] of Object.entries(DENSE_CASES)) {
      onEngine(engineName, `are those of ${name}`, async (engine) => {
        const model = randomModel(changes);
        const {logits} = await forward(engine, model, tokens);
        expect(logits.values).toBeAllClose(expectedLogits(model), limit);
      });
    }
    for (const [name, changes] of Object.entries(DIALECT_CASES)) {
      onEngine(engineName, `are those of a model with ${name}`, async (engine) => {
        const model = randomModel(changes);
        const {logits} = await forward(engine, model, tokens);
        expect(logits.values).toBeAllClose(expectedLogits(model), limit);
      });
    }
    for (const [name, changes] of Object.entries(EXPERT_CASES)) {
      onEngine(engineName, `are those of experts ${name}`, async (engine) => {
        const model = randomModel(changes);
        const {logits} = await forward(engine, model, tokens, {gather: ROOM});
        expect(logits.values).toBeAllClose(expectedLogits(model), limit);
      });
    }
  }

  onEngine(
    'wasm',
    'of weights one and a scaled score are those of weights one, to the bit, while scales are 0',
    async (engine) => {
      const routing = {...SOFTMAX_ROUTING, order: 'topk-then-score'} as const;
      const {architecture, weights} = randomModel({ffn: [MOE], routing: {...routing, weight: 'one-plus-scaled'}});
      const {'layers.0.ffn.scale': scale, ...others} = weights;
      const fresh = {...others, 'layers.0.ffn.scale': floats(scale!.shape, new Float32Array(MOE.experts))};
      const {logits} = await forward(engine, {architecture, weights: fresh}, tokens, {gather: ROOM});
      const plain = {architecture: {...architecture, routing: {...routing, weight: 'one'} as const}, weights: others};
      expect(logits.values).toEqual((await forward(engine, plain, tokens, {gather: ROOM})).logits.values);
    },
  );

  onEngine('wasm', 'with a top p are those of some experts of a token, not of all K', async (engine) => {
    const model = randomModel({ffn: [MOE], routing: {...SOFTMAX_ROUTING, topP: 0.4}});
    const {routers} = await forward(engine, model, tokens, {gather: ROOM});
    const pairs = [...routers[0]!.load.values].reduce((sum, count) => sum + count, 0);
    expect(pairs).toBeGreaterThan(tokens.values.length);
    expect(pairs).toBeLessThan(tokens.values.length * MOE.topK);
  });

  onEngine('tensorflow-compiled', 'are those of dense and expert layers', async (engine) => {
    const model = randomModel();
    const {logits} = await forward(engine, model, tokens, {gather: ROOM});
    expect(logits.values).toBeAllClose(expectedLogits(model), limit);
  });
});

describe('the gradient of the loss', () => {
  const model = randomModel();
  const slopes = once(() => slopesOf(model));

  for (const options of [{gather: ROOM}, {}]) {
    const way = 'gather' in options ? 'the tokens sent to them' : 'every token';
    onEveryEngine(`is the slope of the float64 decoder's, experts computing ${way}`, async (engine) => {
      const {gradients} = await lossAndGradients(engine, model, few, options);
      expectSlopes(gradients, slopes());
    });
  }

  const ROUTERS = [
    {router: 'representative'},
    {router: 'mlp'},
    {router: 'cosine', temperature: 0.3},
    {router: 'autonomy', rank: 3},
  ] as const;
  for (const router of ROUTERS) {
    onCompiling(
      `is the slope of the float64 decoder's in every matrix of a router (${router.router})`,
      async (engine) => {
        const routed = randomModel({ffn: [{...MOE, ...router}]});
        const {gradients} = await lossAndGradients(engine, routed, few);
        expectSlopes(gradients, slopesOf(routed));
      },
    );
  }
  for (const options of [{gather: ROOM}, {}]) {
    const way = 'gather' in options ? 'their tokens' : 'every token';
    onCompiling(
      `is the slope of the float64 decoder's for experts inside experts, computing ${way}`,
      async (engine) => {
        const nested = randomModel({ffn: [NESTED]});
        const {gradients} = await lossAndGradients(engine, nested, few, options);
        expectSlopes(gradients, slopesOf(nested));
      },
    );
  }

  onCompiling("is the slope of the float64 decoder's with a top p", async (engine) => {
    const model = randomModel({ffn: [MOE], routing: {...SOFTMAX_ROUTING, topP: 0.4, renormalise: true}});
    const expected = slopesOf(model);
    for (const options of [{gather: ROOM}, {}]) {
      expectSlopes((await lossAndGradients(engine, model, few, options)).gradients, expected);
    }
  });

  onEngine('wasm', "is the slope of the float64 decoder's with a reach", async (engine) => {
    const model = randomModel({ffn: [MOE], routing: {...SOFTMAX_ROUTING, reach: 0.8}});
    expectSlopes((await lossAndGradients(engine, model, few, {gather: ROOM})).gradients, slopesOf(model));
  });

  onCompiling("is the slope of the float64 decoder's where weights are one and a scaled score", async (engine) => {
    const scaled = randomModel({ffn: [MOE], routing: {...SOFTMAX_ROUTING, weight: 'one-plus-scaled'}});
    expectSlopes((await lossAndGradients(engine, scaled, few)).gradients, slopesOf(scaled));
  });

  onEngine('wasm', "is the slope of the float64 decoder's for experts with biases, both ways", async (engine) => {
    const biased = randomModel({ffn: [{...MOE, expertBias: true}]});
    const expected = slopesOf(biased);
    for (const options of [{gather: ROOM}, {}]) {
      expectSlopes((await lossAndGradients(engine, biased, few, options)).gradients, expected);
    }
  });

  onEngine('wasm', "is the slope of the float64 decoder's in every word of a dialect", async (engine) => {
    for (const changes of Object.values(DIALECT_CASES)) {
      const spoken = randomModel({ffn: [MOE], ...changes});
      const {gradients} = await lossAndGradients(engine, spoken, few);
      expectSlopes(gradients, slopesOf(spoken));
    }
  });
});

/** Without eager TensorFlow, whose kernels the laws of ops ask for their gradients one by one. */
function onCompiling(name: string, law: (engine: TestEngine) => Promise<void>): void {
  for (const engine of ['tensorflow-compiled', 'wasm'] as const) onEngine(engine, name, law);
}

interface Slope {
  readonly path: string;
  readonly direction: ArrayLike<number>;
  readonly slope: number;
}

/** The slope of the loss along a random direction of every parameter. */
function slopesOf(model: HostModel): Slope[] {
  return Object.entries(model.weights).map(([path, {shape}], i) => {
    const direction = normals(shape, 50 + i).values;
    return {path, direction, slope: slope(model, path, direction)};
  });
}

function expectSlopes(gradients: HostModel['weights'], slopes: readonly Slope[]): void {
  for (const {path, direction, slope: expected} of slopes) {
    const {values} = gradients[path]!;
    const norm = Math.sqrt(dot(values, values));
    expect(norm, path).toBeGreaterThan(0);
    expect(Math.abs(dot(values, direction) - expected), path).toBeLessThan(1e-4 * norm + 1e-6);
  }
}

function once<T>(make: () => T): () => T {
  let made: {readonly value: T} | null = null;
  return () => {
    made ??= {value: make()};
    return made.value;
  };
}

function expectedLogits(model: HostModel): readonly (readonly number[])[] {
  return rowsOf(tokens).flatMap((row) => referenceLogits(model, row));
}

/** How the loss changes along a direction of one parameter: central difference in float64. */
function slope(model: HostModel, path: string, direction: ArrayLike<number>): number {
  const step = 1e-5;
  const withWeight = (weight: ReferenceModel['weights'][string]): ReferenceModel => ({
    ...model,
    weights: {...model.weights, [path]: weight},
  });
  const lossAt = (distance: number): number => {
    const {values} = model.weights[path]!;
    const moved = Array.from(values, (value, i) => value + distance * direction[i]!);
    const losses = rowsOf(few).map((row) => referenceLoss(withWeight({values: moved}), row));
    return losses.reduce((a, b) => a + b, 0) / losses.length;
  };
  return (lossAt(step) - lossAt(-step)) / (2 * step);
}
