import {existsSync} from 'node:fs';
import {mkdir, readFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {convert} from '../../src/downcycle/convert.js';
import {readProvenance} from '../../src/downcycle/provenance.js';
import {scratch as fromScratch, type UpcycleOptions, upcycle} from '../../src/downcycle/upcycle.js';
import {openModelFolder} from '../../src/format/model-folder.js';
import {architectureFromConfig} from '../../src/model/config.js';
import {initialValues} from '../../src/model/init.js';
import {loadParameters} from '../../src/model/load.js';
import {loadModel} from '../../src/model/model.js';
import {EnvironmentError, ModelError} from '../../src/util/errors.js';
import {useScratch} from '../format/scratch.js';
import {
  TINY_LLAMA,
  tinyArchitecture,
  tinyConfig,
  tinyGolden,
  writeTinyLlama,
  writeTokenizer,
} from '../model/tiny-llama.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import {logitsOf} from '../support/logits.js';
import {splitOptions} from './split-options.js';

const scratch = useScratch();
const method = {method: 'sparse-upcycle', experts: 3, topK: 2, renormalise: true} as const;

function options(changes: Partial<UpcycleOptions> = {}): UpcycleOptions {
  return {model: TINY_LLAMA, out: scratch('moe'), method, seed: 7, ...changes};
}

describe('upcycle', () => {
  for (const engine of ['tensorflow-compiled', 'wasm'] as const) {
    onEngine(engine, 'starts out equal to the dense model when weights are renormalised', () =>
      expectNoLeak(async () => {
        await upcycle(options());
        const model = await loadModel(scratch('moe'));
        const received = await logitsOf(model, [tinyGolden.ids]);
        model.dispose();
        expect(received).toBeAllClose(tinyGolden.logits, {rtol: 0, atol: 5e-6});
      }),
    );
  }

  it.each(['F32', 'BF16'] as const)('makes every expert the bytes of the dense FFN, in %s', async (dtype) => {
    const model = await writeTinyLlama(scratch('dense'), {dtype});
    await upcycle(options({model}));
    const [dense, moe] = [await openModelFolder(model), await openModelFolder(scratch('moe'))];
    for (const name of ['gate_proj', 'up_proj', 'down_proj']) {
      const expected = await dense.tensors.readBytes(`model.layers.1.mlp.${name}.weight`);
      for (const e of [0, 1, 2]) {
        expect(await moe.tensors.readBytes(`model.layers.1.mlp.experts.${e}.${name}.weight`)).toEqual(expected);
      }
    }
    expect(moe.tensors.info('model.layers.0.mlp.gate.weight').dtype).toBe('F32');
    await dense.close();
    await moe.close();
  });

  it('draws routers from the seed, each layer its own', async () => {
    const routers: Float32Array[] = [];
    for (const [name, seed] of [
      ['a', 1],
      ['b', 1],
      ['c', 2],
    ] as const) {
      await upcycle(options({out: scratch(name), seed}));
      const folder = await openModelFolder(scratch(name));
      const {tensors} = folder;
      for (const layer of [0, 1]) routers.push(await tensors.read(`model.layers.${layer}.mlp.gate.weight`));
      await folder.close();
    }
    expect(routers.slice(2, 4)).toEqual(routers.slice(0, 2));
    expect(routers[4]).not.toEqual(routers[0]);
    expect(routers[1]).not.toEqual(routers[0]);
  });

  it('lays out and records what it made', async () => {
    const {architecture} = await upcycle(options({method: {...method, renormalise: false}}));
    const layout = {
      kind: 'moe',
      experts: 3,
      topK: 2,
      expertWidth: 24,
      sharedWidth: 0,
      selectionBias: false,
      router: 'linear',
    };
    expect(architecture).toMatchObject({ffn: [layout, layout], routing: {score: 'softmax', renormalise: false}});
    const folder = await openModelFolder(scratch('moe'));
    const {config} = folder;
    expect(architectureFromConfig(config, '')).toEqual(architecture);
    await folder.close();
    expect(await readProvenance(scratch('moe'))).toMatchObject({kind: 'upcycle', seed: 7, source: {path: TINY_LLAMA}});
  });

  it('refuses a mixture, and a folder that exists', async () => {
    const split = splitOptions({method: 'contiguous', experts: 4, shared: 2, topK: 2, outputScale: 'none'});
    await convert({model: TINY_LLAMA, out: scratch('split'), method: split, seed: 1});
    await expect(upcycle(options({model: scratch('split')}))).rejects.toThrow(ModelError);
    expect(existsSync(scratch('moe'))).toBe(false);
    await expect(upcycle(options({out: scratch('split')}))).rejects.toThrow(EnvironmentError);
  });
});

describe('upcycle with changed copies', () => {
  const drop = {...method, method: 'drop-upcycle', ratio: 0.5} as const;
  const noise = {...method, method: 'noise-upcycle', noise: 0.05, ratio: 1} as const;
  const fileOf = (name: string): Promise<Buffer> => readFile(join(scratch(name), 'model.safetensors'));

  for (const dtype of ['F32', 'BF16', 'F64'] as const) {
    it.each([
      ['ratio 0', {...drop, ratio: 0}],
      ['noise 0', {...noise, noise: 0}],
      ['noise for no neuron', {...noise, ratio: 0}],
    ])(`makes of %s what sparse upcycling makes, bit for bit, in ${dtype}`, async (_, changed) => {
      const model = await writeTinyLlama(scratch('dense'), {dtype});
      await upcycle(options({model, out: scratch('sparse')}));
      await upcycle(options({model, method: changed}));
      expect(await fileOf('moe')).toEqual(await fileOf('sparse'));
    });
  }

  for (const changed of [drop, noise]) {
    it(`${changed.method} gives the same bytes for the same seed, and others for another`, async () => {
      for (const [name, seed] of [
        ['a', 1],
        ['b', 1],
        ['c', 2],
      ] as const) {
        await upcycle(options({method: changed, out: scratch(name), seed}));
      }
      expect(await fileOf('b')).toEqual(await fileOf('a'));
      expect(await fileOf('c')).not.toEqual(await fileOf('a'));
    });

    it(`${changed.method} makes an expert without regard to how many there are, and each another`, async () => {
      await upcycle(options({method: {...changed, experts: 2}, out: scratch('two')}));
      await upcycle(options({method: {...changed, experts: 5}, out: scratch('five')}));
      const [two, five] = [await openModelFolder(scratch('two')), await openModelFolder(scratch('five'))];
      const name = (l: number, e: number, which: string) => `model.layers.${l}.mlp.experts.${e}.${which}.weight`;
      for (const which of ['gate_proj', 'up_proj', 'down_proj']) {
        const first = await two.tensors.readBytes(name(0, 0, which));
        const second = await two.tensors.readBytes(name(0, 1, which));
        expect(await five.tensors.readBytes(name(0, 0, which))).toEqual(first);
        expect(await five.tensors.readBytes(name(0, 1, which))).toEqual(second);
        expect(second).not.toEqual(first);
      }
      await two.close();
      await five.close();
    });

    it(`${changed.method} keeps the dtype of the source, and all but the experts`, async () => {
      const model = await writeTinyLlama(scratch('dense'), {dtype: 'BF16'});
      await upcycle(options({model, method: changed}));
      const [dense, moe] = [await openModelFolder(model), await openModelFolder(scratch('moe'))];
      expect(moe.tensors.info('model.layers.0.mlp.experts.1.down_proj.weight').dtype).toBe('BF16');
      for (const name of dense.tensors.names.filter((one) => !one.includes('.mlp.'))) {
        expect(await moe.tensors.readBytes(name)).toEqual(await dense.tensors.readBytes(name));
      }
      expect(await readProvenance(scratch('moe'))).toMatchObject({kind: 'upcycle', equivalence: null, method: changed});
      await dense.close();
      await moe.close();
    });
  }
});

describe('scratch', () => {
  it('writes fresh values of every parameter, with tokenizer and config taken along', async () => {
    const layout = {
      kind: 'moe',
      experts: 3,
      topK: 2,
      expertWidth: 8,
      sharedWidth: 8,
      selectionBias: false,
      router: 'linear',
    } as const;
    const architecture = {...tinyArchitecture, ffn: [layout, layout]};
    const tokenizerFrom = await writeTokenizer(scratch('tokenizer'));
    const config = {...tinyConfig, bos_token_id: 5};
    await fromScratch({architecture, out: scratch('model'), seed: 9, config, tokenizerFrom});
    const folder = await openModelFolder(scratch('model'));
    expect(folder.tokenizerFiles).toEqual(['tokenizer.json', 'tokenizer_config.json']);
    expect(folder.config.bos_token_id).toBe(5);
    expect(architectureFromConfig(folder.config, '')).toEqual(architecture);
    await loadParameters(folder, architecture, (spec, values) => {
      expect(values).toEqual(initialValues(spec, architecture, 9));
    });
    await folder.close();
    expect(await readProvenance(scratch('model'))).toMatchObject({kind: 'scratch', seed: 9});
  });

  it('never overwrites', async () => {
    await mkdir(scratch('taken'));
    const written = fromScratch({architecture: tinyArchitecture, out: scratch('taken'), seed: 1});
    await expect(written).rejects.toThrow(EnvironmentError);
  });
});
