// Every family against transformers: models and figures are those of scripts/family-fixtures.py.
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {describe, expect, it} from 'vitest';
import {convert} from '../../src/downcycle/convert.js';
import {proveConversion} from '../../src/downcycle/proof.js';
import {type ModelFolder, openModelFolder} from '../../src/format/model-folder.js';
import {architectureFromConfig} from '../../src/model/config.js';
import {FAMILIES} from '../../src/model/family/registry.js';
import {loadParameters} from '../../src/model/load.js';
import {createLossMeter} from '../../src/model/loss-meter.js';
import {loadModel} from '../../src/model/model.js';
import {parameterName} from '../../src/model/names.js';
import {saveModel} from '../../src/model/save.js';
import {useScratch} from '../format/scratch.js';
import {readJson, readTensors} from '../golden/goldens.js';
import {forward, lossAndGradients, readHostModel} from '../golden/run-model.js';
import {onEngine, onEveryEngine} from '../support/engines.js';
import {dot} from '../support/host.js';

interface Golden {
  readonly loss: number;
  readonly gradient_norms: Readonly<Record<string, number>>;
}

const scratch = useScratch();

describe.each(Object.values(FAMILIES))('$modelType', ({modelType, names}) => {
  const path = fileURLToPath(new URL(`../fixtures/family/${modelType}`, import.meta.url));
  const golden = readJson<Golden>(join(path, 'golden.json'));
  const {ids, logits: expected} = readTensors(join(path, 'golden.safetensors'));

  onEveryEngine('has the logits of transformers', async (engine) => {
    const {logits} = await forward(engine, await readHostModel(path), ids!);
    expect(logits.values).toBeAllClose(expected!.values, {rtol: 0, atol: 1e-5});
  });

  onEveryEngine('has the loss and the gradient norm of every parameter of transformers', async (engine) => {
    const {loss, gradients} = await lossAndGradients(engine, await readHostModel(path), ids!);
    expect(loss).toBeAllClose(golden.loss, {rtol: 0, atol: 2e-6});
    const norms = Object.entries(gradients).map(([of, {values}]) => [of, Math.sqrt(dot(values, values))] as const);
    const wanted = Object.entries(golden.gradient_norms).map(([of, norm]) => [parameterName(of, names)!.path, norm]);
    expect(norms.map(([of]) => of).sort()).toEqual(wanted.map(([of]) => of).sort());
    const byPath = Object.fromEntries(wanted) as Readonly<Record<string, number>>;
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

  onEngine('wasm', 'is cut into experts that compute the same, all else the same bits', async () => {
    const method = {method: 'random', experts: 10, shared: 2, topK: 3, outputScale: 'none'} as const;
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

async function expectSameTensors(from: ModelFolder, to: ModelFolder, names: readonly string[]): Promise<void> {
  for (const name of names) {
    expect(await to.tensors.readBytes(name), name).toEqual(await from.tensors.readBytes(name));
  }
}

async function* once<T>(item: T): AsyncGenerator<T> {
  yield item;
}
