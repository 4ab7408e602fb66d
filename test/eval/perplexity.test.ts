import {describe, expect, it} from 'vitest';
import {convert} from '../../src/downcycle/convert.js';
import {measurePerplexity, readWindows, type TextWindows} from '../../src/eval/perplexity.js';
import {loadModel} from '../../src/model/model.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import {createRng} from '../../src/util/rng.js';
import {splitOptions} from '../downcycle/split-options.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA} from '../model/tiny-llama.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import {logitsOf} from '../support/logits.js';
import {experts, tiny, writeModel} from '../train/support.js';

const scratch = useScratch();
const S = 12;
const rng = createRng(3, 'tokens');
const text = (name: string, windows: number) => ({
  name,
  tokens: Int32Array.from({length: windows * S}, () => rng.int(32)),
});
const texts = [text('a', 3), text('b', 5)];

/** Perplexities from the logits of every window, in float64. */
async function byLogits(path: string, of: readonly TextWindows[] = texts): Promise<number[]> {
  const model = await loadModel(path);
  const found: number[] = [];
  for (const {tokens} of of) {
    const rows = Array.from({length: tokens.length / S}, (_, w) => [...tokens.subarray(w * S, (w + 1) * S)]);
    const logits = await logitsOf(model, rows);
    let loss = 0;
    const {vocab} = model.architecture;
    for (let i = 0; i < tokens.length; i++) {
      if ((i + 1) % S === 0) continue;
      const row = Array.from(logits.subarray(i * vocab, (i + 1) * vocab));
      loss += Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0)) - row[tokens[i + 1]!]!;
    }
    found.push(Math.exp(loss / ((tokens.length / S) * (S - 1))));
  }
  model.dispose();
  return found;
}

describe('measurePerplexity', () => {
  for (const engine of ['tensorflow-compiled', 'wasm'] as const) {
    onEngine(engine, 'is what the logits of every window say, text by text', async () => {
      const found = await measurePerplexity(TINY_LLAMA, texts, S);
      expect(found.map(({perplexity}) => perplexity)).toBeAllClose(await byLogits(TINY_LLAMA), {rtol: 1e-5});
      expect(found.map(({name, tokens}) => [name, tokens])).toEqual([
        ['a', 33],
        ['b', 55],
      ]);
    });
  }

  onEngine('tensorflow-compiled', 'takes more text than goes through a layer at once', async () => {
    const long = [text('a', 400), text('b', 8)]; // 4896 tokens: three batches of 136 windows
    const found = await measurePerplexity(TINY_LLAMA, long, S);
    expect(found.map(({perplexity}) => perplexity)).toBeAllClose(await byLogits(TINY_LLAMA, long), {rtol: 1e-5});
  });

  onEngine('tensorflow-compiled', 'measures mixtures too, whose layers may differ', async () => {
    const method = splitOptions({method: 'contiguous', experts: 4, shared: 2, topK: 2, weights: 'one'});
    await convert({model: TINY_LLAMA, out: scratch('moe'), method, seed: 1});
    const found = await measurePerplexity(scratch('moe'), texts, S);
    expect(found.map(({perplexity}) => perplexity)).toBeAllClose(await byLogits(scratch('moe')), {rtol: 1e-5});
  });

  onEngine('tensorflow-compiled', 'makes room for layers of a fourth kind, and takes the first one again', async () => {
    const wide = {kind: 'dense', width: 64} as const;
    const layers = [experts(4, 2), wide, experts(4, 1), experts(2, 1), experts(4, 2), wide];
    await writeModel(scratch('many'), tiny(layers));
    await expectNoLeak(async () => {
      const found = await measurePerplexity(scratch('many'), texts, S);
      expect(found.map(({perplexity}) => perplexity)).toBeAllClose(await byLogits(scratch('many')), {rtol: 1e-5});
    });
  });

  onEngine('wasm', 'is less with the oracle than with the means of gate rows', async () => {
    const model = 'checkpoints/dense-4m';
    const method = splitOptions({method: 'contiguous', experts: 32, topK: 8, weights: 'one'});
    await convert({model, out: scratch('moe'), method, seed: 1});
    const source = {name: 'a', path: 'data/geography.txt'};
    const windows = [await readWindows(source, await loadTokenizer(model), {windowTokens: 128, maxTokens: 512})];
    const [router] = await measurePerplexity(scratch('moe'), windows, 128);
    const [oracle] = await measurePerplexity(scratch('moe'), windows, 128, {chooser: 'oracle'});
    expect(oracle!.perplexity).toBeLessThan(router!.perplexity);
  });

  onEngine('tensorflow-compiled', 'leaves no tensor behind', () =>
    expectNoLeak(async () => {
      await measurePerplexity(TINY_LLAMA, texts, S);
    }),
  );

  it('names a model that is not there', async () => {
    await expect(measurePerplexity(scratch('nothing'), texts, S)).rejects.toThrow('nothing');
  });
});
