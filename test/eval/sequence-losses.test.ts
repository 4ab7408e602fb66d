import * as fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {groupByLength, type LayerProgress, type Sequence, sequenceLosses} from '../../src/eval/sequence-losses.js';
import {openModelFolder} from '../../src/format/model-folder.js';
import {loadModel} from '../../src/model/model.js';
import {readArchitecture} from '../../src/model/read-architecture.js';
import {createRng} from '../../src/util/rng.js';
import {useScratch} from '../format/scratch.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import {logitsOf} from '../support/logits.js';
import {DENSE, experts, tiny, writeModel} from '../train/support.js';

const scratch = useScratch();
const rng = createRng(5, 'tokens');

/** Sequences of all lengths, each of which counts some of its last tokens. */
function sequences(lengths: readonly number[]): Sequence[] {
  return lengths.map((length) => ({
    tokens: Int32Array.from({length}, () => rng.int(274)),
    from: 1 + rng.int(length - 1),
  }));
}

async function measure(model: string, of: readonly Sequence[], onLayer?: (progress: LayerProgress) => void) {
  const folder = await openModelFolder(model);
  try {
    return [...(await sequenceLosses(folder, await readArchitecture(model), of, {onLayer}))];
  } finally {
    await folder.close();
  }
}

/** The same from the logits of the whole model on each whole sequence by itself, in float64. */
async function byLogits(path: string, of: readonly Sequence[]): Promise<number[]> {
  const model = await loadModel(path);
  const {vocab} = model.architecture;
  const sums: number[] = [];
  for (const {tokens, from} of of) {
    const logits = await logitsOf(model, [[...tokens]]);
    let sum = 0;
    for (let t = from; t < tokens.length; t++) {
      const row = Array.from(logits.subarray((t - 1) * vocab, t * vocab));
      sum += Math.log(row.reduce((total, value) => total + Math.exp(value), 0)) - row[tokens[t]!]!;
    }
    sums.push(sum);
  }
  model.dispose();
  return sums;
}

describe('sequenceLosses', () => {
  for (const [name, architecture] of [
    ['a dense model', DENSE],
    ['a mixture', tiny([experts(8, 2), {kind: 'dense', width: 64}])],
  ] as const) {
    onEngine(
      'wasm',
      `of ${name} are those of the whole model on whole sequences, however they are padded`,
      async () => {
        const model = await writeModel(scratch('model'), architecture);
        const all = sequences([2, 60, 9, 47, 33, 9, 65, 20, 58]);
        await expectNoLeak(async () => {
          const sums = await measure(model, all);
          expect(sums).toBeAllClose(await byLogits(model, all), {rtol: 1e-5});
        });
      },
    );
  }

  onEngine('wasm', 'change nothing beyond noise when more sequences go along', async () => {
    const model = await writeModel(scratch('model'), tiny([experts(8, 2)]));
    const [one, ...others] = sequences([40, ...Array.from({length: 70}, (_, i) => 32 + (i % 9))]);
    const [alone] = await measure(model, [one!]);
    const [amongOthers] = await measure(model, [one!, ...others]); // more than a batch, and than the head takes at once
    expect(amongOthers! / alone!).toBeCloseTo(1, 5);
  });

  onEngine('wasm', 'tell of every layer of every walk', async () => {
    const model = await writeModel(scratch('model'), DENSE);
    const told: LayerProgress[] = [];
    await measure(model, sequences([60, 5]), (progress) => told.push(progress));
    expect(told).toEqual([1, 2].flatMap((walk) => [1, 2].map((layer) => ({layer, layers: 2, walk, walks: 2}))));
  });

  onEngine('wasm', 'refuse a last token outside the vocabulary, which goes through no layer', async () => {
    const model = await writeModel(scratch('model'), DENSE);
    await expect(measure(model, [{tokens: Int32Array.of(1, 2, 274), from: 2}])).rejects.toThrow(
      'token 274 of the text is outside the vocabulary of 274',
    );
  });

  onEngine('wasm', 'refuse weights that give no finite loss', async () => {
    const model = await writeModel(scratch('model'), DENSE, ({path}, values) =>
      path.includes('norm') ? values.fill(Number.NaN) : values,
    );
    await expect(measure(model, sequences([10]))).rejects.toThrow('a loss is not a finite number');
  });
});

describe('groupByLength', () => {
  const anyLengths = fc.array(fc.integer({min: 1, max: 200}), {maxLength: 60});

  it('puts each sequence into one group, with none that is much longer', () => {
    fc.assert(
      fc.property(anyLengths, (lengths) => {
        const groups = groupByLength(lengths, 400);
        expect(groups.flat().sort((a, b) => a - b)).toEqual(lengths.map((_, i) => i));
        for (const group of groups) {
          const longest = lengths[group[0]!]!;
          for (const i of group) expect(longest - lengths[i]!).toBeLessThanOrEqual(Math.max(8, longest / 4));
          expect(group.length === 1 || group.length * longest <= 400).toBe(true);
        }
      }),
    );
  });
});
