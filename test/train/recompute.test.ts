import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, it, vi} from 'vitest';
import {createVariable} from '../../src/engine/variable.js';
import type {ShardRows} from '../../src/format/token-shard-rows.js';
import type {Architecture} from '../../src/model/architecture.js';
import {initialValues} from '../../src/model/init.js';
import {leavesOf, mapTree, parameterSpecs} from '../../src/model/parameters.js';
import {createTrainState, disposeTrainState, readVariable, type StateOptions} from '../../src/train/state.js';
import {planStep} from '../../src/train/step-plan.js';
import {createStepRunner, type RunnerOptions} from '../../src/train/step-runner.js';
import {expectNoLeak, missingTensorFlow, onEngine} from '../support/engines.js';
import {integers} from '../support/host.js';
import {DENSE, experts, FRESH, PLAIN_STEP, ROUTED, ratesAt, SEQUENCE, tiny, tinyRun, writeModel} from './support.js';

vi.setConfig({testTimeout: 240_000, hookTimeout: 240_000}); // compiling, on a machine that may be busy

/** Every expert computes every token; rows are sent to experts, which have experts inside. */
const MIXED: Architecture = tiny([
  experts(4, 2),
  {...experts(8, 1), selectionBias: true, inner: {experts: 4, topK: 1, expertWidth: 16, weight: 'score'}},
]);

const LORA: StateOptions['finetune'] = {
  kind: 'lora',
  ...{rank: 4, alpha: 8, dropout: 0.2, targets: ['attention', 'experts'], train: ['norms'], merge: true},
};

interface Case {
  readonly architecture: Architecture;
  readonly state?: Partial<StateOptions>;
  readonly options?: Partial<RunnerOptions>;
  readonly hasSegments?: boolean;
}

const BALANCED: Partial<RunnerOptions> = {balance: {kind: 'aux', weight: 0.1, scope: 'batch', zLoss: 1e-3}};
const CASES: Readonly<Record<string, Case>> = {
  'a dense model': {architecture: DENSE},
  'experts with balance losses and document boundaries': {architecture: MIXED, options: BALANCED, hasSegments: true},
  'noisy routers and the load that they would give': {
    architecture: ROUTED,
    options: {routing: {kind: 'noisy', std: 0.5}, balance: {kind: 'cv2', weight: 0.1, zLoss: 0}},
  },
  'experts that choose': {architecture: ROUTED, options: {routing: {kind: 'expert-choice', capacityFactor: 1}}},
  'low-rank terms with dropout': {architecture: ROUTED, state: {finetune: LORA}, options: {dropout: 0.2}},
};

/** The case that is compiled, too. */
const COMPILED = 'experts with balance losses and document boundaries';

const STEPS = 3;

/** What some steps report, and what they leave of what trains. */
async function trained(
  {architecture, state: changes, options, hasSegments = false}: Case,
  more: Partial<RunnerOptions>,
) {
  return expectNoLeak(async () => {
    const parameters = mapTree(parameterSpecs(architecture), (spec) =>
      createVariable(spec.path, spec.shape, initialValues(spec, architecture, 1)),
    );
    const state = await createTrainState({architecture, parameters}, {...FRESH, ...changes});
    const runner = createStepRunner(state, {...PLAIN_STEP, clip: 1, ...options, ...more});
    const results: object[] = [];
    for (let t = 1; t <= STEPS; t++) {
      results.push(await runner.run([rowsOf(t, hasSegments)], ratesAt(0.01, t), {seed: 7, step: t}));
    }
    const weights: Float32Array[] = [];
    for (const {variable} of state.trained) weights.push((await readVariable(variable)).slice());
    runner.dispose();
    disposeTrainState(state);
    for (const variable of leavesOf(parameters)) variable.dispose();
    return {results, weights};
  });
}

function rowsOf(seed: number, hasSegments: boolean): ShardRows {
  const length = 2 * (SEQUENCE + 1);
  const tokens = integers([length], 274, seed).values as Int32Array;
  return hasSegments ? {tokens, segments: tokens.map((_, i) => Math.floor((i % (SEQUENCE + 1)) / 10))} : {tokens};
}

describe('layers computed again', () => {
  for (const engine of ['tensorflow-compiled', 'wasm'] as const) {
    for (const [name, one] of Object.entries(CASES)) {
      if (engine !== 'wasm' && name !== COMPILED) continue; // each is compiled twice
      onEngine(engine, `change no bit of losses, loads and weights: ${name}`, async () => {
        const plain = await trained(one, {});
        const again = await trained(one, {recompute: 'layer'});
        expect(again.results).toEqual(plain.results);
        expect(again.weights).toEqual(plain.weights);
      });
    }
  }
});

describe.skipIf(missingTensorFlow !== null)('the plan of a deep and narrow model (skipped without TensorFlow)', () => {
  let folder = '';
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'downcycle-recompute-'));
    await writeModel(join(folder, 'model'), tiny(Array.from({length: 12}, () => ({kind: 'dense', width: 64}))));
  });
  afterAll(() => rm(folder, {recursive: true}));

  it('needs less than a quarter of the memory beside weights and moments', async () => {
    const workOf = async (recompute: 'none' | 'layer'): Promise<number> => {
      const {workBytes} = await planStep(
        tinyRun(folder, {data: {sequenceLength: 64}, train: {batch: {sequences: 16}, recompute}}),
      );
      return workBytes;
    };
    const [plain, again] = [await workOf('none'), await workOf('layer')];
    expect(plain).toBeGreaterThan(16 * 2 ** 20);
    expect(again).toBeLessThan(plain / 4); // docs/log.md has the factor
  });
});
