import {describe, expect, it} from 'vitest';
import {train} from '../../src/train/run.js';
import {DENSE, exactLines, tempFolder, tinyRun, writeModel} from './support.js';

const engine = {device: 'wasm'} as const;

describe('a resumed run', () => {
  it('goes on saving when the checkpoint it came from was pruned', async () => {
    const folder = await tempFolder();
    await writeModel(`${folder}/model`, DENSE);
    const options = {engine, train: {steps: 6, checkpoint: {every: 1, keep: 1}}};
    await expect(
      train(tinyRun(folder, options), (e) => {
        if (e.kind === 'step' && e.step === 3) throw new Error('stop here');
      }),
    ).rejects.toThrow('stop here');
    const {step} = await train(tinyRun(folder, {...options, mode: 'resume'}));
    expect(step).toBe(6);
    expect(await exactLines(`${folder}/run`, ['step'])).toHaveLength(6);
  });
});
