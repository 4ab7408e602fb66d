import {readFile, writeFile} from 'node:fs/promises';
import {describe, expect, it} from 'vitest';
import {type Profile, readProfile, requireProfileOf, writeProfile} from '../../src/downcycle/profile-file.js';
import {DataError, EnvironmentError, ModelError} from '../../src/util/errors.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA} from '../model/tiny-llama.js';
import {tinyProfile} from './tiny-profile.js';

const scratch = useScratch();

function plain({layers, metadata}: Profile) {
  return {metadata, layers: layers.map((layer) => ({...layer, taskOfSample_J: Array.from(layer.taskOfSample_J)}))};
}

/** Writes a profile and puts other text of the same length into its head. */
async function writeTampered(from: string, to: string): Promise<string> {
  expect(to).toHaveLength(from.length);
  const path = scratch('tampered');
  await writeProfile(path, await tinyProfile());
  const bytes = await readFile(path, 'latin1');
  expect(bytes).toContain(from);
  await writeFile(path, bytes.replace(from, to), 'latin1');
  return path;
}

describe('a profile on disk', () => {
  it('is read as it was written', async () => {
    const profile = await tinyProfile();
    await writeProfile(scratch('profile'), profile);
    expect(plain(await readProfile(scratch('profile')))).toEqual(plain(profile));
  });

  it('never takes the place of another', async () => {
    await writeFile(scratch('profile'), 'mine');
    await expect(writeProfile(scratch('profile'), await tinyProfile())).rejects.toThrow(EnvironmentError);
    expect(await readFile(scratch('profile'), 'utf8')).toBe('mine');
  });

  it('is refused when it is missing or cut off', async () => {
    await expect(readProfile(scratch('nothing'))).rejects.toThrow(ModelError);
    await writeProfile(scratch('profile'), await tinyProfile());
    const bytes = await readFile(scratch('profile'));
    await writeFile(scratch('cut'), bytes.subarray(0, bytes.length - 4));
    await expect(readProfile(scratch('cut'))).rejects.toThrow(ModelError);
  });

  it('is refused when it is another safetensors file', async () => {
    const read = readProfile(`${TINY_LLAMA}/model.safetensors`);
    await expect(read).rejects.toThrow(DataError);
    await expect(read).rejects.toThrow('this safetensors file is no profile');
  });

  it.each([
    ['"dtype":"I32"', '"dtype":"F32"', 'tensor "task_of_sample" is F32 [6], a profile has I32'],
    [
      '[\\"prose\\",\\"code\\",\\"verse\\"]',
      '[\\"prose\\",\\"code, or verse\\"]',
      'a sample is of task 2, there are 2 tasks',
    ],
    [
      '[\\"prose\\",\\"code\\",\\"verse\\"]',
      '[\\"prose\\",\\"cod\\",\\"v\\",\\"\\"]',
      'samples of 3 tasks, 4 are named',
    ],
    ['\\"tokenHash\\"', '\\"tokenhash\\"', 'metadata is damaged: tokenHash'],
    ['\\"ffnWidth\\":24', '\\"ffnWidth\\":12', 'layers.0.gate_mean" is F32 [6, 24], a profile has F32 [12, 12]'],
    ['{\\"tasks\\"', '!\\"tasks\\"', 'metadata is damaged'],
  ])('is refused when %s is %s', async (from, to, message) => {
    const read = readProfile(await writeTampered(from, to));
    await expect(read).rejects.toThrow(DataError);
    await expect(read).rejects.toThrow(message);
  });

  it('is not written when its layers are not those it claims', async () => {
    const {layers, metadata} = await tinyProfile();
    const written = writeProfile(scratch('profile'), {layers: layers.slice(1), metadata});
    await expect(written).rejects.toThrow('the profile does not hold 2 layers of 24 neurons');
  });
});

describe('requireProfileOf', () => {
  it('accepts the model itself and names what differs in another', async () => {
    const profile = await tinyProfile();
    const {model} = profile.metadata;
    expect(() => requireProfileOf(profile, model, 'm')).not.toThrow();
    expect(() => requireProfileOf(profile, {...model, layers: 4}, 'm')).toThrow(
      'The profile has 2 layers of 24 neurons, m has 4 of 24.',
    );
    expect(() => requireProfileOf(profile, {...model, fingerprint: '0'.repeat(64)}, 'm')).toThrow('other weights');
  });
});
