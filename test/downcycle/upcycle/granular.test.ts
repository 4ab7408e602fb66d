import {describe, expect, it} from 'vitest';
import {granularFactor, groupRows, requireShards, shardMatrix} from '../../../src/downcycle/upcycle/granular.js';
import {upcycle} from '../../../src/downcycle/upcycle.js';
import type {GranularUpcycle} from '../../../src/downcycle/upcycle-options.js';
import {openModelFolder} from '../../../src/format/model-folder.js';
import {loadModel, type Model} from '../../../src/model/model.js';
import {ConfigError} from '../../../src/util/errors.js';
import {useScratch} from '../../format/scratch.js';
import {TINY_LLAMA, tinyGolden, writeTinyLlama} from '../../model/tiny-llama.js';
import {expectNoLeak, onEngine} from '../../support/engines.js';
import {logitsOf} from '../../support/logits.js';
import * as tf from '../../support/tfjs.js';
import {neuronsOf, normalMatrix} from './matrix.js';

const scratch = useScratch();
const granular = (changes: Partial<GranularUpcycle> = {}): GranularUpcycle => ({
  ...{method: 'granular-upcycle', experts: 12, shards: 4, topK: 4, renormalise: true},
  ...changes,
});
const make = (method: GranularUpcycle, model = TINY_LLAMA, out = scratch('moe')) =>
  upcycle({model, out, method, seed: 7});

/** Logits of what upcycling makes, and the difference from the dense ones as a share of the largest. */
async function startOf(method: GranularUpcycle, change: (model: Model) => void = () => undefined): Promise<number> {
  await make(method);
  const model = await loadModel(scratch('moe'));
  change(model);
  const received = await logitsOf(model, [tinyGolden.ids]);
  model.dispose();
  const expected = tinyGolden.logits.flat();
  const largest = Math.max(...expected.map(Math.abs));
  return Math.max(...expected.map((value, i) => Math.abs(value - received[i]!))) / largest;
}

function zeroRouters({parameters}: Model): void {
  for (const {ffn} of parameters.layers) {
    if (ffn.kind !== 'moe') continue;
    const zeros = tf.zeros([...ffn.router.shape]);
    ffn.router.assign(zeros);
    zeros.dispose();
  }
}

describe('granular upcycling, renormalised', () => {
  for (const engine of ['tensorflow-compiled', 'wasm'] as const) {
    onEngine(engine, 'starts out equal to the dense model with one copy of each shard', () =>
      expectNoLeak(async () => expect(await startOf(granular())).toBeLessThan(1e-5)),
    );
  }

  for (const [experts, shards, topK] of [
    [12, 4, 8],
    [12, 4, 12],
    [6, 2, 2],
    [24, 8, 8],
    [4, 4, 4],
    [3, 1, 2],
  ] as const) {
    onEngine('wasm', `does so with ${experts} experts, ${shards} shards and top-${topK}`, async () => {
      expect(await startOf(granular({experts, shards, topK}))).toBeLessThan(1e-5);
    });
  }

  onEngine('wasm', 'does not where some shards are chosen more often than others', async () => {
    expect(await startOf(granular({topK: 3}))).toBeGreaterThan(1e-3);
    expect(granularFactor(granular({topK: 3}))).toBe(4);
  });
});

describe('granular upcycling, not renormalised', () => {
  const plain = granular({renormalise: false});

  onEngine('wasm', 'starts out equal to the dense model if the router scores all experts alike', async () => {
    expect(await startOf(plain, zeroRouters)).toBeLessThan(1e-5);
  });

  onEngine('wasm', 'does so with several copies of each shard', async () => {
    expect(await startOf(granular({renormalise: false, topK: 8}), zeroRouters)).toBeLessThan(1e-5);
  });

  onEngine('wasm', 'starts out near it under the router as it is drawn', async () => {
    const difference = await startOf(plain);
    expect(difference).toBeGreaterThan(1e-5);
    expect(difference).toBeLessThan(0.2);
  });
});

describe('the folder that granular upcycling writes', () => {
  it.each(['F32', 'BF16'] as const)(
    'has the same bits in every copy of a shard, and those of the gate, in %s',
    async (dtype) => {
      const model = await writeTinyLlama(scratch('dense'), {dtype});
      const {architecture} = await make(granular(), model);
      expect(architecture.ffn[0]).toMatchObject({experts: 12, topK: 4, expertWidth: 6, sharedWidth: 0});
      const [dense, moe] = [await openModelFolder(model), await openModelFolder(scratch('moe'))];
      const read = (e: number, which: string) =>
        moe.tensors.readBytes(`model.layers.1.mlp.experts.${e}.${which}.weight`);
      for (const which of ['gate_proj', 'up_proj', 'down_proj']) {
        expect(moe.tensors.info(`model.layers.1.mlp.experts.0.${which}.weight`).dtype).toBe(dtype);
        for (let e = 0; e < 8; e++) expect(await read(e + 4, which)).toEqual(await read(e, which));
      }
      const gates = await Promise.all([0, 1, 2, 3].map((e) => read(e, 'gate_proj')));
      expect(Buffer.concat(gates)).toEqual(
        Buffer.from(await dense.tensors.readBytes('model.layers.1.mlp.gate_proj.weight')),
      );
      await dense.close();
      await moe.close();
    },
  );

  it('has one router row for each virtual group', async () => {
    await make(granular());
    const folder = await openModelFolder(scratch('moe'));
    const router = await folder.tensors.read('model.layers.0.mlp.gate.weight');
    await folder.close();
    const rows = Array.from({length: 12}, (_, e) => [...router.subarray(e * 16, (e + 1) * 16)]);
    expect(new Set(rows.map(String)).size).toBe(3);
    expect(rows).toEqual(rows.map((_, e) => rows[e - (e % 4)]));
  });
});

describe('granularFactor', () => {
  it.each([
    [{}, 4],
    [{topK: 8}, 4],
    [{renormalise: false}, 12],
    [{renormalise: false, topK: 8}, 6],
    [{renormalise: false, experts: 64, shards: 8, topK: 8}, 64],
  ])('of %j is %d', (changes, factor) => {
    expect(granularFactor(granular(changes))).toBe(factor);
  });
});

describe('shardMatrix', () => {
  it.each([
    ['gate', 4, 1],
    ['up', 4, 2],
    ['down', 4, 2],
    ['gate', 8, 1],
    ['up', 8, 2],
    ['down', 8, 4],
    ['up', 3, 1],
    ['down', 3, 3],
  ] as const)('cuts %s into %i shards by neurons and multiplies it with %i', (which, shards, factor) => {
    const matrix = which === 'down' ? normalMatrix(5, 2 * shards) : normalMatrix(2 * shards, 5);
    const expert = 2 * shards - 1;
    const part = shardMatrix(matrix, which, expert, granular({experts: 2 * shards, shards, topK: shards}));
    const bytes = part instanceof Float32Array ? new Uint8Array(part.buffer) : part;
    const shard = {...matrix, ...(which === 'down' ? {columns: 2} : {rows: 2})};
    const expected = neuronsOf(matrix, matrix.bytes, which).slice(-2);
    expect(neuronsOf(shard, bytes, which)).toEqual(
      expected.map((neuron) => neuron.map((weight) => Math.fround(factor * weight))),
    );
  });
});

describe('groupRows', () => {
  it('repeats the row of each group for its shards', () => {
    expect([...groupRows(Float32Array.of(1, 2, 3, 4), 2, 3)]).toEqual([1, 2, 1, 2, 1, 2, 3, 4, 3, 4, 3, 4]);
  });
});

describe('requireShards', () => {
  const ask = (numNeurons: number, experts: number, shards: number) => () =>
    requireShards(numNeurons, granular({experts, shards}), 'x.yaml:3:5: arms.g');

  it('names the nearest counts that divide both FFN and experts', () => {
    expect(ask(24, 80, 5)).toThrow(ConfigError);
    expect(ask(24, 80, 5)).toThrow(
      /^x.yaml:3:5: arms.g: shards \(= 5\) must divide the FFN width 24, and experts \(= 80\); nearest that do: 4 and 8\.$/,
    );
    expect(ask(24, 10, 5)).toThrow(
      /^x.yaml:3:5: arms.g: shards \(= 5\) must divide the FFN width 24, and experts \(= 10\); nearest that does: 2\.$/,
    );
  });

  it('lets those pass that do', () => {
    expect(ask(24, 24, 8)).not.toThrow();
  });

  it('stops upcycling before anything is written', async () => {
    await expect(make(granular({experts: 10, shards: 5}))).rejects.toThrow(
      'upcycle: shards (= 5) must divide the FFN width 24, and experts (= 10); nearest that does: 2.',
    );
    await expect(openModelFolder(scratch('moe'))).rejects.toThrow();
  });
});
