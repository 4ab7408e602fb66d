import {once} from 'node:events';
import {copyFile, mkdir, rm, symlink, writeFile} from 'node:fs/promises';
import {createServer} from 'node:net';
import {join} from 'node:path';
import {describe, expect, it, onTestFinished} from 'vitest';
import {openModelFolder, readModelConfig} from '../../src/format/model-folder.js';
import {openTokenizerFiles} from '../../src/format/tokenizer-files.js';
import {ModelError} from '../../src/util/errors.js';
import {TINY_LLAMA} from '../model/tiny-llama.js';
import {useScratch} from './scratch.js';

const scratch = useScratch();
const FILES = ['config.json', 'model.safetensors'];

/** A model of files that are elsewhere, and links to them. */
async function linked(folder: string, to: string): Promise<void> {
  await mkdir(scratch(folder), {recursive: true});
  await mkdir(join(scratch(folder), to), {recursive: true});
  for (const name of FILES) {
    await copyFile(join(TINY_LLAMA, name), join(scratch(folder), to, name));
    await symlink(join(to, name), join(scratch(folder), name));
  }
}

describe('a model folder with links', () => {
  it('is read where they stay inside, and by way of a link to the folder', async () => {
    await linked('model', 'files');
    await symlink(scratch('model'), scratch('elsewhere'));
    for (const name of ['model', 'elsewhere']) {
      const folder = await openModelFolder(scratch(name));
      expect(folder.tensors.has('model.norm.weight')).toBe(true);
      await folder.close();
    }
  });

  it('is read as a snapshot of a cache, whose links lead to the blobs beside it', async () => {
    const commit = '0'.repeat(40);
    await linked(`models--a--b/snapshots/${commit}`, '../../blobs');
    const folder = await openModelFolder(scratch(`models--a--b/snapshots/${commit}`));
    await folder.close();
    await rm(scratch('models--a--b'), {recursive: true});
    await linked(`models--a--b/snapshots/${commit}`, '../../../elsewhere');
    await expect(openModelFolder(scratch(`models--a--b/snapshots/${commit}`))).rejects.toThrow(
      'leads out of the folder',
    );
  });

  it.each(FILES)('is refused where %s leads out of it', async (name) => {
    await linked('model', 'files');
    await rm(join(scratch('model'), name));
    await symlink(join(TINY_LLAMA, name), join(scratch('model'), name));
    const error: unknown = await openModelFolder(scratch('model')).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ModelError);
    expect(error).toMatchObject({
      message: expect.stringContaining(
        `${join(scratch('model'), name)} is a link that leads out of the folder, to /`,
      ) as string,
      hint: 'Copy the file into the folder, or give the folder that it lies in.',
    });
  });

  it('is read whatever lies beside its files', async () => {
    await linked('model', 'files');
    await symlink('/', join(scratch('model'), 'notes.txt'));
    await symlink('gone', join(scratch('model'), 'results.json'));
    const folder = await openModelFolder(scratch('model'));
    await folder.close();
    expect((await openTokenizerFiles(scratch('model'))).names).toEqual([]);
  });

  it.each([
    ['a folder', 'is a folder; a file is needed.'],
    ['a socket', 'is no regular file; a file is needed.'],
    ['a circle', 'is a link that leads in a circle.'],
    ['nothing', 'is a link that leads to something that is not there.'],
  ])('is refused where %s stands in place of a file', async (what, message) => {
    await linked('model', 'files');
    const path = join(scratch('model'), 'config.json');
    await rm(path);
    if (what === 'a folder') await mkdir(path);
    else if (what === 'a socket') {
      const server = createServer().listen(path);
      onTestFinished(() => void server.close());
      await once(server, 'listening');
    } else await symlink(what === 'a circle' ? 'config.json' : 'gone', path);
    for (const read of [openModelFolder, readModelConfig]) {
      const error: unknown = await read(scratch('model')).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(ModelError);
      expect(error).toMatchObject({message: `${path} ${message}`});
    }
  });

  it('is refused by whoever reads its tokenizer, which is copied into what is made of it', async () => {
    await linked('model', 'files');
    await writeFile(scratch('secret'), 'x');
    await symlink(scratch('secret'), join(scratch('model'), 'tokenizer.json'));
    await expect(openTokenizerFiles(scratch('model'))).rejects.toThrow('leads out of the folder, to /');
    await copyFile('test/fixtures/gguf/packed.gguf', join(scratch('model'), 'model.gguf'));
    await expect(openTokenizerFiles(join(scratch('model'), 'model.gguf'))).rejects.toThrow('leads out of the folder');
  });

  it('is a snapshot below a folder of a cache only, and so are folders in one', async () => {
    await linked('snapshots/a', '../../blobs');
    await expect(openModelFolder(scratch('snapshots/a'))).rejects.toThrow('leads out of the folder');
    await linked('models--a--b/snapshots/c/sub', '../../../blobs');
    const folder = await openModelFolder(scratch('models--a--b/snapshots/c/sub'));
    await folder.close();
  });
});
