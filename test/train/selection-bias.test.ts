import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import type {ShardRows} from '../../src/format/token-shard-rows.js';
import {loadModel} from '../../src/model/model.js';
import type {ParameterSpec} from '../../src/model/parameters.js';
import {type BalanceOptions, balanceSchema} from '../../src/train/balance-options.js';
import {checkpointModel, latestCheckpoint} from '../../src/train/checkpoint.js';
import {mergeAdapter} from '../../src/train/merge.js';
import {train} from '../../src/train/run.js';
import {withSelectionBias} from '../../src/train/selection-bias.js';
import {createTrainState, disposeTrainState, readVariable} from '../../src/train/state.js';
import {createStepRunner} from '../../src/train/step-runner.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import {integers} from '../support/host.js';
import {
  FRESH,
  PLAIN_STEP,
  ROUTED,
  ratesAt,
  SEED,
  SEQUENCE,
  stepsOf,
  tempFolder,
  tinyRun,
  writeModel,
} from './support.js';

const bias: BalanceOptions = balanceSchema.parse({kind: 'bias', rate: 0.01});
const rows = (seed: number): ShardRows => ({
  tokens: integers([4 * (SEQUENCE + 1)], 274, seed).values as Int32Array,
});
/** A router that gives all tokens to the first experts. */
const collapse = ({role}: ParameterSpec, values: Float32Array): Float32Array =>
  role === 'router' ? values.fill(0) : values;

describe('selection biases', () => {
  for (const accumulates of [false, true]) {
    const how = accumulates ? 'by the load of all passes together' : 'by its load';
    onEngine('wasm', `go up or down by the rate, each ${how}`, async () => {
      const path = await writeModel(join(await tempFolder(), 'model'), ROUTED, collapse);
      await expectNoLeak(async () => {
        const model = withSelectionBias(await loadModel(path));
        const state = await createTrainState(model, {...FRESH, accumulates, movesBiases: true});
        const runner = createStepRunner(state, {...PLAIN_STEP, balance: bias});
        const batches = accumulates ? [rows(1), rows(2)] : [rows(1)];
        const {load} = await runner.run(batches, ratesAt(1e-9, 1), SEED);
        const moved = await readVariable(state.moved.get('layers.0.ffn.bias')!);
        expect(moved).toBeAllClose(
          load[0]!.map((share) => 0.01 * Math.sign(1 / 8 - share)),
          {rtol: 1e-6, atol: 0},
        );
        const next = await runner.run(batches, ratesAt(1e-9, 2), SEED);
        expect(next.load[0]!.slice(0, 2), 'the first two had all').toEqual([0, 0]);
        runner.dispose();
        disposeTrainState(state);
        model.dispose();
      });
    });
  }

  it('are in the model that was trained, and go on with the run', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), ROUTED, collapse);
    const lora = {kind: 'lora', targets: ['experts'], merge: false} as const;
    for (const finetune of [{kind: 'full'} as const, {...lora, targets: [...lora.targets]}]) {
      const out = finetune.kind;
      const changes = {
        out,
        engine: {device: 'wasm'},
        train: {steps: 6, checkpoint: {every: 3}, balance: bias, finetune},
      } as const;
      await train(tinyRun(folder, {...changes, out: `${out}-whole`}));
      await train(tinyRun(folder, changes), (event) => {
        if (event.kind === 'step' && event.step === 4) process.emit('SIGTERM', 'SIGTERM');
      });
      await train(tinyRun(folder, {...changes, mode: 'resume'}));
      const losses = async (run: string): Promise<unknown> =>
        (await stepsOf(join(folder, run))).map(({loss, load}) => [loss, load]);
      expect(await losses(out)).toEqual(await losses(`${out}-whole`));
    }
    const full = checkpointModel((await latestCheckpoint(join(folder, 'full')))!.path);
    await mergeAdapter({adapter: join(folder, 'lora'), out: join(folder, 'merged')});
    for (const path of [full, join(folder, 'merged')]) {
      const model = await loadModel(path);
      const [layer] = model.parameters.layers;
      const values = layer!.ffn.kind === 'moe' ? await readVariable(layer!.ffn.bias!) : [];
      expect(Array.from(values).some((value) => value !== 0)).toBe(true);
      model.dispose();
    }
  });
});
