import {chmod, mkdir, open, truncate, writeFile} from 'node:fs/promises';
import {fileURLToPath} from 'node:url';
import {describe, expect, it} from 'vitest';
import {isFloatDtype, widen} from '../../src/format/dtype.js';
import {openSafetensors} from '../../src/format/safetensors.js';
import {EnvironmentError, ModelError} from '../../src/util/errors.js';
import {entry, writeRaw} from './raw-safetensors.js';
import {useScratch} from './scratch.js';

const scratch = useScratch();
const REFERENCE = fileURLToPath(new URL('../fixtures/format/reference.safetensors', import.meta.url));

/** What Python's safetensors says it wrote into the fixture. */
const REFERENCE_VALUES = {
  double: [1.5, -2.25, Math.fround(1 / 3)],
  single: [0, -0, 0.3333333432674408, Infinity, -Infinity, 1.401298464324817e-45],
  half: [0.333251953125, 65504, 2 ** -24, -2, Infinity, 0.0010004043579101562],
  brain: [0.333984375, Math.fround(3.3895313892515355e38), Math.fround(9.183549615799121e-41), -7.125],
  scalar: [2.5],
  empty: [],
};

describe('openSafetensors', () => {
  it('reads the values that the reference implementation wrote', async () => {
    const file = await openSafetensors(REFERENCE);
    for (const [name, values] of Object.entries(REFERENCE_VALUES)) {
      const {dtype} = file.info(name);
      if (!isFloatDtype(dtype)) throw new Error(`${name} is no float`);
      expect(Array.from(widen(await file.readBytes(name), dtype)), name).toEqual(values);
    }
    await file.close();
  });

  it('gives the bytes of integers as they are', async () => {
    const file = await openSafetensors(REFERENCE);
    const bytes = (name: string): Promise<Uint8Array> => file.readBytes(name);
    expect(new BigInt64Array((await bytes('long')).buffer)).toEqual(BigInt64Array.of(2n ** 40n, -1n));
    expect(new Int32Array((await bytes('int')).buffer)).toEqual(Int32Array.of(7, -7));
    expect(new Int16Array((await bytes('short')).buffer)).toEqual(Int16Array.of(-300));
    expect([...(await bytes('byte')), ...(await bytes('flag')), ...(await bytes('char'))]).toEqual([
      255, 0, 1, 1, 0, 253, 3,
    ]);
    await file.close();
  });

  it('gives shapes, dtypes and metadata', async () => {
    const file = await openSafetensors(REFERENCE);
    expect(file.metadata).toEqual({format: 'pt', note: 'written by safetensors for Python'});
    expect(file.info('single')).toMatchObject({dtype: 'F32', shape: [2, 3]});
    expect(file.info('empty')).toMatchObject({dtype: 'F32', shape: [0, 4]});
    expect(file.tensors.size).toBe(12);
    await file.close();
  });

  it('reads a range of a tensor', async () => {
    const file = await openSafetensors(REFERENCE);
    expect([...(await file.readBytes('byte', {begin: 1, end: 3}))]).toEqual([0, 1]);
    await expect(file.readBytes('byte', {begin: 1, end: 4})).rejects.toThrow(RangeError);
    await file.close();
  });

  it('reads tensors that are not aligned in the file', async () => {
    const data = Buffer.concat([Buffer.of(7), Buffer.from(Float32Array.of(1.5, -2).buffer)]);
    const header = {byte: entry('U8', [1], 0, 1), odd: entry('F32', [2], 1, 9)};
    const file = await openSafetensors(await writeRaw(scratch('odd'), header, data));
    expect(Array.from(widen(await file.readBytes('odd'), 'F32'))).toEqual([1.5, -2]);
    await file.close();
  });

  it('reads beyond 4 GB', async () => {
    const size = 5 * 2 ** 30;
    const header = {big: entry('U8', [size], 0, size), tail: entry('F32', [2], size, size + 8)};
    const path = await writeRaw(scratch('big'), header);
    const writer = await open(path, 'r+');
    const begin = (await writer.stat()).size;
    await writer.write(Buffer.from(Float32Array.of(3, 4).buffer), 0, 8, begin + size); // sparse: takes no room
    await writer.close();
    const file = await openSafetensors(path);
    expect(Array.from(widen(await file.readBytes('tail'), 'F32'))).toEqual([3, 4]);
    expect([...(await file.readBytes('big', {begin: size - 2, end: size}))]).toEqual([0, 0]);
    await file.close();
  });

  it('keeps a tensor called __proto__', async () => {
    const header = '{"__proto__": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}';
    const file = await openSafetensors(await writeRaw(scratch('proto'), header, Buffer.of(5)));
    expect([...(await file.readBytes('__proto__'))]).toEqual([5]);
    await file.close();
  });

  it('says which tensor it does not have', async () => {
    const file = await openSafetensors(REFERENCE);
    await expect(file.readBytes('gate')).rejects.toThrow(/there is no tensor "gate" among its 12/);
    await file.close();
  });

  it('says so if the file is cut while it is open', async () => {
    const path = await writeRaw(scratch('cut'), {a: entry('F32', [4], 0, 16)}, 16);
    const file = await openSafetensors(path);
    await truncate(path, 70);
    await expect(file.readBytes('a')).rejects.toThrow(/the file ends inside tensor "a"/);
    await file.close();
  });
});

describe('openSafetensors refuses', () => {
  const F32 = (begin: number, end: number): Record<string, unknown> => entry('F32', [(end - begin) / 4], begin, end);
  const one = {a: F32(0, 8)};

  it.each<[string, unknown, number, RegExp]>([
    ['a truncated file', one, 5, /tensor "a" ends at byte 8 of the data, the file has 5; it may be truncated/],
    ['bytes after the last tensor', one, 9, /the last 1 bytes belong to no tensor/],
    ['a header that is not JSON', '{"a": ', 0, /the header is not JSON/],
    ['a header that is a list', '[1]', 0, /the header is not a JSON object/],
    ['an empty header', '', 0, /the header is not JSON/],
    ['overlapping tensors', {a: F32(0, 8), b: F32(4, 12)}, 12, /tensors "a" and "b" overlap/],
    ['the same bytes twice', {a: F32(0, 8), b: F32(0, 8)}, 8, /tensors "a" and "b" overlap/],
    ['a hole', {a: F32(0, 8), b: F32(12, 16)}, 16, /4 bytes before tensor "b" belong to no tensor/],
    ['a hole at the start', {a: F32(4, 8)}, 8, /4 bytes before tensor "a"/],
    [
      'offsets that do not fit the shape',
      {a: entry('BF16', [3, 2], 0, 8)},
      8,
      /"a" of BF16 \[3, 2\] needs 12 bytes, its offsets give 8/,
    ],
    [
      'offsets that run backwards',
      {a: entry('F32', [1], 8, 4)},
      8,
      /"a" of F32 \[1\] needs 4 bytes, its offsets give -4/,
    ],
    ['negative offsets', {a: entry('F32', [1], -4, 0)}, 8, /"a" has a wrong entry in the header: data_offsets\.0/],
    ['an unknown dtype', {a: entry('F8_E4M3', [8], 0, 8)}, 8, /"a" has dtype F8_E4M3; downcycle reads F64, F32/],
    ['an inherited word as dtype', {a: entry('toString', [8], 0, 8)}, 8, /"a" has dtype toString/],
    [
      'too many axes',
      {a: entry('U8', Array(17).fill(1), 0, 1)},
      1,
      /"a" has a wrong entry in the header: shape: more than 16 axes/,
    ],
    ['a shape of fractions', {a: entry('U8', [0.5, 2], 0, 1)}, 1, /"a" has a wrong entry in the header: shape\.0/],
    [
      'a shape beyond all numbers',
      {a: entry('U8', Array(16).fill(2 ** 53 - 1), 0, 1)},
      1,
      /"a" of U8 .* needs .* bytes/,
    ],
    [
      'an entry without dtype',
      {a: {shape: [1], data_offsets: [0, 1]}},
      1,
      /"a" has a wrong entry in the header: dtype/,
    ],
    [
      'a name that stands twice',
      '{"a": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}, "a": {}}',
      1,
      /"a" stands twice/,
    ],
    ['metadata that is not text', {__metadata__: {step: 3}, ...one}, 8, /__metadata__ must map text to text/],
  ])('%s', async (_, header, dataBytes, message) => {
    const path = await writeRaw(scratch('bad.safetensors'), header, dataBytes);
    const error = await openSafetensors(path).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ModelError);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message.startsWith(`${path}: `)).toBe(true);
  });

  it.each<[string, bigint, RegExp]>([
    ['a header longer than the file', 5000n, /the header claims 5000 bytes, the file has 2 more; it is truncated/],
    ['a header over the limit', 100_000_001n, /the header claims 100000001 bytes, the limit is 100000000/],
    ['a header of 2^64 - 1 bytes', 2n ** 64n - 1n, /the limit is 100000000/],
  ])('%s', async (_, length, message) => {
    const path = await writeRaw(scratch('long'), '{}', 0, {length});
    await expect(openSafetensors(path)).rejects.toThrow(message);
  });

  it('a header that is not UTF-8', async () => {
    const path = await writeRaw(scratch('latin'), '{"a}', 0, {length: 4n});
    const file = await open(path, 'r+');
    await file.write(Buffer.of(0xff), 0, 1, 10);
    await file.close();
    await expect(openSafetensors(path)).rejects.toThrow(/the header is not UTF-8 text/);
  });

  it('a file that is not there', async () => {
    await expect(openSafetensors(scratch('none'))).rejects.toThrow(/none: there is no such file/);
  });

  it('a folder', async () => {
    await mkdir(scratch('folder'));
    await expect(openSafetensors(scratch('folder'))).rejects.toThrow(/this is not a file/);
  });

  it('an empty file', async () => {
    await writeFile(scratch('empty'), '');
    await expect(openSafetensors(scratch('empty'))).rejects.toThrow(/0 bytes are too few for a safetensors file/);
  });

  it('a Git LFS pointer', async () => {
    await writeFile(scratch('lfs'), 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n');
    await expect(openSafetensors(scratch('lfs'))).rejects.toThrow(/this is a Git LFS pointer/);
  });

  it.skipIf(process.getuid?.() === 0)('a file it may not read', async () => {
    const path = await writeRaw(scratch('secret'), '{}');
    await chmod(path, 0o000);
    await expect(openSafetensors(path)).rejects.toBeInstanceOf(EnvironmentError);
  });
});
