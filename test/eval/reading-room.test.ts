import {describe, expect, it} from 'vitest';
import {createVariable} from '../../src/engine/variable.js';
import {capacityFor, chunkFor, createRoom, logitsAfter, readAll} from '../../src/eval/reading-room.js';
import {type Architecture, PLAIN, SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {parameterSpecs, treeOf} from '../../src/model/parameters.js';
import {DENSE, MOE, NESTED, randomModel, VOCAB} from '../golden/random-model.js';
import {forward, type HostModel, specsOf, tokenRows} from '../golden/run-model.js';
import {type EngineName, expectNoLeak, onEngine, withEngine} from '../support/engines.js';
import {integers} from '../support/host.js';

/** Every kind of attention that a config can say, and every way to route. */
const KINDS: Readonly<Record<string, Partial<Architecture>>> = {
  'groups of queries, a dense layer and one of experts': {},
  'biases, a window and slower rotations': {
    ffn: [DENSE],
    attentionBias: 'qkvo',
    slidingWindow: 3,
    ropeScaling: {kind: 'llama3', factor: 8, lowTurns: 1, highTurns: 4, firstContext: 16},
  },
  'norms of heads, a tied embedding': {ffn: [DENSE], qkNorm: 'head', tied: true},
  'norms after, and of all heads': {ffn: [DENSE], qkNorm: 'width', norm: {kind: 'rms', placement: 'after'}},
  'layer norms, clipped projections, factors': {
    ffn: [DENSE],
    norm: {kind: 'layer', placement: 'before'},
    qkvClip: 0.5,
    multipliers: {...PLAIN.multipliers, embedding: 3, attention: 0.3, residual: 0.4, logitsDivisor: 2},
  },
  'experts with biases, of which a top p leaves some out': {
    ffn: [{...MOE, selectionBias: true, expertBias: true, sharedGate: true}],
    routing: {...SOFTMAX_ROUTING, topP: 0.3},
  },
  'experts inside experts': {ffn: [NESTED]},
};

/** Compiling takes its time, and what sets the others apart is not where a cache is. */
const COMPILED = [
  'groups of queries, a dense layer and one of experts',
  'biases, a window and slower rotations',
  'experts with biases, of which a top p leaves some out',
];

function enginesOf(kind: string): readonly EngineName[] {
  return COMPILED.includes(kind) ? ['tensorflow-compiled', 'wasm'] : ['wasm'];
}

const TOKENS = Array.from(integers([1, 14], VOCAB, 7).values);
const PROMPT = 5;
/** Float32 logits of about 1, whose sums of up to 20 terms are added in another order. */
const TOLERANCE = {atol: 2e-5, rtol: 1e-5};

/** Logits after the prompt in rooms that it does not fill and fills, then after each token: the ninth is in the larger one. */
async function cachedLogits({architecture, weights}: HostModel): Promise<Float32Array[]> {
  const variables = specsOf(architecture).map(({path, shape}) =>
    createVariable(path, shape, weights[path]!.values as Float32Array),
  );
  const model = {architecture, parameters: treeOf(parameterSpecs(architecture), variables)};
  const [small, large] = [createRoom(model, 8, 'float32'), createRoom(model, 16, 'float32')];
  const found: Float32Array[] = [];
  for (const room of [large, small]) found.push(await logitsAfter(room, TOKENS.slice(0, PROMPT), 0, 8));
  for (const [i, token] of TOKENS.slice(PROMPT).entries()) {
    const position = PROMPT + i;
    if (position === 8) large.take(small);
    found.push(await logitsAfter(position < 8 ? small : large, [token], position));
  }
  for (const one of [small, large, ...variables]) one.dispose();
  return found;
}

async function plainLogits(model: HostModel, engine: EngineName): Promise<Float32Array[]> {
  const run = (name: EngineName) => withEngine(name, (one) => forward(one, model, tokenRows([TOKENS])));
  const {logits} = await run(engine === 'wasm' ? 'wasm' : 'tensorflow-eager');
  return TOKENS.map((_, t) => logits.values.slice(t * VOCAB, (t + 1) * VOCAB) as Float32Array).slice(PROMPT - 1);
}

describe('a model with a cache gives the logits that it gives without one', () => {
  for (const [name, changes] of Object.entries(KINDS)) {
    for (const engine of enginesOf(name)) {
      onEngine(engine, name, async () => {
        const model = randomModel(changes);
        const expected = await plainLogits(model, engine);
        const [prompt = [], ...cached] = await expectNoLeak(() => cachedLogits(model));
        expect(prompt).toBeAllClose(expected[0]!, TOLERANCE);
        expect(cached.flatMap((row) => [...row])).toBeAllClose(
          expected.flatMap((row) => [...row]),
          TOLERANCE,
        );
      });
    }
  }
});

describe('a prompt', () => {
  const small = {ffn: [DENSE], width: 8};
  /** Matrices so large that a compiled program loops over blocks of rows. */
  const experts = {ffn: [{...MOE, expertWidth: 256}], width: 128, routing: {...SOFTMAX_ROUTING, topP: 0.6}};
  for (const [engine, length, what, sizes] of [
    ['tensorflow-compiled', 129, 'a small model', small],
    ['tensorflow-compiled', 600, 'a small model', small],
    ['wasm', 600, 'a small model', small],
    ['tensorflow-compiled', 200, 'large experts', experts],
  ] as const) {
    onEngine(engine, `of ${length} tokens is read chunk by chunk by ${what}`, async () => {
      const {architecture, weights} = randomModel({...sizes, contextLength: 1024});
      const prompt = integers([1, length], VOCAB, 3);
      const {logits} = await withEngine('wasm', (one) => forward(one, {architecture, weights}, prompt));
      const variables = specsOf(architecture).map(({path, shape}) =>
        createVariable(path, shape, weights[path]!.values as Float32Array),
      );
      const model = {architecture, parameters: treeOf(parameterSpecs(architecture), variables)};
      const room = createRoom(model, capacityFor(length), 'float32');
      expect(await readAll(room, prompt.values as Int32Array)).toBeAllClose(logits.values.slice(-VOCAB), TOLERANCE);
      for (const one of [room, ...variables]) one.dispose();
    });
  }

  it.each([
    [1, 128],
    [128, 128],
    [129, 256],
    [600, 1024],
  ])('of %i tokens finds room in %i positions', (length, capacity) => {
    expect(capacityFor(length)).toBe(capacity);
  });

  it.each([
    [1, 32],
    [33, 32],
    [100, 128],
    [300, 128], // three passes over 384 rather than one over 512
    [400, 512],
    [527, 128], // five over 640 rather than two over 1024
    [1000, 512],
  ])('of %i tokens is read in chunks of %i', (length, chunk) => {
    expect(chunkFor(length)).toBe(chunk);
  });

  it('finds room for what fills up its last chunk', () => {
    const lengths = Array.from({length: 5000}, (_, i) => i + 1);
    const tight = lengths.filter((n) => Math.ceil(n / chunkFor(n)) * chunkFor(n) > capacityFor(n));
    expect(tight).toEqual([]);
  });
});
