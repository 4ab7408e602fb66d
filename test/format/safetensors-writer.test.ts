import {mkdir, readdir, readFile, stat, writeFile} from 'node:fs/promises';
import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {DTYPE_BYTES, widen} from '../../src/format/dtype.js';
import {openSafetensors} from '../../src/format/safetensors.js';
import type {TensorSpec} from '../../src/format/safetensors-header.js';
import {writeSafetensors} from '../../src/format/safetensors-writer.js';
import {EnvironmentError, ModelError} from '../../src/util/errors.js';
import {useScratch} from './scratch.js';

const scratch = useScratch();

const spec = (name: string, dtype: TensorSpec['dtype'], ...shape: number[]): TensorSpec => ({name, dtype, shape});
const bytesOf = ({dtype, shape}: TensorSpec): number => shape.reduce((a, b) => a * b, DTYPE_BYTES[dtype]);
/** The same bytes for the same tensor, other ones for another. */
const contentOf = (tensor: TensorSpec): Uint8Array =>
  Uint8Array.from({length: bytesOf(tensor)}, (_, i) => i * 31 + tensor.name.length * 7 + tensor.name.charCodeAt(0));

const someSpecs = fc.uniqueArray(
  fc.record({
    name: fc.string({minLength: 1}).filter((name) => name !== '__metadata__'),
    dtype: fc.constantFrom(...(Object.keys(DTYPE_BYTES) as TensorSpec['dtype'][])),
    shape: fc.array(fc.nat(4), {maxLength: 3}),
  }),
  {selector: (tensor) => tensor.name, maxLength: 8},
);

describe('writeSafetensors', () => {
  it('writes what the reader reads back, whatever the names, dtypes, shapes and size of shards', async () => {
    let folder = 0;
    await fc.assert(
      fc.asyncProperty(someSpecs, fc.integer({min: 1, max: 200}), async (specs, maxShardBytes) => {
        const path = scratch(String(folder++));
        await mkdir(path);
        const byName = new Map(specs.map((tensor) => [tensor.name, contentOf(tensor)]));
        const files = await writeSafetensors(path, specs, async (name) => byName.get(name)!, {maxShardBytes});
        const found = await readAll(path, files);
        expect(found).toEqual(byName);
      }),
      {numRuns: 60},
    );
  });

  it('starts every tensor at a multiple of its element size and the data at a multiple of 8', async () => {
    const specs = [spec('a', 'BF16', 3), spec('b', 'U8', 1), spec('c', 'F32', 2), spec('d', 'F64', 1)];
    await writeSafetensors(scratch(), specs, async (name) => contentOf(specs.find((s) => s.name === name)!));
    const file = await openSafetensors(scratch('model.safetensors'));
    const infos = [...file.tensors.values()];
    expect(infos[0]!.begin % 8).toBe(0);
    expect(infos.filter((info) => info.begin % DTYPE_BYTES[info.dtype] !== 0)).toEqual([]);
    await file.close();
  });

  it('asks for the tensors once each, in the order of the specs, one at a time', async () => {
    const specs = [spec('a', 'U8', 4), spec('b', 'F32', 1), spec('c', 'U8', 4), spec('d', 'F32', 1)];
    const asked: string[] = [];
    let open = 0;
    await writeSafetensors(
      scratch(),
      specs,
      async (name) => {
        expect(open++).toBe(0);
        asked.push(name);
        await new Promise((resolve) => setImmediate(resolve));
        open--;
        return new Uint8Array(4);
      },
      {maxShardBytes: 10},
    );
    expect(asked).toEqual(['a', 'b', 'c', 'd']);
  });

  it.each(['F64', 'F32', 'F16', 'BF16'] as const)(
    'rounds numbers to %s, across the seam of two writes',
    async (dtype) => {
      const length = 2 ** 22 + 3;
      const values = Float32Array.from({length}, (_, i) => ((i * 37) % 256) - 128);
      await writeSafetensors(scratch(), [spec('x', dtype, length)], async () => values);
      const file = await openSafetensors(scratch('model.safetensors'));
      const back = widen(await file.readBytes('x'), dtype);
      expect(Buffer.compare(Buffer.from(back.buffer), Buffer.from(values.buffer))).toBe(0);
      await file.close();
    },
  );

  it('leaves infinite numbers and what rounds to the largest of float16 to their dtype', async () => {
    const values = Float32Array.of(65_519, -65_519, Number.POSITIVE_INFINITY, Number.NaN);
    await writeSafetensors(scratch(), [spec('x', 'F16', 4)], async () => values);
    const file = await openSafetensors(scratch('model.safetensors'));
    expect([...widen(await file.readBytes('x'), 'F16')]).toEqual([
      65_504,
      -65_504,
      Number.POSITIVE_INFINITY,
      Number.NaN,
    ]);
    await file.close();
  });

  it('marks the file as transformers expects it and keeps further metadata', async () => {
    await writeSafetensors(scratch(), [spec('x', 'U8', 1)], async () => Uint8Array.of(1), {metadata: {step: '3'}});
    const file = await openSafetensors(scratch('model.safetensors'));
    expect(file.metadata).toEqual({format: 'pt', step: '3'});
    await file.close();
  });

  it('cuts shards before they pass the limit and gives a larger tensor a file of its own', async () => {
    const specs = [spec('a', 'U8', 6), spec('b', 'U8', 4), spec('c', 'U8', 1), spec('d', 'U8', 30), spec('e', 'U8', 2)];
    const read = async (name: string): Promise<Uint8Array> => contentOf(specs.find((s) => s.name === name)!);
    const files = await writeSafetensors(scratch(), specs, read, {maxShardBytes: 10});
    const shard = (i: number): string => `model-0000${i}-of-00004.safetensors`;
    expect(files).toEqual([shard(1), shard(2), shard(3), shard(4), 'model.safetensors.index.json']);
    expect(await readdir(scratch())).toEqual(files);
    expect(JSON.parse(await readFile(scratch('model.safetensors.index.json'), 'utf8'))).toEqual({
      metadata: {total_size: 43},
      weight_map: {a: shard(1), b: shard(1), c: shard(2), d: shard(3), e: shard(4)},
    });
  });

  it('writes the same bytes for the same tensors', async () => {
    const specs = [spec('a', 'BF16', 3), spec('b', 'F32', 2)];
    const write = async (name: string): Promise<Buffer> => {
      await mkdir(scratch(name));
      await writeSafetensors(scratch(name), specs, async (n) => contentOf(specs.find((s) => s.name === n)!));
      return readFile(scratch(`${name}/model.safetensors`));
    };
    expect(await write('one')).toEqual(await write('two'));
  });

  it('makes files with the rights that the umask gives', async () => {
    const before = process.umask(0o027);
    try {
      await writeSafetensors(scratch(), [spec('x', 'U8', 1)], async () => Uint8Array.of(1));
    } finally {
      process.umask(before);
    }
    expect((await stat(scratch('model.safetensors'))).mode & 0o777).toBe(0o640);
  });

  it('never overwrites', async () => {
    await writeFile(scratch('model.safetensors'), 'mine');
    const written = writeSafetensors(scratch(), [spec('x', 'U8', 1)], async () => Uint8Array.of(1));
    await expect(written).rejects.toBeInstanceOf(EnvironmentError);
    expect(await readFile(scratch('model.safetensors'), 'utf8')).toBe('mine');
  });
});

describe('writeSafetensors refuses, and leaves nothing behind,', () => {
  it.each<[string, TensorSpec[], Float32Array | Uint8Array, RegExp]>([
    [
      'a name that stands twice',
      [spec('a', 'U8', 1), spec('a', 'U8', 1)],
      Uint8Array.of(1),
      /"a" is to be written twice/,
    ],
    ['an empty name', [spec('', 'U8', 1)], Uint8Array.of(1), /"" cannot be the name/],
    [
      'the name of the metadata',
      [spec('__metadata__', 'U8', 1)],
      Uint8Array.of(1),
      /"__metadata__" cannot be the name/,
    ],
    ['a negative size', [spec('a', 'U8', -1)], Uint8Array.of(1), /"a" cannot have shape \[-1\]/],
    [
      'too few numbers',
      [spec('a', 'BF16', 2, 2)],
      new Float32Array(3),
      /"a" of BF16 \[2, 2\] needs 4 numbers, it was given 3/,
    ],
    ['too many bytes', [spec('a', 'BF16', 2)], new Uint8Array(5), /"a" of BF16 \[2\] needs 4 bytes, it was given 5/],
    [
      'numbers for a tensor of integers',
      [spec('a', 'I32', 1)],
      new Float32Array(1),
      /"a" is I32 and must be given as bytes/,
    ],
    [
      'a number that float16 has not',
      [spec('a', 'F16', 2)],
      Float32Array.of(65_519, -65_520),
      /"a" holds -6\.552e\+4; float16 ends at 65504/,
    ],
  ])('%s', async (_, specs, data, message) => {
    const error = await writeSafetensors(scratch(), specs, async () => data).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ModelError);
    expect((error as Error).message).toMatch(message);
    expect(await readdir(scratch())).toEqual([]);
  });

  it('a source that fails in the second shard', async () => {
    const read = async (name: string): Promise<Uint8Array> => {
      if (name === 'b') throw new Error('the source is gone');
      return new Uint8Array(8);
    };
    const written = writeSafetensors(scratch(), [spec('a', 'U8', 8), spec('b', 'U8', 8)], read, {maxShardBytes: 8});
    await expect(written).rejects.toThrow('the source is gone');
    expect(await readdir(scratch())).toEqual([]);
  });
});

async function readAll(folder: string, files: readonly string[]): Promise<Map<string, Uint8Array>> {
  const found = new Map<string, Uint8Array>();
  for (const name of files.filter((file) => file.endsWith('.safetensors'))) {
    const file = await openSafetensors(`${folder}/${name}`);
    for (const tensor of file.tensors.keys()) found.set(tensor, await file.readBytes(tensor));
    await file.close();
  }
  return found;
}
