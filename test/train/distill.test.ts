import {cp, readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import type {StepRecord} from '../../src/format/run-record.js';
import {train} from '../../src/train/run.js';
import {DENSE, MOE, type RunChanges, stepsOf, tempFolder, tinyRun, writeModel} from './support.js';

describe('a run with a teacher', () => {
  const changes = (from: string, weight: number): RunChanges => ({
    engine: {device: 'wasm'},
    train: {steps: 8, optimizer: {lr: 1e-2}, distill: {from, weight, temperature: 2}},
  });
  const divergences = (steps: readonly StepRecord[]): number[] => steps.map(({distillLoss}) => distillLoss!);

  it('comes nearer to it, and logs how near', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), MOE);
    // Fresh models foresee next to nothing: one that is sure of its words is far from them.
    await writeModel(join(folder, 'teacher'), DENSE, ({role}, values) =>
      role === 'embedding' ? values.map((value) => 20 * value) : values,
    );
    const {out} = await train(tinyRun(folder, changes(join(folder, 'teacher'), 1)));
    const found = divergences(await stepsOf(out));
    expect(found.at(-1)!).toBeLessThan(0.8 * found[0]!);
  });

  it('that is the model itself starts at no divergence', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), DENSE);
    const {out} = await train(tinyRun(folder, changes(join(folder, 'model'), 0.5)));
    expect(divergences(await stepsOf(out))[0]).toBeCloseTo(0, 6);
  });

  it('refuses one of other words or of another tokenizer', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), DENSE);
    await writeModel(join(folder, 'wide'), {...DENSE, vocab: 300});
    await expect(train(tinyRun(folder, changes(join(folder, 'wide'), 0.5)))).rejects.toThrow(
      /train\.distill\.from: .*wide has 300 words instead of 274 and cannot teach/,
    );
    await cp(join(folder, 'model'), join(folder, 'other'), {recursive: true});
    await writeFile(join(folder, 'other', 'tokenizer.json'), await tokenizerOfOther(join(folder, 'model')));
    await expect(train(tinyRun(folder, changes(join(folder, 'other'), 0.5)))).rejects.toThrow('has another tokenizer');
  });
});

/** The same tokenizer with a blank more in its file. */
async function tokenizerOfOther(model: string): Promise<string> {
  return `${await readFile(join(model, 'tokenizer.json'), 'utf8')} `;
}
