import {mkdirSync, readdirSync, readFileSync, truncateSync, utimesSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {locateTensorFlow} from '../../src/engine/library/locate.js';
import {dropDamaged, programFlags, programFolder} from '../../src/engine/native/program-cache.js';
import {useScratch} from '../format/scratch.js';
import {runChild} from '../support/child.js';

const scratch = useScratch();
const maker = () => {
  writeFileSync(scratch('lib.so'), 'library');
  return {library: scratch('lib.so'), threads: 2};
};
const env = (more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => ({XDG_CACHE_HOME: scratch('cache'), ...more});

describe('the folder of compiled programs', () => {
  it('is one for each library and number of threads, and is made', () => {
    const made = maker();
    const folder = programFolder(made, env())!;
    expect(readdirSync(folder)).toEqual([]);
    expect(folder.startsWith(scratch('cache'))).toBe(true);
    expect(programFolder(made, env())).toBe(folder);
    expect(programFolder({...made, threads: 1}, env())).not.toBe(folder);
    writeFileSync(made.library, 'another library');
    expect(programFolder(made, env())).not.toBe(folder);
  });

  it('is not used where a person set flags of XLA, but is by a process below one that uses it', () => {
    expect(programFolder(maker(), env({XLA_FLAGS: '--xla_dump_to=x'}))).toBeNull();
    expect(programFolder(maker(), env({TF_XLA_FLAGS: ''}))).toBeNull();
    const folder = programFolder(maker(), env())!;
    expect(programFolder({library: scratch('lib.so'), threads: 2}, env({TF_XLA_FLAGS: programFlags(folder)}))).toBe(
      folder,
    );
  });

  it('is not used where it cannot be made', () => {
    writeFileSync(scratch('cache'), 'a file');
    expect(programFolder(maker(), env())).toBeNull();
  });

  it('loses what was written first, once it takes more than a gigabyte', () => {
    const made = maker();
    const folder = programFolder(made, env())!;
    for (const [i, name] of ['old', 'middle', 'new'].entries()) {
      writeFileSync(join(folder, name), '');
      truncateSync(join(folder, name), 400 * 2 ** 20); // sparse: takes no room
      utimesSync(join(folder, name), 1000 + i, 1000 + i);
    }
    programFolder(made, env());
    expect(readdirSync(folder)).toEqual(['new']);
  });

  it('is emptied for what is said of a damaged file, and for nothing else', () => {
    const folder = scratch('programs');
    mkdirSync(folder);
    writeFileSync(join(folder, 'a'), 'x');
    expect(dropDamaged(folder, 'step: Detected unsupported operations')).toBe(false);
    expect(dropDamaged(null, 'Read less bytes than requested')).toBe(false);
    expect(readdirSync(folder)).toEqual(['a']);
    expect(dropDamaged(folder, `${folder}/b.tmp; No space left on device`)).toBe(true);
    expect(readdirSync(folder)).toEqual([]);
  });
});

const found = await locateTensorFlow({device: 'cpu'});
const tensorflow = found.kind === 'found' ? found.location.folder : null;

describe.skipIf(tensorflow === null)('a second process (skipped without TensorFlow)', () => {
  const worker = new URL('./program-cache-worker.ts', import.meta.url);
  const run = () =>
    runChild(worker, [], {
      ...{XDG_CACHE_HOME: scratch('cache'), DOWNCYCLE_TENSORFLOW: tensorflow ?? ''},
      ...{TF_XLA_FLAGS: undefined, TF_CPP_MIN_LOG_LEVEL: undefined},
    });
  const programs = (): string[] => {
    const root = join(scratch('cache'), 'downcycle', 'programs');
    return readdirSync(root).flatMap((one) => readdirSync(join(root, one)).map((name) => join(root, one, name)));
  };

  it('computes the same bits with the program of the first', async () => {
    const first = await run();
    const [program, ...others] = programs();
    expect(others).toEqual([]);
    const bytes = readFileSync(program!);
    expect(bytes.length).toBeGreaterThan(1000);
    expect(await run()).toEqual(first);
    expect(programs()).toEqual([program]);
  });

  it.each([
    ['cut short', (bytes: Buffer) => bytes.subarray(0, 500)],
    ['empty', () => Buffer.alloc(0)],
    ['overwritten', (bytes: Buffer) => Buffer.alloc(bytes.length, 7)],
  ])('compiles again what is %s', async (_, damage) => {
    const first = await run();
    const [program] = programs();
    const whole = readFileSync(program!);
    writeFileSync(program!, damage(whole));
    expect(await run()).toEqual(first);
    expect(await run()).toEqual(first);
    expect(readFileSync(program!).length).toBe(whole.length);
  });
});
