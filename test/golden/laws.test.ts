import {describe, expect} from 'vitest';
import {SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {onEveryEngine, type TestEngine} from '../support/engines.js';
import {floats, type Host, ints} from '../support/host.js';
import {DENSE, MOE, randomModel, randomTokens, rowsOf, VOCAB} from './random-model.js';
import {forward, type HostModel, lossAndGradients, oncePerEngine, type RunOptions, tokenRows} from './run-model.js';
import {splitModel} from './split.js';

/** float32 rounding: sums of other lengths are added up in another order. */
const rounding = {rtol: 1e-5, atol: 1e-5};
const [B, S] = [2, 48];
const tokens = randomTokens(B, S);
const model = randomModel();

async function logitsOf(engine: TestEngine, rows: Host, options?: RunOptions, of = model): Promise<number[][][]> {
  const {logits} = await forward(engine, of, rows, options);
  const [, length = 0] = rows.shape;
  const each = rowsOf({...logits, shape: [logits.values.length / VOCAB, VOCAB]});
  return Array.from({length: each.length / length}, (_, b) => each.slice(b * length, (b + 1) * length));
}

const plain = oncePerEngine((engine) => logitsOf(engine, tokens));

describe('the logits of a position', () => {
  onEveryEngine('do not change with a later token', async (engine) => {
    const from = 15;
    const changed = rowsOf(tokens).map((row) => row.map((id, s) => (s < from ? id : (id + 1) % VOCAB)));
    const [before, after] = [await plain(engine), await logitsOf(engine, tokenRows(changed))];
    for (let b = 0; b < B; b++) {
      expect(after[b]!.slice(0, from)).toBeAllClose(before[b]!.slice(0, from), rounding);
      expect(after[b]![from]).not.toBeAllClose(before[b]![from]!, {rtol: 0, atol: 1e-2});
    }
  });

  onEveryEngine('do not change with the other rows of the batch', async (engine) => {
    const expected = await plain(engine);
    for (const [b, row] of rowsOf(tokens).entries()) {
      expect((await logitsOf(engine, tokenRows([row])))[0]).toBeAllClose(expected[b]!, rounding);
    }
  });

  onEveryEngine('in packed documents are those of each document alone', async (engine) => {
    const lengths = [9, 1, S - 10];
    const segment = lengths.flatMap((length, i) => new Array<number>(length).fill(i));
    const segments = ints([B, S], [...segment, ...segment]);
    const packed = await logitsOf(engine, tokens, {segments});
    let begin = 0;
    for (const length of lengths) {
      const span = (row: readonly number[]): number[] => row.slice(begin, begin + length);
      const alone = await logitsOf(engine, tokenRows(rowsOf(tokens).map(span)));
      expect(packed.map((rows) => rows.slice(begin, begin + length))).toBeAllClose(alone, rounding);
      begin += length;
    }
  });
});

describe('the room of experts', () => {
  const rooms = [1, 1.5, 2, 3, 4];
  const runs = oncePerEngine(async (engine) => {
    const results = [];
    for (const gather of rooms) results.push(await forward(engine, model, tokens, {gather}));
    return results;
  });
  const fits = ({missing}: Awaited<ReturnType<typeof forward>>): boolean => missing === 0;

  onEveryEngine('changes no logit once every row fits', async (engine) => {
    const fitting = (await runs(engine)).filter(fits);
    expect(fitting.length).toBeGreaterThan(1);
    const expected = await plain(engine);
    for (const {logits} of fitting) expect(logits.values).toBeAllClose(expected, rounding);
  });

  onEveryEngine('is reported as too small exactly where it changes logits', async (engine) => {
    const expected = (await plain(engine)).flat(2);
    const results = await runs(engine);
    expect(results.some((result) => !fits(result))).toBe(true);
    for (const result of results) expect(isClose(result.logits.values, expected)).toBe(fits(result));
  });

  onEveryEngine('changes no gradient once every row fits', async (engine) => {
    const gather = rooms[(await runs(engine)).findIndex(fits)]!;
    const {gradients} = await lossAndGradients(engine, model, tokens, {gather});
    const {gradients: expected} = await lossAndGradients(engine, model, tokens);
    for (const [path, {values}] of Object.entries(gradients)) {
      expect(values, path).toBeAllClose(expected[path]!.values, {rtol: 1e-4, atol: 1e-6});
    }
  });
});

describe('experts', () => {
  onEveryEngine('that are all active with weight one are the dense model they were cut from', async (engine) => {
    const dense = randomModel({ffn: [DENSE, DENSE]});
    const neurons = Array.from({length: DENSE.width}, (_, i) => (7 * i) % DENSE.width);
    const experts = [0, 1, 2, 3].map((e) => neurons.slice(4 + 4 * e, 8 + 4 * e));
    const routing = {...SOFTMAX_ROUTING, weight: 'one'} as const;
    const cut = splitModel(dense, {shared: neurons.slice(0, 4), experts, topK: 4}, routing);
    const expected = await logitsOf(engine, tokens, {}, dense);
    expect(await logitsOf(engine, tokens, {}, cut)).toBeAllClose(expected, rounding);
  });

  onEveryEngine('may stand in any order', async (engine) => {
    const order = Array.from({length: MOE.experts}, (_, e) => (5 * e + 3) % MOE.experts);
    const shuffled = {...model, weights: {...model.weights}};
    for (const name of ['gate', 'up', 'down'].map((part) => `layers.1.ffn.experts.${part}`)) {
      shuffled.weights[name] = reorderFirst(model.weights[name]!, order);
    }
    shuffled.weights['layers.1.ffn.router'] = reorderLast(model.weights['layers.1.ffn.router']!, order);
    const expected = await plain(engine);
    for (const options of [{gather: 4}, {}]) {
      expect(await logitsOf(engine, tokens, options, shuffled)).toBeAllClose(expected, rounding);
    }
  });

  onEveryEngine('give a selection bias the gradient zero', async (engine) => {
    const biased = randomModel({ffn: [{...MOE, selectionBias: true, router: 'linear'}]});
    const {gradients} = await lossAndGradients(engine, biased, tokens);
    expect(gradients['layers.0.ffn.bias']!.values).toBeAllClose(new Array(MOE.experts).fill(0), {rtol: 0, atol: 0});
  });
});

describe('a tied head', () => {
  onEveryEngine('has the gradient of the embedding and of the head added up', async (engine) => {
    const tied = randomModel({tied: true, ffn: [DENSE]});
    const untied: HostModel = {
      architecture: {...tied.architecture, tied: false},
      weights: {...tied.weights, head: tied.weights.embed!},
    };
    const {gradients: one} = await lossAndGradients(engine, tied, tokens);
    const {gradients: two} = await lossAndGradients(engine, untied, tokens);
    const {embed, head} = two;
    const sum = Array.from(embed!.values, (value, i) => value + head!.values[i]!);
    expect(one.embed!.values).toBeAllClose(sum, rounding);
  });
});

function isClose(a: ArrayLike<number>, b: readonly number[]): boolean {
  return b.every((value, i) => Math.abs(a[i]! - value) <= rounding.atol + rounding.rtol * Math.abs(value));
}

function reorderFirst({shape, values}: Host, order: readonly number[]): Host {
  const size = values.length / order.length;
  return floats(
    shape,
    order.flatMap((from) => Array.from(values.subarray(from * size, (from + 1) * size))),
  );
}

function reorderLast({shape, values}: Host, order: readonly number[]): Host {
  const n = order.length;
  return floats(
    shape,
    Array.from(values, (_, i) => values[i - (i % n) + order[i % n]!]!),
  );
}
