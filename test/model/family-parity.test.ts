// Every family against transformers: models and figures are those of scripts/family-fixtures.py.
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {describe, expect, it} from 'vitest';
import {convert} from '../../src/downcycle/convert.js';
import {proveConversion} from '../../src/downcycle/proof.js';
import {type ModelFolder, openModelFolder} from '../../src/format/model-folder.js';
import type {Family} from '../../src/model/architecture.js';
import {architectureFromConfig} from '../../src/model/config.js';
import {decode} from '../../src/model/decoder.js';
import {FAMILIES} from '../../src/model/family/registry.js';
import {glu} from '../../src/model/glu.js';
import {loadParameters} from '../../src/model/load.js';
import {createLossMeter} from '../../src/model/loss-meter.js';
import {loadModel} from '../../src/model/model.js';
import {parametersIn} from '../../src/model/names.js';
import {leavesOf, parameterSpecs, treeOf} from '../../src/model/parameters.js';
import {saveModel} from '../../src/model/save.js';
import {rmsNorm} from '../../src/op/rms-norm.js';
import {createTrainState, disposeTrainState} from '../../src/train/state.js';
import {createStepRunner} from '../../src/train/step-runner.js';
import {splitOptions} from '../downcycle/split-options.js';
import {useScratch} from '../format/scratch.js';
import {readJson, readTensors} from '../golden/goldens.js';
import {forward, lossAndGradients, readHostModel} from '../golden/run-model.js';
import {onEngine, onEveryEngine} from '../support/engines.js';
import {dot, ints} from '../support/host.js';
import * as tf from '../support/tfjs.js';
import {FRESH, PLAIN_STEP, ratesAt, SEED} from '../train/support.js';

interface Golden {
  readonly loss: number;
  /** Of a tensor that holds several parameters, of each. */
  readonly gradient_norms: Readonly<Record<string, number | readonly number[]>>;
}

const scratch = useScratch();

describe.each(Object.values(FAMILIES))('$modelType', ({modelType, names, saysExperts}) => {
  const path = fixtureOf(modelType);
  const golden = readJson<Golden>(join(path, 'golden.json'));
  const {ids, logits: expected} = readTensors(join(path, 'golden.safetensors'));

  // Measured float32 noise, largest of all families and engines: logits 5e-6, loss 5e-7, gradient norms 1.6e-6 relative.
  onEveryEngine('has the logits of transformers', async (engine) => {
    const {logits} = await forward(engine, await readHostModel(path), ids!);
    expect(logits.values).toBeAllClose(expected!.values, {rtol: 0, atol: 1e-5});
  });

  onEveryEngine('has the loss and the gradient norm of every parameter of transformers', async (engine) => {
    const {loss, gradients} = await lossAndGradients(engine, await readHostModel(path), ids!);
    expect(loss).toBeAllClose(golden.loss, {rtol: 0, atol: 2e-6});
    const norms = Object.entries(gradients).map(([of, {values}]) => [of, Math.sqrt(dot(values, values))] as const);
    const byPath: Record<string, number> = {}; // of experts there are many of one path
    for (const [name, found] of Object.entries(golden.gradient_norms)) {
      for (const [i, norm] of [found].flat().entries()) {
        const {path: of} = parametersIn(name, names)[i]!;
        byPath[of] = Math.hypot(byPath[of] ?? 0, norm);
      }
    }
    expect(norms.map(([of]) => of).sort()).toEqual(Object.keys(byPath).sort());
    for (const [of, norm] of norms) expect(norm, of).toBeAllClose(byPath[of]!, {rtol: 1e-4, atol: 0});
  });

  onEngine('wasm', 'is measured with the loss of transformers', async () => {
    const model = await loadModel(path);
    const meter = createLossMeter(model, ids!.shape[1]! - 1, 'float32');
    const {loss} = await meter.measure(once({tokens: Int32Array.from(ids!.values)}));
    meter.dispose();
    model.dispose();
    expect(loss).toBeAllClose(golden.loss, {rtol: 0, atol: 2e-6});
  });

  onEngine('wasm', 'is trained from the loss and the gradient norm of transformers', async () => {
    const model = await loadModel(path);
    const state = await createTrainState(model, FRESH);
    const runner = createStepRunner(state, {...PLAIN_STEP, clip: 1, sequenceLength: ids!.shape[1]! - 1});
    const {loss, gradNorm} = await runner.run([{tokens: Int32Array.from(ids!.values)}], ratesAt(0.01, 1), SEED);
    runner.dispose();
    disposeTrainState(state);
    model.dispose();
    expect(loss).toBeAllClose(golden.loss, {rtol: 0, atol: 2e-6});
    expect(gradNorm).toBeAllClose(Math.hypot(...Object.values(golden.gradient_norms).flat()), {rtol: 1e-5, atol: 0});
  });

  it('is the same bits and the same architecture once saved', async () => {
    const [from, read] = [await openModelFolder(path), new Map<string, Float32Array>()];
    const architecture = architectureFromConfig(from.config, path);
    expect(await loadParameters(from, architecture, (spec, values) => void read.set(spec.path, values))).toEqual([]);
    const options = {architecture, config: from.config, dtype: 'F32' as const};
    await saveModel(scratch('saved'), {...options, read: (spec) => read.get(spec.path)!});
    const to = await openModelFolder(scratch('saved'));
    expect(architectureFromConfig(to.config, 'saved')).toEqual(architecture);
    expect(to.config).toMatchObject(from.config);
    await expectSameTensors(from, to, from.tensors.names);
    await from.close();
    await to.close();
  });

  if (saysExperts) return; // a mixture is not cut as a dense model is

  onEngine('wasm', 'is cut into experts that compute the same, all else the same bits', async () => {
    const method = splitOptions({method: 'random', experts: 10, shared: 2, topK: 3, outputScale: 'none'});
    await convert({model: path, out: scratch('moe'), method, seed: 5});
    const rows = [Array.from(ids!.values.subarray(0, 12)), Array.from(ids!.values.subarray(12))];
    const {passed, maxLogitDifference} = await proveConversion(path, scratch('moe'), rows);
    expect(passed).toBe(true);
    expect(maxLogitDifference).toBeLessThan(1e-5);
    const [from, to] = [await openModelFolder(path), await openModelFolder(scratch('moe'))];
    const {ffn, ...rest} = architectureFromConfig(from.config, path);
    expect(architectureFromConfig(to.config, 'moe')).toMatchObject(rest);
    const kept = from.tensors.names.filter((name) => !name.includes('.mlp.'));
    expect(kept.length).toBe(from.tensors.names.length - 3 * ffn.length);
    await expectSameTensors(from, to, kept);
    await from.close();
    await to.close();
  });
});

describe('the input of the feed-forward part', () => {
  onEngine('wasm', 'is what its matrices are multiplied with, also where norms come after', async ({run}) => {
    const {architecture, weights} = await readHostModel(fixtureOf('olmo2'));
    const leaves = leavesOf(parameterSpecs(architecture)).map(({path}) => weights[path]!);
    const tokens = ints([1, 5], [3, 1, 4, 1, 5]);
    const [hidden, again] = await run(
      (token_BS, ...values) => {
        const params = treeOf(parameterSpecs(architecture), values);
        const seen: tf.Tensor2D[] = [];
        const onFfnInput = (_: number, x_TD: tf.Tensor2D): void => void seen.push(x_TD);
        const {hidden_TD} = decode(params, architecture, {token_BS: token_BS as tf.Tensor2D}, {onFfnInput});
        const {ffn, ffnNorm} = params.layers[1]!;
        if (ffn.kind !== 'dense') throw new Error('not dense');
        const norm = (x: tf.Tensor2D, weight: tf.Tensor | null): tf.Tensor2D => rmsNorm(x, weight as tf.Tensor1D, 1e-6);
        const last_TD: tf.Tensor2D = tf.add(seen[1]!, norm(glu(seen[1]!, ffn), ffnNorm));
        return [hidden_TD, norm(last_TD, params.norm)];
      },
      tokens,
      ...leaves,
    );
    expect(again!.values).toBeAllClose(hidden!.values, {rtol: 0, atol: 0});
  });
});

function fixtureOf(family: Family): string {
  return fileURLToPath(new URL(`../fixtures/family/${family}`, import.meta.url));
}

async function expectSameTensors(from: ModelFolder, to: ModelFolder, names: readonly string[]): Promise<void> {
  for (const name of names) {
    expect(await to.tensors.readBytes(name), name).toEqual(await from.tensors.readBytes(name));
  }
}

async function* once<T>(item: T): AsyncGenerator<T> {
  yield item;
}
