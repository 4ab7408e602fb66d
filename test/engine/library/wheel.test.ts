import {existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterEach, beforeEach, describe, expect, it} from 'vitest';
import {parseRecord, unpackWheel} from '../../../src/engine/library/wheel.js';
import {EnvironmentError} from '../../../src/util/errors.js';
import {type MadeFile, makeWheel, makeZip, tinyTensorFlow} from './make-wheel.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'downcycle-wheel-'));
});
afterEach(() => rmSync(root, {recursive: true, force: true}));

const ALL = /^[^m]/; // all but made-1.dist-info

async function unpack(bytes: Buffer, needed = ALL): Promise<Record<string, number>> {
  writeFileSync(join(root, 'made.whl'), bytes);
  return unpackWheel({wheel: join(root, 'made.whl'), folder: join(root, 'out'), needed});
}

function filesIn(folder: string): string[] {
  if (!existsSync(folder)) return [];
  const names = readdirSync(folder, {recursive: true}) as string[];
  return names.filter((name) => statSync(join(folder, name)).isFile()).sort();
}

function file(name: string, text = name, more: Partial<MadeFile> = {}): MadeFile {
  return {name, data: Buffer.from(text), ...more};
}

describe('unpackWheel', () => {
  it('unpacks the needed files only, byte for byte', async () => {
    const sizes = await unpack(tinyTensorFlow(), /^tensorflow\/lib/);
    expect(sizes).toEqual({'tensorflow/libtensorflow_cc.so.2': 15000, 'tensorflow/libtensorflow_framework.so.2': 9});
    expect(filesIn(join(root, 'out'))).toEqual(Object.keys(sizes).sort());
    expect(readFileSync(join(root, 'out/tensorflow/libtensorflow_cc.so.2'), 'utf8')).toBe('cc '.repeat(5000));
  });

  it('reads stored, deflated and empty files', async () => {
    await unpack(
      makeWheel([file('a', 'stored', {isStored: true}), file('b', 'deflated'), file('c', '', {isStored: true})]),
    );
    expect(['a', 'b', 'c'].map((name) => readFileSync(join(root, 'out', name), 'utf8'))).toEqual([
      'stored',
      'deflated',
      '',
    ]);
  });

  it('keeps programs executable', async () => {
    await unpack(makeWheel([file('bin/ptxas', 'x', {isExecutable: true}), file('lib/a.so', 'y')]));
    expect(statSync(join(root, 'out/bin/ptxas')).mode & 0o111).toBe(0o111);
    expect(statSync(join(root, 'out/lib/a.so')).mode & 0o111).toBe(0);
  });

  it('leaves nothing when a hash differs from RECORD, and names the file', async () => {
    const wheel = tinyTensorFlow({'tensorflow/libtensorflow_framework.so.2': 'A'.repeat(43)});
    const unpacked = unpack(wheel, /^tensorflow\/lib/);
    await expect(unpacked).rejects.toThrow(EnvironmentError);
    await expect(unpacked).rejects.toThrow(/libtensorflow_framework\.so\.2 has SHA-256 .*, its RECORD says A{43}/);
    expect(filesIn(join(root, 'out'))).toEqual([]);
  });

  it('refuses a file that RECORD does not know', async () => {
    const record = file('made-1.dist-info/RECORD', 'other,sha256=abc,3\n');
    await expect(unpack(makeZip([file('a'), record]))).rejects.toThrow(/RECORD has no SHA-256 of a/);
  });

  it('refuses a wheel without RECORD', async () => {
    await expect(unpack(makeZip([file('a')]))).rejects.toThrow(/it has no RECORD/);
  });

  it.each(['../evil', '/etc/evil', 'a/../../evil', 'a\\evil', 'a//b', './a'])('refuses the path %s', async (name) => {
    await expect(unpack(makeWheel([file(name)]))).rejects.toThrow(/names a file outside of itself/);
    expect(filesIn(root)).toEqual(['made.whl']);
  });

  it('refuses a file that unpacks to more than the directory says', async () => {
    await expect(unpack(makeWheel([file('a', 'x'.repeat(1e6), {claimedSize: 10})]))).rejects.toThrow(
      /a has more than its 10 bytes/,
    );
    expect(filesIn(join(root, 'out'))).toEqual([]);
  });

  it('refuses a file that unpacks to less than the directory says', async () => {
    await expect(unpack(makeWheel([file('a', 'x', {claimedSize: 10})]))).rejects.toThrow(
      /a has less than its 10 bytes/,
    );
  });

  it('says that a wheel is damaged wherever it is cut short', async () => {
    const whole = tinyTensorFlow();
    for (let length = 0; length < whole.length; length += 97) {
      await expect(unpack(whole.subarray(0, length)), `cut at ${length}`).rejects.toThrow(/is damaged/);
    }
  });

  it('never lets a flipped bit through', async () => {
    const whole = makeWheel([file('a', 'some text that is packed')]);
    for (let at = 0; at < whole.length; at += 3) {
      const flipped = Buffer.from(whole);
      flipped[at]! ^= 0x10;
      const unpacked = await unpack(flipped).catch((error: unknown) => error);
      if (unpacked instanceof EnvironmentError) continue; // seen
      expect(unpacked, `bit flipped at ${at}`).toEqual({a: 24}); // in a field nothing depends on
      expect(readFileSync(join(root, 'out/a'), 'utf8')).toBe('some text that is packed');
    }
  });
});

describe('parseRecord', () => {
  it('reads hashes, sizes, quoted paths, and lines without either', () => {
    const record = parseRecord('a/b.so,sha256=x-Y_1,12\r\n"c, ""d"".so",sha256=z,3\nRECORD,,\nold,md5=q,4\n');
    expect([...record]).toEqual([
      ['a/b.so', {sha256: 'x-Y_1', size: 12}],
      ['c, "d".so', {sha256: 'z', size: 3}],
      ['RECORD', {sha256: null, size: null}],
      ['old', {sha256: null, size: 4}],
    ]);
  });
});
