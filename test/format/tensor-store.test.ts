import {copyFile, mkdir, rename, rm, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {writeSafetensors} from '../../src/format/safetensors-writer.js';
import {openTensors} from '../../src/format/tensor-store.js';
import {ModelError} from '../../src/util/errors.js';
import {useScratch} from './scratch.js';

const scratch = useScratch();

const TENSORS = {
  embed: {dtype: 'BF16', shape: [4, 3], values: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]},
  norm: {dtype: 'F32', shape: [3], values: [0.1, 0.2, 0.3].map(Math.fround)},
  cube: {dtype: 'F16', shape: [2, 2, 2], values: [1, 2, 3, 4, 5, 6, 7, -8]},
  scale: {dtype: 'F64', shape: [], values: [0.5]},
} as const;
type Name = keyof typeof TENSORS;
const NAMES = Object.keys(TENSORS) as Name[];
const INDEX = 'model.safetensors.index.json';
const shard = (i: number): string => `model-0000${i}-of-00004.safetensors`;

async function write(maxShardBytes = 2e9): Promise<void> {
  const specs = NAMES.map((name) => ({name, ...TENSORS[name]}));
  const read = async (name: string): Promise<Float32Array> => Float32Array.from(TENSORS[name as Name].values);
  await writeSafetensors(scratch(), specs, read, {maxShardBytes});
}

describe.each([
  ['one file', 2e9],
  ['shards', 1],
])('openTensors over %s', (_, maxShardBytes) => {
  it('reads every float dtype as float32', async () => {
    await write(maxShardBytes);
    const store = await openTensors(scratch());
    expect([...store.names].sort()).toEqual([...NAMES].sort());
    for (const name of NAMES) {
      expect(store.info(name)).toMatchObject({name, dtype: TENSORS[name].dtype, shape: TENSORS[name].shape});
      expect(Array.from(await store.read(name)), name).toEqual(TENSORS[name].values);
    }
    await store.close();
  });

  it('reads rows as slices of the whole', async () => {
    await write(maxShardBytes);
    const store = await openTensors(scratch());
    for (const [name, rowSize] of [
      ['embed', 3],
      ['norm', 1],
      ['cube', 2],
    ] as const) {
      const whole = await store.read(name);
      for (let begin = 0; begin <= whole.length / rowSize; begin++) {
        for (let end = begin; end <= whole.length / rowSize; end++) {
          expect(await store.readRows(name, begin, end)).toEqual(whole.slice(begin * rowSize, end * rowSize));
        }
      }
    }
    await store.close();
  });

  it('gives the stored bytes', async () => {
    await write(maxShardBytes);
    const store = await openTensors(scratch());
    expect([...(await store.readBytes('cube'))].slice(0, 4)).toEqual([0x00, 0x3c, 0x00, 0x40]); // 1 and 2 in float16
    await store.close();
  });
});

describe('a tensor store', () => {
  it('has no rows beyond the last one, and none of a scalar', async () => {
    await write();
    const store = await openTensors(scratch());
    await expect(store.readRows('embed', 3, 5)).rejects.toThrow(
      'rows [3, 5) of tensor "embed", which has shape [4, 3]',
    );
    await expect(store.readRows('scale', 0, 1)).rejects.toThrow(RangeError);
    await store.close();
  });

  it('has no floats in a tensor of integers', async () => {
    await writeSafetensors(scratch(), [{name: 'ids', dtype: 'I32', shape: [1]}], async () => new Uint8Array(4));
    const store = await openTensors(scratch());
    await expect(store.read('ids')).rejects.toThrow(
      /model\.safetensors: tensor "ids" is I32; real numbers were asked for/,
    );
    expect(await store.readBytes('ids')).toEqual(new Uint8Array(4));
    await store.close();
  });

  it('says which tensor it does not have', async () => {
    await write();
    const store = await openTensors(scratch());
    expect(store.has('gate')).toBe(false);
    expect(() => store.info('gate')).toThrow(ModelError);
    await expect(store.read('gate')).rejects.toThrow(`${scratch()}: there is no tensor "gate" among its 4.`);
    await store.close();
  });

  it('takes the single file where there is an index too, as transformers does', async () => {
    await write();
    await writeFile(scratch(INDEX), '{"weight_map": {"gone": "gone.safetensors"}}');
    const store = await openTensors(scratch());
    expect(store.has('embed')).toBe(true);
    await store.close();
  });
});

describe('openTensors refuses', () => {
  const message = async (): Promise<string> => {
    const error: unknown = await openTensors(scratch()).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ModelError);
    return (error as Error).message;
  };

  it('a folder without weights', async () => {
    expect(await message()).toMatch(/there is neither model\.safetensors nor model\.safetensors\.index\.json/);
  });

  it('a folder with pickled weights only, and says so', async () => {
    await writeFile(scratch('pytorch_model.bin'), '');
    expect(await message()).toMatch(
      /there is only pytorch_model\.bin, a pickle: reading one runs whatever code it holds\. downcycle reads safetensors\.$/,
    );
  });

  it('an index whose shard is missing', async () => {
    await write(1);
    await rm(scratch(shard(2)));
    expect(await message()).toBe(`${scratch(INDEX)}: shard "${shard(2)}" is not in the folder.`);
  });

  it('an index whose tensor is in another shard', async () => {
    await write(1);
    await rename(scratch(shard(1)), scratch('kept'));
    await rename(scratch(shard(2)), scratch(shard(1)));
    await rename(scratch('kept'), scratch(shard(2)));
    expect(await message()).toBe(`${scratch(INDEX)}: tensor "embed" should be in ${shard(1)}, which does not have it.`);
  });

  it('tensors that stand in two shards, and names them', async () => {
    const entries = (...names: string[]) => names.map((name) => ({name, dtype: 'F32' as const, shape: [1]}));
    for (const [part, ...names] of [
      ['one', 'a', 'b', 'c'],
      ['two', 'b', 'c', 'd'],
    ] as const) {
      await mkdir(scratch(part));
      await writeSafetensors(scratch(part), entries(...names), async () => Float32Array.of(1));
      await copyFile(join(scratch(part), 'model.safetensors'), scratch(`${part}.safetensors`));
    }
    const weight_map = {a: 'one.safetensors', b: 'one.safetensors', c: 'two.safetensors', d: 'two.safetensors'};
    await writeFile(scratch(INDEX), JSON.stringify({weight_map}));
    const both = 'one.safetensors and two.safetensors';
    expect(await message()).toBe(`${scratch(INDEX)}: 2 tensors stand in two shards: "b" (${both}), "c" (${both}).`);
  });

  it('an index that leaves the folder', async () => {
    await writeFile(scratch(INDEX), '{"weight_map": {"a": "../a.safetensors"}}');
    expect(await message()).toMatch(/shard "\.\.\/a\.safetensors" must be a file of the same folder/);
  });

  it('an index that is not JSON, by line and column', async () => {
    await writeFile(scratch(INDEX), '{\n  "weight_map": {,}\n}');
    expect(await message()).toBe(`${scratch(INDEX)}:2:18: expected a quoted name or "}", found \`,}\`.`);
  });

  it('an index without a weight map', async () => {
    await writeFile(scratch(INDEX), '{"weight_map": {"a": 3}}');
    expect(await message()).toMatch(/"weight_map" must map the name of each tensor to a file/);
  });
});
