import {existsSync} from 'node:fs';
import {join} from 'node:path';
import {describe, expect, vi} from 'vitest';
import {decode, logits} from '../../src/model/decoder.js';
import {loadModel} from '../../src/model/model.js';
import {mapTree} from '../../src/model/parameters.js';
import {tokenLosses} from '../../src/op/linear-cross-entropy.js';
import {onTensorFlow, type TestEngine} from '../support/engines.js';
import type {Host} from '../support/host.js';
import * as tf from '../support/tfjs.js';
import {GOLDENS, hasGoldens, readJson, readTensors} from './goldens.js';
import {nextTokens, oncePerEngine} from './run-model.js';

interface Golden {
  readonly loss: number;
  readonly top5: readonly {
    readonly position: number;
    readonly ids: number[];
    readonly logits: number[];
    readonly logsumexp: number;
  }[];
}

vi.setConfig({testTimeout: 300_000});

/** The checkpoint is 270 MB: whoever has it says where. */
const checkpoint = process.env.DOWNCYCLE_SMOLLM2 ?? '';
const why = !hasGoldens
  ? ' (skipped: no ../shared/goldens)'
  : !existsSync(join(checkpoint, 'model.safetensors'))
    ? ' (skipped: DOWNCYCLE_SMOLLM2 names no folder with SmolLM2-135M)'
    : '';

describe.skipIf(why !== '')(`SmolLM2-135M${why}`, () => {
  const read = () => ({
    golden: readJson<Golden>(join(GOLDENS, 'smollm2', 'golden.json')),
    tensors: readTensors(join(GOLDENS, 'smollm2', 'golden.safetensors')),
  });
  const run = oncePerEngine((engine) => {
    const {golden, tensors} = read();
    return runCheckpoint(
      engine,
      tensors.ids!,
      Int32Array.from(golden.top5, ({position}) => position),
    );
  });

  onTensorFlow('has the loss of every token that PyTorch has', async (engine) => {
    const {losses} = await run(engine);
    expect(losses.values.slice(0, -1)).toBeAllClose(read().tensors.token_losses!.values, {rtol: 0, atol: 1e-3});
  });

  onTensorFlow('has the mean loss of PyTorch', async (engine) => {
    const losses = Array.from((await run(engine)).losses.values.slice(0, -1));
    const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
    expect(mean).toBeAllClose(read().golden.loss, {rtol: 0, atol: 1e-4});
  });

  onTensorFlow('has the five likeliest tokens of PyTorch, and their logits', async (engine) => {
    const {rows} = await run(engine);
    for (const [i, {ids, logits: expected}] of read().golden.top5.entries()) {
      const row = rows[i]!;
      const order = Array.from(row.keys()).sort((a, b) => row[b]! - row[a]! || a - b);
      expect(order.slice(0, 5)).toEqual(ids);
      expect(ids.map((id) => row[id]!)).toBeAllClose(expected, {rtol: 0, atol: 1e-3});
    }
  });

  onTensorFlow('has the log-sum-exp of the logits that PyTorch has', async (engine) => {
    const {rows} = await run(engine);
    const sums = rows.map((row) => Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0)));
    expect(sums).toBeAllClose(
      read().golden.top5.map(({logsumexp}) => logsumexp),
      {rtol: 0, atol: 1e-3},
    );
  });
});

/** Loss of every token of one row, 0 for the last, and the logits at some positions. */
async function runCheckpoint(
  {run}: TestEngine,
  ids: Host,
  positions: Int32Array,
): Promise<{losses: Host; rows: Float32Array[]}> {
  const model = await loadModel(checkpoint);
  const fn = (token_BS: tf.Tensor2D, label_T: tf.Tensor1D, position_N: tf.Tensor1D): tf.Tensor[] => {
    const values = mapTree(model.parameters, (variable) => variable.read());
    const {hidden_TD} = decode(values, model.architecture, {token_BS});
    const head_VD = (values.head ?? values.embed) as tf.Tensor2D;
    return [tokenLosses(hidden_TD, head_VD, label_T), logits(tf.gather(hidden_TD, position_N), values)];
  };
  const tokens: Host = {...ids, shape: [1, ids.values.length]};
  const at: Host = {shape: [positions.length], dtype: 'int32', values: positions};
  const [losses, picked] = await run(fn, tokens, nextTokens(tokens), at).finally(() => model.dispose());
  const V = model.architecture.vocab;
  const rows = Array.from(positions, (_, i) => (picked!.values as Float32Array).subarray(i * V, (i + 1) * V));
  return {losses: losses!, rows};
}
