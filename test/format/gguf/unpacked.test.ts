// Tensors of GGUF files against the Python package gguf: files and numbers are those of scripts/gguf-fixtures.py.
import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {describe, expect, it} from 'vitest';
import {openDense} from '../../../src/downcycle/model-source.js';
import {openModelFolder} from '../../../src/format/model-folder.js';
import {countStored} from '../../../src/format/safetensors-header.js';
import {readTensors} from '../../golden/goldens.js';
import {ggufOf, renderGguf, u32} from '../../support/gguf.js';
import {useScratch} from '../scratch.js';

const FIXTURE = fileURLToPath(new URL('../../fixtures/gguf', import.meta.url));
const PACKED = join(FIXTURE, 'packed.gguf');
const expected = readTensors(join(FIXTURE, 'unpacked.safetensors'));
const bitsOf = ({buffer, byteOffset, length}: Float32Array): number[] => [
  ...new Uint32Array(buffer, byteOffset, length),
];
const scratch = useScratch();

describe('the tensors of a GGUF file', () => {
  it('are those of the Python package, bit for bit', async () => {
    const model = await openModelFolder(PACKED);
    const {tensors} = model;
    expect(tensors.names.toSorted()).toEqual(Object.keys(expected).sort());
    for (const [name, {values, shape}] of Object.entries(expected)) {
      expect(tensors.info(name).shape, name).toEqual(shape);
      expect(bitsOf(await tensors.read(name)), name).toEqual(bitsOf(Float32Array.from(values)));
    }
    expect(countStored(tensors.names.map((name) => tensors.info(name)))).toEqual({
      ...{F32: 3, F16: 1, BF16: 1, Q4_0: 2, Q4_1: 2, Q8_0: 2},
    });
    await model.close();
  });

  it('give rows and bytes as the whole has them', async () => {
    const model = await openModelFolder(PACKED);
    const {tensors} = model;
    for (const name of tensors.names) {
      const [whole, bytes] = [await tensors.read(name), await tensors.readBytes(name)];
      const columns = tensors.info(name).shape[1] ?? 1;
      expect(await tensors.readRows(name, 3, 11), name).toEqual(whole.slice(3 * columns, 11 * columns));
      expect(await tensors.readBytes(name, {begin: 5, end: 63}), name).toEqual(bytes.slice(5, 63));
      expect(await tensors.readBytes(name, {begin: 7, end: 7})).toHaveLength(0);
      await expect(tensors.readBytes(name, {begin: 0, end: bytes.length + 1})).rejects.toThrow(RangeError);
    }
    await expect(tensors.readRows('model.norm.weight', 30, 33)).rejects.toThrow(RangeError);
    await model.close();
  });

  it('keep the bits of plain numbers, and say which dtype they are', async () => {
    const {folder, numNeurons} = await openDense(PACKED);
    const dtype = (name: string) => folder.tensors.info(`model.layers.0.${name}.weight`).dtype;
    expect(['self_attn.v_proj', 'self_attn.k_proj', 'mlp.up_proj'].map(dtype)).toEqual(['F16', 'BF16', 'F32']);
    expect(folder.config.torch_dtype).toBe('float32');
    expect(numNeurons).toBe(64);
    await folder.close();
  });

  it('unpack the first half of a block from the lower four bits', async () => {
    const half = Buffer.from(Uint16Array.of(0x3800, 0x3c00).buffer); // 0.5 and 1
    const q4 = Buffer.from(Array.from({length: 16}, (_, i) => i | ((15 - i) << 4)));
    const q8 = Buffer.from(Int8Array.from({length: 32}, (_, i) => i - 20).buffer);
    const steps = Array.from({length: 32}, (_, i) => (i < 16 ? i : 31 - i));
    const path = scratch('blocks.gguf');
    const blocks = [
      {code: 2, bytes: Buffer.concat([half.subarray(0, 2), q4]), values: steps.map((q) => 0.5 * (q - 8))},
      {code: 3, bytes: Buffer.concat([half, q4]), values: steps.map((q) => 0.5 * q + 1)},
      {code: 8, bytes: Buffer.concat([half.subarray(0, 2), q8]), values: steps.map((_, i) => 0.5 * (i - 20))},
    ];
    for (const {code, bytes, values} of blocks) {
      await writeFile(path, renderGguf(await oneTensor(code, bytes)));
      const model = await openModelFolder(path);
      const {tensors} = model;
      expect([...(await tensors.read('odd'))]).toEqual(values);
      await model.close();
    }
  });
});

/** The fixture's head with plain tensors, and one tensor of a row that its family has no name for. */
async function oneTensor(code: number, bytes: Uint8Array) {
  const folder = await openModelFolder(PACKED);
  const {metadata, tensors} = await ggufOf(folder);
  await folder.close();
  const all = [...tensors, {name: 'odd', shape: [1, 32], code, bytes}];
  return {metadata: {...metadata, 'general.alignment': u32(64)}, tensors: all, alignment: 64};
}
