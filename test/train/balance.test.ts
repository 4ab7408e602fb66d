import {readFileSync} from 'node:fs';
import {describe, expect} from 'vitest';
import {SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import type {RouterTrace} from '../../src/model/moe.js';
import {route} from '../../src/model/router.js';
import {type BalanceContext, type Balanced, routerLosses} from '../../src/train/balance.js';
import {type BalanceOptions, balanceSchema} from '../../src/train/balance-options.js';
import {onEveryEngine, type TestEngine} from '../support/engines.js';
import {checkGradients} from '../support/gradients.js';
import {floats, type Host, normals} from '../support/host.js';
import * as tf from '../support/tfjs.js';
import {referenceRouterLosses} from './reference.js';

const AUX = balanceSchema.parse({});
/** One row of text, and no pass before. */
const ALONE = {sequences: 1, earlier: []};

/** What a router of these logits leaves behind. */
function trace(logit_TE: tf.Tensor2D, topK: number): Omit<RouterTrace, 'innerLoad_N'> {
  const E = logit_TE.shape[1];
  const {expert_TK, weight_TK, score_TE} = route(logit_TE, null, topK, SOFTMAX_ROUTING);
  const load_E = tf.cast(tf.sum(tf.oneHot(expert_TK, E), [0, 1]), 'int32') as tf.Tensor1D;
  return {logit_TE, score_TE, expert_TK, weight_TK, load_E};
}

/** Balance and z-loss of a few layers. */
async function losses(
  {run}: TestEngine,
  layers: readonly Host[],
  topK: number,
  options: BalanceOptions = AUX,
): Promise<[number, number]> {
  const fn = (...logits: tf.Tensor2D[]): tf.Tensor[] => {
    const {balance, z} = routerLosses(
      logits.map((logit_TE) => trace(logit_TE, topK)),
      options,
      ALONE,
    );
    return [balance, z];
  };
  const [balance, z] = await run(fn, ...layers);
  return [balance!.values[0]!, z!.values[0]!];
}

const rowsOf = ({shape, values}: Host): number[][] =>
  Array.from({length: shape[0]!}, (_, t) => [...values.subarray(t * shape[1]!, (t + 1) * shape[1]!)]);

describe('the balance loss', () => {
  onEveryEngine('is 1 when every expert gets its even share', async (engine) => {
    const even = floats(
      [4, 4],
      Array.from({length: 16}, (_, i) => (i % 4 === Math.floor(i / 4) ? 1 : 0)),
    );
    expect((await losses(engine, [even], 1))[0]).toBeCloseTo(1, 6);
  });

  onEveryEngine('is the number of experts when all tokens go to one for certain', async (engine) => {
    const collapsed = floats(
      [6, 8],
      Array.from({length: 48}, (_, i) => (i % 8 === 3 ? 40 : 0)),
    );
    expect((await losses(engine, [collapsed], 1))[0]).toBeCloseTo(8, 5);
  });

  onEveryEngine('and the z-loss equal their definitions token by token', async (engine) => {
    for (const topK of [1, 3]) {
      const logits = normals([50, 6], 20 + topK);
      const {balance, z} = referenceRouterLosses(rowsOf(logits), topK);
      expect(await losses(engine, [logits], topK)).toBeAllClose([balance, z], {rtol: 2e-6, atol: 0});
    }
  });

  onEveryEngine('and the z-loss of a model are the means over its layers', async (engine) => {
    const layers = [normals([30, 5], 31), normals([30, 7], 32)];
    const each = layers.map((logits) => referenceRouterLosses(rowsOf(logits), 2));
    const mean = (key: 'balance' | 'z'): number => (each[0]![key] + each[1]![key]) / 2;
    expect(await losses(engine, layers, 2)).toBeAllClose([mean('balance'), mean('z')], {rtol: 2e-6, atol: 0});
  });

  onEveryEngine('has the gradient E·f_e/T to the probabilities: counts are constants', async ({run}) => {
    const gradient = (logit_TE: tf.Tensor2D): tf.Tensor => {
      const given = trace(logit_TE, 2);
      const loss = (score_TE: tf.Tensor2D): tf.Scalar => routerLosses([{...given, score_TE}], AUX, ALONE).balance;
      return tf.grad((score) => loss(tf.softmax(score as tf.Tensor2D)))(logit_TE);
    };
    const logits = normals([12, 4], 41);
    const [result] = await run(gradient, logits);
    expect(result!.values).toBeAllClose(balanceGradient(rowsOf(logits), 2), {rtol: 1e-5, atol: 1e-7});
  });
});

describe('other balance losses', () => {
  /** Numbers of test/fixtures/train/make_balance.py: two layers of six tokens, two of four experts each. */
  const torch = JSON.parse(readFileSync('test/fixtures/train/balance.json', 'utf8')) as Record<string, number>;
  const layers = [0, 1].map((layer) =>
    floats(
      [6, 4],
      Array.from({length: 24}, (_, i) => Math.sin(1.7 * i * i + layer)),
    ),
  );
  const renormalised = (logit_TE: tf.Tensor2D): ReturnType<typeof trace> => {
    const {weight_TK, ...rest} = trace(logit_TE, 2);
    return {...rest, weight_TK: tf.div(weight_TK, tf.sum(weight_TK, 1, true))};
  };
  const balanceOf = async (
    {run}: TestEngine,
    options: object,
    context: (logits: readonly tf.Tensor2D[]) => BalanceContext,
  ): Promise<number> => {
    const fn = (...logits: tf.Tensor2D[]): tf.Tensor[] => [
      routerLosses(logits.map(renormalised), balanceSchema.parse(options), context(logits)).balance,
    ];
    const [balance] = await run(fn, ...layers);
    return balance!.values[0]!;
  };

  onEveryEngine('equal those of transformers and torch', async (engine) => {
    const rows = (): BalanceContext => ({sequences: 2, earlier: []});
    expect(await balanceOf(engine, {kind: 'pooled'}, rows)).toBeAllClose(torch.pooled!, {rtol: 1e-6, atol: 0});
    expect(await balanceOf(engine, {kind: 'cv2'}, rows)).toBeAllClose(torch.cv2!, {rtol: 2e-6, atol: 0});
    for (const options of [{scope: 'sequence'}, {kind: 'bias'}]) {
      expect(await balanceOf(engine, options, rows)).toBeAllClose(torch.sequence!, {rtol: 1e-6, atol: 0});
    }
  });

  onEveryEngine('take shares over all passes of a step, or over one', async (engine) => {
    const again = (logits: readonly tf.Tensor2D[]): BalanceContext => ({
      sequences: 2,
      earlier: logits.map((logit_TE) => tf.cast(trace(logit_TE, 2).load_E, 'float32')),
    });
    const even = (logits: readonly tf.Tensor2D[]): BalanceContext => ({
      sequences: 2,
      earlier: logits.map((logit_TE) => tf.sub(1e6, tf.cast(trace(logit_TE, 2).load_E, 'float32'))),
    });
    const alone = await balanceOf(engine, {}, () => ({sequences: 2, earlier: []}));
    expect(await balanceOf(engine, {}, again), 'the same shares').toBeCloseTo(alone, 6);
    expect(await balanceOf(engine, {}, even), 'even shares').toBeCloseTo(1, 5);
    expect(await balanceOf(engine, {scope: 'micro-batch'}, even)).toBeCloseTo(alone, 6);
  });

  onEveryEngine('with noise has the variation of expected loads besides', async ({run}) => {
    const cv2 = balanceSchema.parse({kind: 'cv2'});
    const chances = floats([2, 3], [0.9, 0.5, 0.1, 0.3, 0.6, 0.9]); // summed 1.2, 1.1, 1: variance 0.01 about 1.1
    const fn = (logit_TE: tf.Tensor2D, chance_TE: tf.Tensor2D): tf.Tensor => {
      const plain = trace(logit_TE, 2);
      const balance = (one: Balanced): tf.Scalar => routerLosses([one], cv2, ALONE).balance;
      return tf.sub(balance({...plain, chance_TE}), balance(plain));
    };
    const [besides] = await run(fn, normals([2, 3], 6), chances);
    expect(besides!.values[0]).toBeCloseTo(0.01 / 1.21, 6);
  });

  onEveryEngine('have the gradient of finite differences where the choice stands', async (engine) => {
    const logits = floats([4, 3], [3, 1, -2, 0.5, 3, -1, 2.5, -2, 0, -3, 1, 3.5]);
    for (const options of [{kind: 'pooled'}, {kind: 'cv2'}, {scope: 'sequence'}]) {
      const loss = (logit_TE: tf.Tensor2D): tf.Tensor =>
        routerLosses([trace(logit_TE, 2)], balanceSchema.parse(options), {sequences: 2, earlier: []}).balance;
      await checkGradients(engine, loss, [logits]);
    }
  });
});

describe('the z-loss', () => {
  onEveryEngine('grows with the square of a shift of all logits', async (engine) => {
    const flat = (level: number): Host => floats([3, 4], new Array(12).fill(level));
    for (const level of [-2, 0, 5]) {
      expect((await losses(engine, [flat(level)], 1))[1]).toBeCloseTo((level + Math.log(4)) ** 2, 4);
    }
  });

  onEveryEngine('has the gradient of finite differences', (engine) =>
    checkGradients(engine, (logit_TE: tf.Tensor2D) => routerLosses([trace(logit_TE, 1)], AUX, ALONE).z, [
      normals([5, 4], 3),
    ]),
  );
});

describe('a dense model', () => {
  onEveryEngine('has no router losses', async (engine) => {
    expect(await losses(engine, [], 1)).toEqual([0, 0]);
  });
});

/** dL/dlogit = p · (g − Σ p·g) with g_e = E · f_e / T. */
function balanceGradient(logits: readonly (readonly number[])[], topK: number): number[] {
  const T = logits.length;
  const E = logits[0]!.length;
  const ranked = logits.map((row) => row.map((_, e) => e).sort((a, b) => row[b]! - row[a]!));
  const share = (e: number): number => ranked.filter((order) => order.slice(0, topK).includes(e)).length / (T * topK);
  const slope = Array.from({length: E}, (_, e) => (E * share(e)) / T);
  return logits.flatMap((row) => {
    const sum = row.reduce((total, logit) => total + Math.exp(logit), 0);
    const p = row.map((logit) => Math.exp(logit) / sum);
    const mean = p.reduce((total, one, e) => total + one * slope[e]!, 0);
    return p.map((one, e) => one * (slope[e]! - mean));
  });
}
