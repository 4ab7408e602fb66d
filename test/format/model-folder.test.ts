import {spawnSync} from 'node:child_process';
import {existsSync} from 'node:fs';
import {chmod, mkdir, readdir, readFile, rm, stat, symlink, writeFile} from 'node:fs/promises';
import {describe, expect, it} from 'vitest';
import {
  expectTensor,
  type ModelFolderContent,
  ORIGIN_FILES,
  openModelFolder,
  readModelConfig,
  writeModelFolder,
} from '../../src/format/model-folder.js';
import {makeAtomic, refuseExisting, writeFileAtomic, writeFolderAtomic} from '../../src/util/atomic.js';
import {EnvironmentError, ModelError} from '../../src/util/errors.js';
import {useScratch} from './scratch.js';

const scratch = useScratch();

const CONTENT: ModelFolderContent = {
  config: {model_type: 'llama', hidden_size: 2, rope_theta: 1e6, eos_token_id: [1, 2]},
  entries: [
    {name: 'model.norm.weight', dtype: 'BF16', shape: [2]},
    {name: 'lm_head.weight', dtype: 'F32', shape: [3, 2]},
  ],
  read: async (name) => (name === 'lm_head.weight' ? Float32Array.of(1, 2, 3, 4, 5, 6) : Float32Array.of(1, -1)),
};

describe('a model folder', () => {
  it('is read back as it was written', async () => {
    await writeModelFolder(scratch('moe'), {...CONTENT, extraFiles: {'downcycle.json': '{}', 'README.md': '# it\n'}});
    const folder = await openModelFolder(scratch('moe'));
    expect(folder.config).toEqual(CONTENT.config);
    expect(folder.tokenizerFiles).toEqual([]);
    expect(Array.from(await folder.tensors.read('lm_head.weight'))).toEqual([1, 2, 3, 4, 5, 6]);
    expect(await readFile(scratch('moe/README.md'), 'utf8')).toBe('# it\n');
    expect(await readdir(scratch('moe'))).toEqual(['README.md', 'config.json', 'downcycle.json', 'model.safetensors']);
    await folder.close();
  });

  it('is sharded by the size that was asked for', async () => {
    await writeModelFolder(scratch('moe'), {...CONTENT, maxShardBytes: 8, metadata: {by: 'downcycle'}});
    const folder = await openModelFolder(scratch('moe'));
    expect(folder.tensors.names).toHaveLength(2);
    expect(await readdir(scratch('moe'))).toContain('model-00002-of-00002.safetensors');
    await folder.close();
  });

  it('has the tokenizer files of its source byte for byte, writable even if the source is not', async () => {
    await mkdir(scratch('dense'));
    const bytes = Buffer.of(0xef, 0xbb, 0xbf, 0x00, 0xff, 0x0d, 0x0a);
    for (const name of ['tokenizer.json', 'tokenizer.model', 'merges.txt', 'optimizer.pt']) {
      await writeFile(scratch(`dense/${name}`), bytes);
      await chmod(scratch(`dense/${name}`), 0o444);
    }
    await writeModelFolder(scratch('moe'), {...CONTENT, copyFrom: scratch('dense')});
    const folder = await openModelFolder(scratch('moe'));
    expect(folder.tokenizerFiles).toEqual(['tokenizer.json', 'tokenizer.model', 'merges.txt']);
    for (const name of folder.tokenizerFiles) expect(await readFile(scratch(`moe/${name}`))).toEqual(bytes);
    expect((await stat(scratch('moe/merges.txt'))).mode & 0o200).toBe(0o200);
    expect(await readdir(scratch('moe'))).not.toContain('optimizer.pt');
    await folder.close();
  });

  it('prefers an extra file to a copied one', async () => {
    await mkdir(scratch('dense'));
    await writeFile(scratch('dense/generation_config.json'), 'old');
    const extraFiles = {'generation_config.json': 'new'};
    await writeModelFolder(scratch('moe'), {...CONTENT, copyFrom: scratch('dense'), extraFiles});
    expect(await readFile(scratch('moe/generation_config.json'), 'utf8')).toBe('new');
  });

  it('has the record of origin of another folder, if that has one', async () => {
    await mkdir(scratch('moe'));
    await writeModelFolder(scratch('none'), {...CONTENT, originFrom: scratch('moe')});
    expect(await readdir(scratch('none'))).toEqual(['config.json', 'model.safetensors']);
    for (const name of Object.values(ORIGIN_FILES)) await writeFile(scratch(`moe/${name}`), name);
    await writeModelFolder(scratch('trained'), {...CONTENT, originFrom: scratch('moe')});
    for (const name of Object.values(ORIGIN_FILES)) {
      expect(await readFile(scratch(`trained/${name}`), 'utf8')).toBe(name);
    }
  });

  it('is absent, with nothing beside it, when a tensor cannot be had', async () => {
    const read = async (): Promise<Float32Array> => new Float32Array(1);
    await expect(writeModelFolder(scratch('moe'), {...CONTENT, read})).rejects.toBeInstanceOf(ModelError);
    expect(await readdir(scratch())).toEqual([]);
  });

  it('never replaces another', async () => {
    await mkdir(scratch('moe'));
    await writeFile(scratch('moe/mine'), 'mine');
    await expect(writeModelFolder(scratch('moe'), CONTENT)).rejects.toBeInstanceOf(EnvironmentError);
    expect(await readdir(scratch('moe'))).toEqual(['mine']);
  });

  it.each(['config.json', 'model.safetensors', 'model-00001-of-00002.safetensors', '../up.txt', 'a/b', '..', ''])(
    'has no extra file "%s"',
    async (name) => {
      const written = writeModelFolder(scratch('moe'), {...CONTENT, extraFiles: {[name]: ''}});
      await expect(written).rejects.toThrow(RangeError);
      expect(await readdir(scratch())).toEqual([]);
    },
  );
});

describe('what lies in a file', () => {
  it.each<[string, (path: string) => Promise<unknown>]>([
    ['a model folder', (path) => writeModelFolder(path, CONTENT)],
    ['anything that must not be there', refuseExisting],
  ])('cannot be made: %s', async (_, make) => {
    await writeFile(scratch('file'), 'x');
    const refused = make(scratch('file/moe'));
    await expect(refused).rejects.toThrow(EnvironmentError);
    await expect(refused).rejects.toThrow('moe cannot be made: what it would lie in is a file.');
    expect(await readFile(scratch('file'), 'utf8')).toBe('x');
  });

  it('cannot be made: a file', async () => {
    await writeFile(scratch('file'), 'x');
    const refused = writeFileAtomic(scratch('file/a.json'), '{}');
    await expect(refused).rejects.toThrow(EnvironmentError);
    await expect(refused).rejects.toThrow('file is a file; a folder was to be made there.');
  });
});

describe('openModelFolder refuses', () => {
  const message = async (): Promise<string> => {
    const error: unknown = await openModelFolder(scratch('moe')).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ModelError);
    return (error as Error).message;
  };

  it('a folder that is not there', async () => {
    expect(await message()).toBe(`${scratch('moe')}: there is no such file or folder.`);
  });

  it('a file', async () => {
    await writeFile(scratch('moe'), '');
    expect(await message()).toBe(`${scratch('moe')}: this is not a GGUF file; it does not begin with "GGUF".`);
  });

  it('a folder without config.json', async () => {
    await writeModelFolder(scratch('moe'), CONTENT);
    await rm(scratch('moe/config.json'));
    expect(await message()).toBe(`${scratch('moe/config.json')}: there is no such file.`);
  });

  it.each([
    ['a run, of which the last model is named', ['step-000002/model', 'step-000010/model'], 'step-000010/model'],
    ['a checkpoint', ['model'], 'model'],
  ])('%s', async (_, folders, named) => {
    for (const folder of folders) await mkdir(scratch(`run/${folder}`), {recursive: true});
    const error: unknown = await readModelConfig(scratch('run')).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(ModelError);
    expect(error).toMatchObject({hint: expect.stringContaining(`${scratch('run')}/${named}.`) as string});
  });

  it('a config that is not JSON, by line and column', async () => {
    await writeModelFolder(scratch('moe'), CONTENT);
    await writeFile(scratch('moe/config.json'), '{\n  "hidden_size": 2,\n}\n');
    expect(await message()).toBe(`${scratch('moe/config.json')}:3:1: expected a quoted name, found \`}\`.`);
  });

  it('a config that is a list', async () => {
    await writeModelFolder(scratch('moe'), CONTENT);
    await writeFile(scratch('moe/config.json'), '[]');
    expect(await message()).toBe(`${scratch('moe/config.json')}: this must be a JSON object.`);
  });

  it('a folder without safetensors', async () => {
    await writeModelFolder(scratch('moe'), CONTENT);
    await rm(scratch('moe/model.safetensors'));
    expect(await message()).toMatch(/there is neither model\.safetensors nor/);
  });
});

describe('expectTensor', () => {
  it('gives a tensor of the shape that was asked for', async () => {
    await writeModelFolder(scratch('moe'), CONTENT);
    const folder = await openModelFolder(scratch('moe'));
    expect(expectTensor(folder.tensors, 'lm_head.weight', [3, 2])).toBe(folder.tensors.info('lm_head.weight'));
    await folder.close();
  });

  it.each([[[2, 3]], [[3]], [[3, 2, 1]], [[]]])('refuses another shape: %j', async (shape) => {
    await writeModelFolder(scratch('moe'), CONTENT);
    const folder = await openModelFolder(scratch('moe'));
    expect(() => expectTensor(folder.tensors, 'lm_head.weight', shape)).toThrow(
      `${scratch('moe')}: tensor "lm_head.weight" has shape [3, 2], config.json asks for [${shape.join(', ')}].`,
    );
    await folder.close();
  });

  it('refuses a tensor that is missing', async () => {
    await writeModelFolder(scratch('moe'), CONTENT);
    const folder = await openModelFolder(scratch('moe'));
    expect(() => expectTensor(folder.tensors, 'gate', [2])).toThrow(
      `${scratch('moe')}: tensor "gate" is missing, config.json asks for it with shape [2].`,
    );
    await folder.close();
  });
});

describe('an output path', () => {
  it.each([
    ['', /^The output path is empty\.$/],
    ['x'.repeat(250), /^x{40}\.\.\.: an output name of 250 bytes is too long\.$/],
    ['ä'.repeat(130), /: an output name of 260 bytes is too long\.$/],
    ['x'.repeat(234), /: an output name of 234 bytes is too long\.$/],
  ])('without a usable name is refused: %#', async (name, message) => {
    const error: unknown = await refuseExisting(name === '' ? '' : scratch(name)).catch((found: unknown) => found);
    expect(error).toBeInstanceOf(EnvironmentError);
    expect(error).toMatchObject({message: expect.stringMatching(message) as string});
  });

  it('that is a link to nothing is taken', async () => {
    await symlink(scratch('nowhere'), scratch('link'));
    for (const name of ['link', 'link/'])
      await expect(refuseExisting(scratch(name))).rejects.toThrow(`${name} already exists`);
    await expect(refuseExisting('/')).rejects.toThrow('/ already exists');
  });

  it('of the longest name allowed is made, by way of hidden siblings of longer ones', async () => {
    const [folder, file] = ['f', 'p'].map((letter) => scratch(letter.repeat(233)));
    await makeAtomic(folder!, (part) => writeModelFolder(part, CONTENT));
    expect(await readdir(folder!)).toContain('config.json');
    await refuseExisting(file!);
    await writeFileAtomic(`${file}.partial`, 'x');
  });

  it.skipIf(!existsSync('/proc'))('where no file can be made is named', async () => {
    await expect(writeFileAtomic('/proc/x.txt', 'x')).rejects.toThrow('/proc/x.txt: no file can be made here.');
  });
});

describe('a folder that is made and looked at before it has its name', () => {
  it('is not there while it is made, and never if that fails', async () => {
    const path = scratch('proved');
    const made = makeAtomic(path, async (part) => {
      await mkdir(part);
      await writeFile(`${part}/x`, 'x');
      await expect(stat(path)).rejects.toThrow('ENOENT');
      return 'proof';
    });
    expect(await made).toBe('proof');
    expect(await readdir(path)).toEqual(['x']);
    const failing = makeAtomic(scratch('failed'), async (part) => {
      await mkdir(part);
      throw new ModelError('not proved');
    });
    await expect(failing).rejects.toThrow('not proved');
    expect((await readdir(scratch(''))).filter((name) => name.includes('failed'))).toEqual([]);
  });

  it('takes the place of what a killed process left of it, and of no other', async () => {
    const gone = spawnSync(process.execPath, ['-e', '']).pid;
    const names = [`.swept.part-${gone}`, `.swept.part-${process.ppid}`, `.other.part-${gone}`, '.swept.part-x'];
    for (const name of names) await mkdir(scratch(name));
    await writeFolderAtomic(scratch('swept'), () => Promise.resolve());
    const left = (await readdir(scratch(''))).filter((name) => name.includes('.part-'));
    expect(left.sort()).toEqual(names.slice(1).sort());
  });

  it('that failed leaves no folder that was made for it', async () => {
    const failing = (path: string): Promise<void> => writeFolderAtomic(path, () => Promise.reject(new Error('failed')));
    await mkdir(scratch('there'));
    await expect(failing(scratch('there/new/newer/model'))).rejects.toThrow('failed');
    expect(await readdir(scratch('there'))).toEqual([]);
  });

  it('says what went wrong in words of its name, and of another file what is wrong there', async () => {
    const path = scratch('told');
    const failing = (error: (part: string) => Error): Promise<void> =>
      makeAtomic(path, (part) => Promise.reject(error(part)));
    const system = (code: string, at?: string): Error => Object.assign(new Error(code), {code, path: at});
    await expect(failing((part) => new ModelError(`${part}/config.json: bad`))).rejects.toThrow(
      `${path}/config.json: bad`,
    );
    await expect(failing((part) => system('EACCES', `${part}/x`))).rejects.toThrow(
      `${path}: not allowed to write here.`,
    );
    await expect(failing(() => system('ENOSPC'))).rejects.toThrow(`${path}: no space left on the disk.`);
    await expect(failing(() => system('EACCES', '/elsewhere/text'))).rejects.toMatchObject({path: '/elsewhere/text'});
  });
});
