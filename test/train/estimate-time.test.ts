import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {type Architecture, countParameters, flopsPerToken} from '../../src/model/architecture.js';
import {type TimeEstimate, timeOf} from '../../src/train/estimate-time.js';
import {expertRows} from '../../src/train/expert-rows.js';
import type {TrainInput} from '../../src/train/options.js';
import {outlineOf} from '../../src/train/outline.js';
import {DENSE, experts, MOE, tempFolder, tinyRun, tinyTrain, writeModel} from './support.js';

const SPEED = 1e9;
/** Tokens of a pass. */
const T = 8 * 32;

async function timed(architecture: Architecture, train: TrainInput, teacher?: Architecture): Promise<TimeEstimate> {
  const folder = await tempFolder();
  await writeModel(join(folder, 'model'), architecture);
  const distill = teacher && {from: await writeModel(join(folder, 'teacher'), teacher)};
  const run = tinyRun(folder, {train: {...train, ...(distill && {distill})}});
  return timeOf(run, await outlineOf(run), SPEED);
}

describe('the time of a run', () => {
  it('is its operations over 0.7 of the speed', async () => {
    const time = await timed(DENSE, {steps: 5});
    const step = T * flopsPerToken(DENSE, 32);
    expect(time.flopsPerStep).toBe(step);
    expect(time.flopsPerSecond).toBe(SPEED);
    expect(time.secondsPerStep).toBeCloseTo(step / SPEED / 0.7, 9);
    expect(time.seconds).toBeCloseTo((5 * step) / SPEED / 0.7, 9);
  });

  it('adds up the passes of steps that grow', async () => {
    const growth = [
      {until: 2, accumulate: 1},
      {until: 3, accumulate: 2},
    ];
    const time = await timed(DENSE, {steps: 5, batch: {sequences: 8, accumulate: 3, growth}});
    const pass = T * flopsPerToken(DENSE, 32);
    expect(time.flopsPerStep).toBe(3 * pass);
    expect(time.seconds).toBeCloseTo(((1 + 1 + 2 + 3 + 3) * pass) / SPEED / 0.7, 9);
  });

  it('has the gradients of weights only where they train, and one more forward pass with recompute', async () => {
    const step = T * flopsPerToken(DENSE, 32);
    const norms = (2 * 2 + 1) * 32;
    const share = norms / countParameters(DENSE).total;
    const some = await timed(DENSE, {finetune: {kind: 'parts', train: ['norms']}});
    expect(some.flopsPerStep / step).toBeCloseTo((4 + 2 * share) / 6, 12);
    const again = await timed(DENSE, {recompute: 'layer'});
    expect(again.flopsPerStep / step).toBeCloseTo(8 / 6, 12);
  });

  it('has the forward pass of a teacher, with all that its experts compute', async () => {
    const alone = await timed(DENSE, {});
    const taught = await timed(DENSE, {}, MOE);
    const {computed} = expertRows(experts(4, 2), tinyTrain(), T);
    const teacher = flopsPerToken(MOE, 32) + 6 * 3 * 32 * 64 * (computed - 2);
    expect(taught.flopsPerStep - alone.flopsPerStep).toBeCloseTo((T * teacher) / 3, 3);
  });

  it('has the rows of experts that routing asks for', async () => {
    const time = await timed(MOE, {routing: {kind: 'all-experts'}});
    const all: Architecture = {
      ...MOE,
      ffn: MOE.ffn.map((layout) => (layout.kind === 'moe' ? {...layout, topK: 4} : layout)),
    };
    expect(time.flopsPerStep).toBeCloseTo(T * flopsPerToken(all, 32), 3);
  });
});
