import {describe, expect, it} from 'vitest';
import type {Calibration} from '../../src/downcycle/calibration.js';
import {convert} from '../../src/downcycle/convert.js';
import {openTensors} from '../../src/format/tensor-store.js';
import {decode} from '../../src/model/decoder.js';
import {loadModel} from '../../src/model/model.js';
import {mapTree} from '../../src/model/parameters.js';
import {DataError} from '../../src/util/errors.js';
import {createRng} from '../../src/util/rng.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA} from '../model/tiny-llama.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import * as tf from '../support/tfjs.js';
import {splitOptions} from './split-options.js';

const scratch = useScratch();
const [S, D, E] = [16, 16, 4];
const SHARED = 8; // the first neurons, of which each expert has the next four in turn
const method = splitOptions({method: 'contiguous', experts: E, shared: 2, topK: 2, router: 'centroid', weights: 'one'});

function calibrationOf(sequences: number, length = S): Calibration {
  const rng = createRng(9, 'tokens');
  const tokens = Int32Array.from({length: sequences * length}, () => rng.int(32));
  return {tokens, sequenceLength: length, tasks: ['a'], taskOfSample_J: new Int32Array(sequences), hash: 'h'};
}

async function rowsOf(out: string, calibration: Calibration, seed = 1): Promise<number[][]> {
  await convert({model: TINY_LLAMA, out, method, seed, calibration});
  const tensors = await openTensors(out);
  const values = await tensors.read('model.layers.0.mlp.gate.weight');
  await tensors.close();
  return Array.from({length: E}, (_, e) => [...values.subarray(e * D, (e + 1) * D)]);
}

/** What the first FFN reads, and Σ|h| of each expert, for every token. */
async function firstLayer({tokens}: Calibration): Promise<{y: number[][]; activity: number[][]}> {
  const model = await loadModel(TINY_LLAMA);
  const params = mapTree(model.parameters, (variable) => variable.read());
  const ffn = params.layers[0]!.ffn;
  if (ffn.kind !== 'dense') throw new Error('not dense');
  const found: {y: number[][]; activity: number[][]} = {y: [], activity: []};
  tf.tidy(() => {
    const onFfnInput = (layer: number, x_TD: tf.Tensor2D): void => {
      if (layer > 0) return;
      const gate = tf.matMul(x_TD, ffn.gate as tf.Tensor2D);
      const h = tf.mul(tf.mul(gate, tf.sigmoid(gate)), tf.matMul(x_TD, ffn.up as tf.Tensor2D)).abs();
      found.y = x_TD.arraySync();
      found.activity = (h.slice([0, SHARED]).reshape([-1, E, 4]).sum(2) as tf.Tensor2D).arraySync();
    };
    decode(params, model.architecture, {token_BS: tf.tensor2d(tokens, [tokens.length / S, S], 'int32')}, {onFfnInput});
  });
  tf.dispose(params as never);
  model.dispose();
  return found;
}

const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
const unit = (x: readonly number[]): number[] => x.map((value) => value / Math.sqrt(dot(x, x)));
const argMax = (x: readonly number[]): number => x.indexOf(Math.max(...x));

function permutations(n: number): number[][] {
  if (n === 0) return [[]];
  return permutations(n - 1).flatMap((rest) => Array.from({length: n}, (_, at) => rest.toSpliced(at, 0, n - 1)));
}

describe('router centroid', () => {
  for (const engine of ['tensorflow-compiled', 'wasm'] as const) {
    onEngine(engine, 'has rows that are the mean directions of the inputs that they score highest', async () => {
      const calibration = calibrationOf(8);
      const rows = await rowsOf(scratch('moe'), calibration);
      const {y} = await firstLayer(calibration);
      const directions = y.map(unit);
      const clusters = directions.map((x) => argMax(rows.map((row) => dot(x, row))));
      expect(new Set(clusters).size).toBe(E);
      for (const [e, row] of rows.entries()) {
        const members = directions.filter((_, t) => clusters[t] === e);
        const mean = members.reduce((sum, x) => sum.map((value, i) => value + x[i]!));
        expect(row).toBeAllClose(unit(mean), {rtol: 1e-4, atol: 1e-5});
      }
    });
  }

  onEngine('wasm', 'gives clusters to experts so that no exchange makes them more active', async () => {
    const calibration = calibrationOf(8);
    const rows = await rowsOf(scratch('moe'), calibration);
    const {y, activity} = await firstLayer(calibration);
    const clusters = y.map((x) => argMax(rows.map((row) => dot(x, row))));
    const found = (expertOf: readonly number[]): number =>
      clusters.reduce((sum, cluster, t) => sum + activity[t]![expertOf[cluster]!]!, 0);
    const all = permutations(E).map(found);
    expect(all).toHaveLength(24);
    expect(found([0, 1, 2, 3])).toBeAllClose(Math.max(...all), {rtol: 1e-6});
    expect(Math.min(...all)).toBeLessThan(0.99 * Math.max(...all));
  });

  onEngine('wasm', 'depends on the seed alone', async () => {
    const calibration = calibrationOf(4);
    const first = await rowsOf(scratch('a'), calibration, 1);
    expect(await rowsOf(scratch('b'), calibration, 1)).toEqual(first);
    expect(await rowsOf(scratch('c'), calibration, 2)).not.toEqual(first);
  });

  onEngine('tensorflow-compiled', 'leaves no tensor behind', () =>
    expectNoLeak(async () => {
      await rowsOf(scratch('moe'), calibrationOf(2));
    }),
  );

  onEngine('wasm', 'refuses fewer tokens than experts, and leaves nothing behind', async () => {
    await expectNoLeak(async () => {
      const made = convert({model: TINY_LLAMA, out: scratch('moe'), method, seed: 1, calibration: calibrationOf(1, 3)});
      await expect(made).rejects.toThrow(DataError);
      await expect(made).rejects.toThrow('Router centroid asks for 4 clusters of 3 calibration tokens.');
    });
  });

  it('needs calibration text', async () => {
    await expect(convert({model: TINY_LLAMA, out: scratch('moe'), method, seed: 1})).rejects.toThrow(
      'regroup, router ridge, router centroid and repair refit need calibration text, none was given.',
    );
  });
});
