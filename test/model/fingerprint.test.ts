import {cp, readFile, writeFile} from 'node:fs/promises';
import {describe, expect, it} from 'vitest';
import {openDense} from '../../src/downcycle/model-source.js';
import type {TensorStore} from '../../src/format/tensor-store.js';
import {modelFingerprint} from '../../src/model/fingerprint.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA, writeTinyLlama} from './tiny-llama.js';

const scratch = useScratch();

async function fingerprint(path: string): Promise<string> {
  const {folder, fingerprint: hash} = await openDense(path);
  await folder.close();
  return hash;
}

/** How often weights are read for the fingerprints of a model, taken twice. */
async function readsOf(path: string): Promise<number> {
  const {folder, architecture} = await openDense(path);
  let reads = 0;
  const readBytes: TensorStore['readBytes'] = (...which) => {
    reads++;
    return folder.tensors.readBytes(...which);
  };
  for (let i = 0; i < 2; i++) await modelFingerprint({tensors: {...folder.tensors, readBytes}}, architecture);
  await folder.close();
  return reads / folder.tensors.names.length;
}

describe('modelFingerprint', () => {
  it('is the same wherever the model lies and whatever else its config says', async () => {
    const copy = await writeTinyLlama(scratch('copy'), {config: {bos_token_id: 9}});
    expect(await fingerprint(copy)).toBe(await fingerprint(TINY_LLAMA));
    expect(await fingerprint(copy)).toMatch(/^[0-9a-f]{64}$/);
  });

  it('stays what it was in every version: profiles and runs name models by it', async () => {
    const before = 'c816a8b22a952b5200854f6409a0e0b7d50c6eeeeb750be2e2ec8a9304e1f320';
    expect(await fingerprint(TINY_LLAMA)).toBe(before);
  });

  it('tells another architecture, dtype or weight', async () => {
    const other = [
      await writeTinyLlama(scratch('theta'), {config: {rope_parameters: {rope_theta: 1e4}}}),
      await writeTinyLlama(scratch('dtype'), {dtype: 'BF16'}),
      await moveWeight(scratch('last'), (bytes) => bytes.length - 4),
      await moveWeight(scratch('middle'), (bytes) => 4 * Math.floor(bytes.length / 8)),
    ];
    const all = await Promise.all([TINY_LLAMA, ...other].map(fingerprint));
    expect(new Set(all).size).toBe(5);
  });

  it('is of the weights as they are now, not as they were when this process read them', async () => {
    const copy = await writeTinyLlama(scratch('changed'));
    const before = await fingerprint(copy);
    await changeWeight(copy, (bytes) => 4 * Math.floor(bytes.length / 8));
    expect(await fingerprint(copy)).not.toBe(before);
  });

  it('reads weights once, but those that were just written each time: their clock may not tell the next change', async () => {
    expect(await readsOf(TINY_LLAMA)).toBe(0); // opening it took its fingerprint
    expect(await readsOf(await writeTinyLlama(scratch('new')))).toBe(2);
  });
});

async function moveWeight(path: string, at: (bytes: Buffer) => number): Promise<string> {
  await cp(TINY_LLAMA, path, {recursive: true});
  await changeWeight(path, at);
  return path;
}

async function changeWeight(path: string, at: (bytes: Buffer) => number): Promise<void> {
  const bytes = await readFile(`${path}/model.safetensors`);
  bytes.writeFloatLE(bytes.readFloatLE(at(bytes)) + 1, at(bytes));
  await writeFile(`${path}/model.safetensors`, bytes);
}
