import {writeFile} from 'node:fs/promises';
import {describe, expect, it} from 'vitest';
import {openGguf} from '../../../src/format/gguf/file.js';
import {ModelError} from '../../../src/util/errors.js';
import {f32, type GgufContent, type GgufTensor, renderGguf, text, texts, u32} from '../../support/gguf.js';
import {useScratch} from '../scratch.js';

const scratch = useScratch();

const tensor = (name: string, more: Partial<GgufTensor> = {}): GgufTensor => ({
  ...{name, shape: [2, 3], code: 0, bytes: new Uint8Array(24)},
  ...more,
});
const content = (more: Partial<GgufContent> = {}): GgufContent => ({
  metadata: {'general.architecture': text('llama')},
  tensors: [tensor('a'), tensor('b')],
  ...more,
});
/** The bytes of a file with other ones at a place. */
const patched = (at: number, bytes: Uint8Array): Buffer => {
  const file = renderGguf(content());
  file.set(bytes, at);
  return file;
};
const u64 = (value: bigint): Buffer => {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(value);
  return buffer;
};

describe('openGguf', () => {
  it('reads keys of every kind, and tensors in the order of their bytes', async () => {
    const metadata = {...content().metadata, 'x.eps': f32(1e-5), 'x.words': texts(['a', 'é']), 'x.count': u32(7)};
    await writeFile(scratch('a.gguf'), renderGguf(content({metadata})));
    const file = await openGguf(scratch('a.gguf'));
    expect([...file.tensors.values()].map(({name, shape, end, begin}) => [name, shape, end - begin])).toEqual([
      ['a', [2, 3], 24],
      ['b', [2, 3], 24],
    ]);
    expect(file.metadata.get('x.eps')).toBe(1e-5);
    expect(file.metadata.get('x.count')).toBe(7);
    const words = file.metadata.get('x.words');
    expect(typeof words === 'object' && words.texts()).toEqual(['a', 'é']);
    expect(() => typeof words === 'object' && words.numbers()).toThrow('the value of x.words is not a list of numbers');
    await file.close();
  });

  it('reads a head that is longer than what it takes at first', async () => {
    const long = Array.from({length: 3000}, (_, i) => `${i} ${'x'.repeat(1000)}`);
    await writeFile(scratch('a.gguf'), renderGguf(content({metadata: {long: texts(long)}})));
    const file = await openGguf(scratch('a.gguf'));
    const {metadata, tensors} = file;
    const list = metadata.get('long');
    expect(typeof list === 'object' && list.texts()).toEqual(long);
    expect([...tensors.keys()]).toEqual(['a', 'b']);
    await file.close();
  });

  it.each<[string, Buffer, RegExp]>([
    ['of another kind', Buffer.from('PK\u0003\u0004 this is a pickle'), /not a GGUF file/],
    ['without content', Buffer.alloc(0), /not a GGUF file/],
    ['that is a Git LFS pointer', Buffer.from('version https://git-lfs.github.com/spec/v1'), /Git LFS pointer/],
    ['of version 1', renderGguf(content({version: 1})), /GGUF of version 1; versions 2 and 3 are read/],
    ['of an unknown version', renderGguf(content({version: 9})), /GGUF of version 9/],
    ['that is big-endian', renderGguf(content({version: 0x03000000})), /big-endian/],
    [
      'cut in its head',
      renderGguf(content()).subarray(0, 100),
      /ends inside .*, at byte 100 of \d+; it is truncated or damaged/,
    ],
    [
      'cut in its data',
      renderGguf(content()).subarray(0, -20),
      /tensor "b" ends at byte 56 of the data, the file has 44/,
    ],
    [
      'with more tensors than there are',
      renderGguf(content({numTensors: 3})),
      /the file ends inside|1 to 4 are possible/,
    ],
    [
      'with absurdly many tensors',
      renderGguf(content({numTensors: 2 ** 50})),
      /claims 1125899906842624 tensors; the limit is/,
    ],
    [
      'cut short in its head',
      renderGguf(content({numTensors: 1000})),
      /claims 1000 tensors, more than its \d+ bytes can hold/,
    ],
    [
      'with absurdly many keys',
      renderGguf(content({numKeys: 2 ** 50})),
      /claims 1125899906842624 keys; the limit is 100000/,
    ],
    [
      'with a key of absurd length',
      patched(24, u64(2n ** 60n)),
      /key 1 of 1 claims a text of 1152921504606847000 bytes/,
    ],
    ['with a text of absurd length', patched(56, u64(2n ** 63n)), /value of general.architecture claims a text of/],
    ['with a value of no type', patched(52, Buffer.from([99])), /value of general.architecture is of type 99/],
    ['with a text that is none', patched(64, Buffer.from([0xff])), /general.architecture has a text that is not UTF-8/],
    ['with two tensors of one name', renderGguf(content({tensors: [tensor('a'), tensor('a')]})), /"a" stands twice/],
    [
      'with tensors that overlap',
      renderGguf(
        content({tensors: [tensor('a', {shape: [4, 4], bytes: new Uint8Array(64)}), tensor('b', {offset: 32})]}),
      ),
      /tensors "a" and "b" overlap/,
    ],
    [
      'with a tensor beyond its end',
      renderGguf(content({tensors: [tensor('a', {offset: 2 ** 40})]})),
      /"a" ends at byte 1099511627800 of the data/,
    ],
    [
      'with a tensor that begins askew',
      renderGguf(content({tensors: [tensor('a'), tensor('b', {offset: 36})]})),
      /"b" begins at byte 36 of the data, no multiple of 32/,
    ],
    [
      'with a tensor of absurd size',
      renderGguf(content({tensors: [tensor('a', {shape: [2 ** 40, 2 ** 40]})]})),
      /"a" of F32 cannot have shape/,
    ],
    [
      'with a tensor of no axes',
      renderGguf(content({tensors: [tensor('a', {shape: []})]})),
      /"a" has 0 axes; 1 to 4 are possible/,
    ],
    [
      'with rows that are no whole blocks',
      renderGguf(content({tensors: [tensor('a', {code: 8, shape: [2, 33]})]})),
      /"a" of Q8_0 cannot have shape \[2, 33\]/,
    ],
    [
      'packed in another way',
      renderGguf(content({tensors: [tensor('a', {code: 12})]})),
      /"a" is Q4_K; F32, F16, BF16, Q4_0, Q4_1 and Q8_0 are read/,
    ],
    [
      'packed in a way that nobody knows',
      renderGguf(content({tensors: [tensor('a', {code: 77})]})),
      /"a" is of type 77;/,
    ],
    [
      'with a wrong alignment',
      renderGguf(content({metadata: {'general.alignment': u32(24)}})),
      /general.alignment is 24; a power of two is needed/,
    ],
  ])('refuses a file %s', async (_, bytes, message) => {
    const path = scratch('damaged.gguf');
    await writeFile(path, bytes);
    const error = await openGguf(path).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(ModelError);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message.startsWith(`${path}: `)).toBe(true);
    expect((error as Error).message).not.toContain('\n');
  });

  it('refuses a list that claims more texts than the file can hold, and a key that stands twice', async () => {
    const twice = renderGguf({metadata: {abc: u32(1), abd: u32(2)}, tensors: []});
    twice.write('c', twice.indexOf('abd') + 2);
    await writeFile(scratch('twice.gguf'), twice);
    await expect(openGguf(scratch('twice.gguf'))).rejects.toThrow('key "abc" stands twice');
    const list = renderGguf({metadata: {words: texts(['one'])}, tensors: []});
    list.set(u64(2n ** 40n), list.indexOf('words') + 5 + 8);
    await writeFile(scratch('list.gguf'), list);
    await expect(openGguf(scratch('list.gguf'))).rejects.toThrow('the value of words claims 1099511627776 texts');
  });

  it('says what to do about types that are not read, and that a file is not there', async () => {
    await writeFile(scratch('k.gguf'), renderGguf(content({tensors: [tensor('a', {code: 14})]})));
    await expect(openGguf(scratch('k.gguf'))).rejects.toMatchObject({
      message: expect.stringContaining('tensor "a" is Q6_K') as string,
      hint: expect.stringContaining('llama-quantize --allow-requantize') as string,
    });
    await expect(openGguf(scratch('none.gguf'))).rejects.toThrow('none.gguf: there is no such file.');
  });
});
