import {readFileSync} from 'node:fs';
import {describe, expect} from 'vitest';
import {randomUniform} from '../../../src/op/random.js';
import {drawExperts} from '../../../src/train/routing/sparse-mixer.js';
import {onEveryEngine, type TestEngine} from '../../support/engines.js';
import {floats, ints} from '../../support/host.js';
import * as tf from '../../support/tfjs.js';

/** Numbers of test/fixtures/train/make_sparse_mixer.py: two of five experts for 24 tokens. */
interface Torch extends Readonly<Record<'tokens' | 'numExperts' | 'topK' | 'jitter', number>> {
  readonly logits: number[];
  readonly draws: number[];
  readonly toward: number[];
  readonly experts: number[];
  readonly weights: number[];
  readonly gradient: number[];
}
const torch = JSON.parse(readFileSync('test/fixtures/train/sparse_mixer.json', 'utf8')) as Torch;
const [T, E, K] = [torch.tokens, torch.numExperts, torch.topK];

describe('drawn experts', () => {
  onEveryEngine('are those of transformers, with its weights and gradient', async ({run}) => {
    const fn = (logit_TE: tf.Tensor2D, draws: tf.Tensor3D, toward: tf.Tensor2D): tf.Tensor[] => {
      const {expert_TK, weight_TK} = drawExperts(logit_TE, 2 * torch.jitter, draws);
      const weights = (logits: tf.Tensor): tf.Tensor =>
        drawExperts(logits as tf.Tensor2D, 2 * torch.jitter, draws).weight_TK;
      return [expert_TK, weight_TK, tf.grad(weights)(logit_TE, toward)];
    };
    const inputs = [
      floats([T, E], torch.logits),
      floats([K, T, E + 1], torch.draws),
      floats([T, K], torch.toward),
    ] as const;
    const [expert, weight, gradient] = await run(fn, ...inputs);
    expect([...expert!.values]).toEqual(torch.experts);
    expect(weight!.values).toBeAllClose(torch.weights, {rtol: 1e-5, atol: 1e-7});
    expect(gradient!.values).toBeAllClose(torch.gradient, {rtol: 1e-5, atol: 1e-6});
  });
});

/** A choice among three experts with results f: the loss is a polynomial of weight · result. */
const LOGITS = [0.4, -0.3, 0.1];
const RESULTS = [1.3, -2.1, 3];
const probabilities = LOGITS.map((logit) => Math.exp(logit) / LOGITS.reduce((sum, one) => sum + Math.exp(one), 0));

/** A loss and its slope, and the same of tensors. */
interface Loss {
  readonly at: (h: number) => number;
  readonly slope: (h: number) => number;
  readonly of: (h: tf.Tensor) => tf.Tensor;
}
const LINEAR: Loss = {at: (h) => 2 * h + 5, slope: () => 2, of: (h) => tf.add(tf.mul(h, 2), 5)};
const CUBIC: Loss = {
  at: (h) => h ** 3 - 2 * h ** 2 + h + 5,
  slope: (h) => 3 * h ** 2 - 4 * h + 1,
  of: (h) => tf.add(tf.mul(h, tf.square(tf.sub(h, 1))), 5),
};

/** `Σ_e change_e · ∂p_e/∂logit_j` */
function throughSoftmax(change: readonly number[]): number[] {
  const mean = change.reduce((sum, one, e) => sum + one * probabilities[e]!, 0);
  return change.map((one, j) => probabilities[j]! * (one - mean));
}

/** Mean and standard error of the gradient of many draws. */
async function estimate({run}: TestEngine, loss: Loss): Promise<{mean: number[]; error: number[]}> {
  const draws = 20_000;
  const fn = (logit_1E: tf.Tensor2D, result_1E: tf.Tensor2D, seed_2: tf.Tensor1D): tf.Tensor => {
    const logit_TE = tf.tile(logit_1E, [draws, 1]);
    const uniform = randomUniform(seed_2, [1, draws, 4]) as tf.Tensor3D;
    const total = (logits: tf.Tensor): tf.Tensor => {
      const {expert_TK, weight_TK} = drawExperts(logits as tf.Tensor2D, 200, uniform);
      return loss.of(
        tf.mul(weight_TK, tf.expandDims(tf.gather(tf.reshape(result_1E, [3]), tf.reshape(expert_TK, [draws])), 1)),
      );
    };
    return tf.grad(total)(logit_TE);
  };
  const [gradient] = await run(fn, floats([1, 3], LOGITS), floats([1, 3], RESULTS), ints([2], [5, 6]));
  const column = (e: number): number[] => Array.from({length: draws}, (_, t) => gradient!.values[t * 3 + e]!);
  const mean = [0, 1, 2].map((e) => column(e).reduce((a, b) => a + b, 0) / draws);
  const error = mean.map((m, e) => Math.sqrt(column(e).reduce((sum, x) => sum + (x - m) ** 2, 0)) / draws);
  return {mean, error};
}

function expectWithin({mean, error}: {mean: number[]; error: number[]}, exact: readonly number[]): void {
  for (const [e, value] of mean.entries()) {
    expect(error[e]!, 'the law can tell').toBeLessThan(0.02 * Math.max(...exact.map(Math.abs)));
    expect(Math.abs(value - exact[e]!), `logit ${e}: ${value}, exactly ${exact[e]}`).toBeLessThan(4 * error[e]!);
  }
}

describe('the gradient of a drawn expert, over many draws', () => {
  const gained = ({at}: Loss): number[] => RESULTS.map((f, e) => at(probabilities[e]! * f) - at(0));

  onEveryEngine('is the exact one of the choice for a linear loss', async (engine) => {
    expectWithin(await estimate(engine, LINEAR), throughSoftmax(gained(LINEAR)));
  });

  onEveryEngine(
    'is the exact one for a cubic loss, but for the first order of the likeliest expert',
    async (engine) => {
      const [h] = [probabilities[0]! * RESULTS[0]!];
      const [, ...others] = gained(CUBIC);
      const expected = throughSoftmax([h * CUBIC.slope(h), ...others]);
      const estimated = await estimate(engine, CUBIC);
      expectWithin(estimated, expected);
      const firstOrder = throughSoftmax(
        RESULTS.map((f, e) => probabilities[e]! * f * CUBIC.slope(probabilities[e]! * f)),
      );
      const gap = Math.max(...firstOrder.map((one, e) => Math.abs(one - expected[e]!) / estimated.error[e]!));
      expect(gap, 'a first-order estimate would not pass').toBeGreaterThan(8);
    },
  );
});
