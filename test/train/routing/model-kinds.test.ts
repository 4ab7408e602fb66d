import {join} from 'node:path';
import {describe, expect, it, vi} from 'vitest';
import type {Architecture} from '../../../src/model/architecture.js';
import {loadModel} from '../../../src/model/model.js';
import {leavesOf, parameterSpecs} from '../../../src/model/parameters.js';
import {checkpointModel, latestCheckpoint} from '../../../src/train/checkpoint.js';
import {train} from '../../../src/train/run.js';
import {readVariable} from '../../../src/train/state.js';
import {exactLines, experts, type RunChanges, stepsOf, tempFolder, tiny, tinyRun, writeModel} from '../support.js';

vi.setConfig({testTimeout: 240_000});

const EXPERTS = experts(8, 3);
const plain = tiny([EXPERTS]);
const KINDS: Readonly<Record<string, Architecture>> = {
  'a cosine router': tiny([{...EXPERTS, router: 'cosine', temperature: 0.1}]),
  'an autonomy router': tiny([{...EXPERTS, router: 'autonomy', rank: 4}]),
  'a top p': {...plain, routing: {...plain.routing, topP: 0.3}},
  'weights of one and a scaled score': {...plain, routing: {...plain.routing, weight: 'one-plus-scaled'}},
};

describe('a model with', () => {
  it.each(Object.entries(KINDS))('%s trains, is saved and resumed to the byte', async (_, architecture) => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), architecture);
    const changes = (out: string): RunChanges => ({
      out,
      engine: {device: 'wasm'},
      train: {steps: 4, batch: {sequences: 2}, balance: {kind: 'bias', rate: 0.01}, checkpoint: {every: 2}},
    });
    await train(tinyRun(folder, changes('whole')));
    await train(tinyRun(folder, changes('halved')), (event) => {
      if (event.kind === 'step' && event.step === 2) process.emit('SIGTERM', 'SIGTERM');
    });
    await train(tinyRun(folder, {...changes('halved'), mode: 'resume'}));
    expect(await exactLines(join(folder, 'halved'))).toEqual(await exactLines(join(folder, 'whole')));
    const path = checkpointModel((await latestCheckpoint(join(folder, 'whole')))!.path);
    const [before, after] = [await loadModel(join(folder, 'model')), await loadModel(path)];
    expect(after.architecture.routing).toEqual(architecture.routing);
    expect(after.architecture.ffn).toEqual([{...architecture.ffn[0], selectionBias: true}]);
    for (const [i, {path: name, role}] of leavesOf(parameterSpecs(before.architecture)).entries()) {
      if (role !== 'router' && role !== 'scale') continue;
      const other = leavesOf(parameterSpecs(after.architecture)).findIndex((spec) => spec.path === name);
      const [old, now] = [leavesOf(before.parameters)[i]!, leavesOf(after.parameters)[other]!];
      expect(await readVariable(now), name).not.toEqual(await readVariable(old));
    }
    for (const {load} of await stepsOf(join(folder, 'whole'))) {
      expect(load![0]!.reduce<number>((a, b) => a + (b ?? Number.NaN), 0)).toBeCloseTo(1, 6);
    }
    before.dispose();
    after.dispose();
  });
});
