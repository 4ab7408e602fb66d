import {readFile, writeFile} from 'node:fs/promises';
import {describe, expect, it} from 'vitest';
import {currentVersions, PROVENANCE_FILE, readProvenance, recordProof} from '../../src/downcycle/provenance.js';
import {scratch as fromScratch} from '../../src/downcycle/upcycle.js';
import {ModelError} from '../../src/util/errors.js';
import {useScratch} from '../format/scratch.js';
import {tinyArchitecture} from '../model/tiny-llama.js';

const scratch = useScratch();
const make = () => fromScratch({architecture: tinyArchitecture, out: scratch('model'), seed: 1});

describe('downcycle.json', () => {
  it('keeps the result of a proof beside what it said before', async () => {
    await make();
    const before = await readProvenance(scratch('model'));
    const proof = {maxLogitDifference: 1e-6, limit: 5e-5, passed: true, tokens: 10};
    await recordProof(scratch('model'), proof);
    expect(await readProvenance(scratch('model'))).toEqual({...before, equivalence: proof});
  });

  it('names the versions at work', async () => {
    const {version} = JSON.parse(await readFile('package.json', 'utf8')) as {version: string};
    expect(currentVersions()).toEqual({downcycle: version, node: process.version});
  });

  it.each([
    ['{"kind": ', ':1:10: '],
    ['{"kind": "moulded"}', 'kind'],
    ['{"kind": "scratch", "format": 2}', 'format'],
  ])('is refused when it is %s', async (text, message) => {
    await make();
    await writeFile(scratch(`model/${PROVENANCE_FILE}`), text);
    await expect(readProvenance(scratch('model'))).rejects.toThrow(ModelError);
    await expect(readProvenance(scratch('model'))).rejects.toThrow(message);
  });

  it('is missed where there is none', async () => {
    await expect(readProvenance(scratch())).rejects.toThrow('downcycle.json: there is no such file');
  });
});
