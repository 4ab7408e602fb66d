// Exported models in real transformers, by scripts/check-export.py; skipped where Python has no torch and transformers.
import {execFile, execFileSync} from 'node:child_process';
import {mkdir} from 'node:fs/promises';
import {join} from 'node:path';
import {promisify} from 'node:util';
import {describe, expect, it, vi} from 'vitest';
import {createGenerator} from '../../src/eval/generator.js';
import {exportModel} from '../../src/export/export.js';
import {writeSafetensors} from '../../src/format/safetensors-writer.js';
import {decode, logits} from '../../src/model/decoder.js';
import {loadModel, type Model} from '../../src/model/model.js';
import {mapTree} from '../../src/model/parameters.js';
import {createRng} from '../../src/util/rng.js';
import {useScratch} from '../format/scratch.js';
import {onEngine} from '../support/engines.js';
import * as tf from '../support/tfjs.js';
import {EXACT, NEAR} from './cases.js';
import {writeMixture} from './random-mixture.js';

vi.setConfig({testTimeout: 300_000}); // Python takes its time to load
const scratch = useScratch();
const PYTHON = process.env.DOWNCYCLE_PYTHON ?? 'python3';
const [B, S, NEW] = [2, 24, 16];
/** Float32 noise between transformers and us, and what a router made small leaves, for logits of about 4. */
const TOLERANCE = {exact: 2e-5, near: 2e-2};

const missing = whyNoTransformers();

describe('exported models', () => {
  if (missing !== null) {
    it.skip(`are what transformers computes [skipped: ${missing}]`);
    return;
  }
  onEngine('wasm', 'are what transformers computes, and it writes the same text', async () => {
    const cases = [
      ...EXACT.map((one) => ({one, kind: 'exact' as const})),
      ...NEAR.map((one) => ({one, kind: 'near' as const})),
    ];
    const names: string[] = [];
    for (const [
      i,
      {
        one: [, architecture, , to],
      },
    ] of cases.entries()) {
      const model = await writeMixture(scratch(`source-${i}`), architecture, {seed: i});
      const out = scratch(`export-${i}`);
      await exportModel({model, out, to, allowsApproximate: true});
      names.push(out, await writeExpected(model, `${out}.expected`));
    }
    const {stdout} = await promisify(execFile)(PYTHON, ['scripts/check-export.py', ...names], {maxBuffer: 2 ** 24});
    const found = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Checked);
    expect(found).toHaveLength(cases.length);
    for (const [
      i,
      {
        one: [name],
        kind,
      },
    ] of cases.entries()) {
      const {maxLogitDifference, sameText, missing: absent, unexpected, largestLogit} = found[i] as Checked;
      expect({name, absent, unexpected}).toEqual({name, absent: [], unexpected: []});
      expect(largestLogit, name).toBeGreaterThan(1);
      expect(maxLogitDifference, name).toBeLessThan(TOLERANCE[kind]);
      if (kind === 'exact') expect(sameText, name).toBe(true);
    }
  });
});

interface Checked {
  readonly maxLogitDifference: number;
  readonly largestLogit: number;
  readonly sameText: boolean;
  readonly missing: readonly string[];
  readonly unexpected: readonly string[];
}

/** What downcycle computes of a source: ids, logits and a greedy text, in a safetensors file. */
async function writeExpected(path: string, out: string): Promise<string> {
  const model = await loadModel(path);
  const {vocab} = model.architecture;
  const rng = createRng(5, 'ids');
  const ids = Int32Array.from({length: B * S}, () => rng.int(vocab));
  const all = logitsOf(model, ids);
  const generator = createGenerator(model);
  const {tokens} = await generator.generate(ids.subarray(0, S), {maxTokens: NEW, sampling: {kind: 'greedy'}});
  generator.dispose();
  model.dispose();
  const parts = {ids, logits: all, generated: tokens};
  const shapes = {ids: [B, S], logits: [B, S, vocab], generated: [NEW]};
  await mkdir(out);
  await writeSafetensors(
    out,
    (['ids', 'logits', 'generated'] as const).map((name) => ({
      name,
      shape: shapes[name],
      dtype: name === 'logits' ? 'F32' : 'I32',
    })),
    (name) => {
      const values = parts[name as keyof typeof parts];
      return Promise.resolve(
        values instanceof Float32Array ? values : new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
      );
    },
  );
  return join(out, 'model.safetensors');
}

function logitsOf({parameters, architecture}: Model, ids: Int32Array): Float32Array {
  return tf.tidy(() => {
    const weights = mapTree(parameters, (variable) => variable.read());
    const {hidden_TD} = decode(weights, architecture, {token_BS: tf.tensor2d(ids, [B, S], 'int32')});
    return Float32Array.from(logits(hidden_TD, weights).dataSync());
  });
}

/** Why exports cannot be run in transformers here; null if they can. */
function whyNoTransformers(): string | null {
  try {
    execFileSync(PYTHON, ['-c', 'import torch, transformers, safetensors'], {stdio: 'pipe'});
    return null;
  } catch {
    return `${PYTHON} cannot import torch, transformers and safetensors; DOWNCYCLE_PYTHON names one that can`;
  }
}
