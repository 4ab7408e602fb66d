import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {readRunLog} from '../../src/format/run-log.js';
import type {ShardRows} from '../../src/format/token-shard-rows.js';
import {loadModel, type Model} from '../../src/model/model.js';
import {expertUse, mostUsed} from '../../src/train/esft.js';
import {type FinetuneOptions, finetuneSchema, selectParameters} from '../../src/train/finetune.js';
import {train} from '../../src/train/run.js';
import type {TrainRun} from '../../src/train/session.js';
import {
  createTrainState,
  disposeTrainState,
  readVariable,
  type StateOptions,
  type TrainState,
} from '../../src/train/state.js';
import {createStepRunner, type StepResult} from '../../src/train/step-runner.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import {integers} from '../support/host.js';
import {
  crashAfter,
  DENSE,
  exactLines,
  FRESH,
  MOE,
  PLAIN_STEP,
  ROUTED,
  type RunChanges,
  ratesAt,
  SEED,
  SEQUENCE,
  tempFolder,
  tinyRun,
  writeModel,
} from './support.js';

const esft = (input: object = {}): FinetuneOptions => finetuneSchema.parse({kind: 'esft', ...input});
const ROWS: ShardRows = {tokens: integers([4 * (SEQUENCE + 1)], 274, 1).values as Int32Array};
const BY = {sequenceLength: SEQUENCE, precision: 'float32'} as const;

async function withModel(law: (model: Model) => Promise<void>): Promise<void> {
  const path = await writeModel(join(await tempFolder(), 'model'), ROUTED);
  await expectNoLeak(async () => {
    const model = await loadModel(path);
    await law(model);
    model.dispose();
  });
}

/** A step from fresh weights, and the state after it. */
async function afterStep<T>(
  options: Partial<StateOptions>,
  look: (state: TrainState, result: StepResult) => Promise<T>,
): Promise<T> {
  let seen: T | undefined;
  await withModel(async (model) => {
    const state = await createTrainState(model, {...FRESH, ...options});
    const runner = createStepRunner(state, PLAIN_STEP);
    const result = await runner.run([ROWS], ratesAt(0.01, 1), SEED);
    seen = await look(state, result);
    runner.dispose();
    disposeTrainState(state);
  });
  return seen as T;
}

const gateOf = async ({trained}: TrainState): Promise<Float32Array> => {
  const gate = trained.find(({path}) => path === 'layers.0.ffn.experts.gate')!;
  return (await readVariable(gate.variable)).slice();
};

describe('the experts that are used most', () => {
  it.each([
    [[5, 1, 3, 1], 0.5, [0]],
    [[5, 1, 3, 1], 0.51, [0, 2]],
    [[2, 2, 2, 2], 0.5, [0, 1]],
    [[0, 0, 4, 0], 1, [2]],
    [[1, 1, 1, 1], 0.01, [0]],
    [[0, 0, 0, 0], 0.5, [0]],
  ])('of %j for a share of %d are %j', (use, share, expected) => {
    expect(mostUsed(use, share)).toEqual(expected);
  });

  onEngine('wasm', 'are counted by the tokens sent to them', () =>
    withModel(async (model) => {
      const [use] = await expertUse(model, [ROWS, ROWS], {by: 'tokens', ...BY});
      const load = await afterStep({}, (_, result) => Promise.resolve(result.load[0]!));
      const tokens = 2 * 4 * SEQUENCE * 2;
      expect(use!.reduce((a, b) => a + b)).toBe(tokens);
      expect(use!.map((count) => count / tokens)).toBeAllClose([...load], {rtol: 1e-6});
    }),
  );

  onEngine('wasm', 'or by what they weigh: softmax over eight experts gives the two chosen less than one a token', () =>
    withModel(async (model) => {
      const [[tokens], [scores]] = [
        await expertUse(model, [ROWS], {by: 'tokens', ...BY}),
        await expertUse(model, [ROWS], {by: 'scores', ...BY}),
      ];
      for (const [e, score] of scores!.entries()) {
        expect(score).toBeGreaterThan(tokens![e]! / 8);
        expect(score).toBeLessThan(tokens![e]!);
      }
      expect(scores!.reduce((a, b) => a + b)).toBeLessThan(4 * SEQUENCE);
    }),
  );
});

describe('training them', () => {
  const chosen = [[1, 6]];

  onEngine(
    'wasm',
    'gives them the update that they have when all experts train, and leaves the others alone',
    async () => {
      const start = await withStart();
      const all = await afterStep({finetune: finetuneSchema.parse({kind: 'parts', train: ['experts']})}, gateOf);
      const some = await afterStep({finetune: esft(), experts: chosen}, gateOf);
      const size = some.length / 8;
      for (let e = 0; e < 8; e++) {
        const expected = chosen[0]!.includes(e) ? all : start;
        const range = [e * size, (e + 1) * size] as const;
        expect(some.subarray(...range), `expert ${e}`).toBeAllClose(expected.subarray(...range), {rtol: 0, atol: 1e-6});
      }
      expect(some.subarray(0, size)).toEqual(start.subarray(0, size));
      expect(some.subarray(size, 2 * size)).not.toEqual(start.subarray(size, 2 * size));
    },
  );

  onEngine('wasm', 'keeps moments of them alone', async () => {
    const state = {finetune: esft({train: ['norms']}), experts: chosen};
    const kept = await afterStep(state, ({trained}) =>
      Promise.resolve(trained.map(({path, slots}) => [path, slots.get('first')!.shape] as const)),
    );
    expect(kept).toEqual([
      ['layers.0.ffn.experts.gate', [2, 32, 64]],
      ['layers.0.ffn.experts.up', [2, 32, 64]],
      ['layers.0.ffn.experts.down', [2, 64, 32]],
      ['layers.0.attentionNorm', [32]],
      ['layers.0.ffnNorm', [32]],
      ['norm', [32]],
    ]);
  });

  async function withStart(): Promise<Float32Array> {
    let gate: Float32Array | undefined;
    await withModel(async ({parameters}) => {
      const {ffn} = parameters.layers[0]!;
      gate = ffn.kind === 'moe' ? (await readVariable(ffn.experts.gate)).slice() : undefined;
    });
    return gate!;
  }
});

describe('a run', () => {
  const changes: RunChanges = {
    engine: {device: 'wasm'},
    train: {steps: 6, checkpoint: {every: 3}, ema: {decay: 0.9}, finetune: {kind: 'esft', share: 0.4, rows: 8}},
  };

  it('that goes on trains the experts it began with, to the same bytes', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), MOE);
    await train(tinyRun(folder, {...changes, out: 'whole'}));
    await train(tinyRun(folder, {...changes, out: 'half'}), (event) => {
      if (event.kind === 'step' && event.step === 4) process.emit('SIGTERM', 'SIGTERM');
    });
    const notes: string[] = [];
    await train(tinyRun(folder, {...changes, out: 'half', mode: 'resume'}), (event) => {
      if (event.kind === 'note') notes.push(event.text);
    });
    expect(notes.filter((text) => text.includes('experts train'))).toEqual([]);
    expect(await exactLines(join(folder, 'half'))).toEqual(await exactLines(join(folder, 'whole')));
    const [head] = await readRunLog(join(folder, 'whole', 'log.jsonl'));
    const {experts, parameters} = head as Extract<typeof head, {kind: 'run'}>;
    expect(experts).toHaveLength(1);
    expect(parameters.trainable).toBe(experts![0]!.length * 3 * 32 * 64);
  });

  it('does not go on with another share, whoever allows it', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), MOE);
    const runOf = (share: number): TrainRun => ({
      ...tinyRun(folder, {...changes, train: {...changes.train, finetune: {kind: 'esft', share, rows: 8}}}),
      config: {yaml: `train: {finetune: {kind: esft, share: ${share}}}`, hash: `share ${share}`},
    });
    await expect(train(runOf(0.4), crashAfter(4))).rejects.toThrow('crash');
    await expect(train({...runOf(0.9), mode: 'resume', allowsChange: true})).rejects.toThrow(
      'train.finetune.share (0.4, now 0.9) is another than when the run began',
    );
  });

  it.each([
    [DENSE, {}, 'train.finetune.kind: the model has no experts.'],
    [MOE, {train: ['experts']}, 'experts are what esft chooses from'],
  ])('is refused where nothing is to choose from, or all train anyway', (architecture, input, message) => {
    expect(() => selectParameters(architecture, esft(input))).toThrow(message);
  });
});
