import {mkdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {
  countKept,
  type KeptNeurons,
  keptHash,
  readKeptNeurons,
  renderKeptNeurons,
} from '../../../src/downcycle/dive/kept-neurons.js';
import {diveSchema} from '../../../src/downcycle/dive-options.js';
import {NEURONS_FILE, renderNeuronMaps} from '../../../src/downcycle/neuron-maps.js';
import {profileSchema} from '../../../src/downcycle/profile-options.js';
import {
  currentVersions,
  PROVENANCE_FILE,
  type Provenance,
  renderProvenance,
} from '../../../src/downcycle/provenance.js';
import {ModelError} from '../../../src/util/errors.js';
import {useScratch} from '../../format/scratch.js';

const scratch = useScratch();
const LAYERS: readonly KeptNeurons[] = [
  [Int32Array.of(0, 2, 5), Int32Array.of(2, 3, 5), Int32Array.of(2, 4, 6)],
  [Int32Array.of(1, 2, 3), Int32Array.of(1, 2, 3), Int32Array.of(1, 2, 3)],
];

async function folderOf(record: Provenance, neurons: Uint8Array): Promise<string> {
  const path = scratch('moe');
  await mkdir(path);
  await writeFile(join(path, PROVENANCE_FILE), renderProvenance(record));
  await writeFile(join(path, NEURONS_FILE), neurons);
  return path;
}

const record = (neuronMapHash: string): Provenance => ({
  kind: 'prune',
  format: 1,
  versions: currentVersions(),
  seed: 1,
  equivalence: null,
  source: {path: 'dense', revision: null, fingerprint: 'f'},
  method: diveSchema.parse({method: 'dive', experts: 3, topK: 1}),
  calibration: {tasks: ['a', 'b', 'c'], tokenHash: 'h', options: profileSchema.parse({})},
  affinity: {perplexity: [], correlation: [], clusters: [[0], [1], [2]]},
  numNeurons: 8,
  expertWidth: 3,
  neuronMapHash,
});

describe('neurons.st of pruned copies', () => {
  it('is read as it was written', async () => {
    const path = await folderOf(record(keptHash(LAYERS)), renderKeptNeurons(LAYERS));
    expect(await readKeptNeurons(path)).toEqual(LAYERS);
  });

  it('is refused if it is not the one of the record', async () => {
    const path = await folderOf(record(keptHash(LAYERS.toReversed())), renderKeptNeurons(LAYERS));
    await expect(readKeptNeurons(path)).rejects.toThrow(ModelError);
    await expect(readKeptNeurons(path)).rejects.toThrow(`${path}/neurons.st: this is not the map that`);
  });

  it('is refused if it is the map of a split', async () => {
    const maps = LAYERS.map(() => new Int32Array(8));
    const path = await folderOf(record(keptHash(LAYERS)), renderNeuronMaps({maps, padding: 0}));
    await expect(readKeptNeurons(path)).rejects.toThrow('neurons.st: there is no tensor "layers.0.neurons_of_expert"');
  });

  it('is refused if its lists are none', async () => {
    const header = JSON.stringify({'layers.0.neurons_of_expert': {dtype: 'I32', shape: [8], data_offsets: [0, 32]}});
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(header.length));
    const path = await folderOf(record('x'), Buffer.concat([size, Buffer.from(header), Buffer.alloc(32)]));
    await expect(readKeptNeurons(path)).rejects.toThrow(
      'tensor "layers.0.neurons_of_expert" is I32 [8], lists of neurons are I32 [E, W].',
    );
  });

  it('is not looked for where a model was made in another way', async () => {
    const {seed, versions} = record('x');
    const path = await folderOf({kind: 'scratch', format: 1, seed, versions, equivalence: null}, Buffer.alloc(0));
    await expect(readKeptNeurons(path)).rejects.toThrow('was not made of pruned copies of a dense model');
  });
});

describe('keptHash', () => {
  it('tells apart what is in another expert, layer or shape', () => {
    const [first, second] = LAYERS as [KeptNeurons, KeptNeurons];
    const flat = [Int32Array.from(first.flatMap((ids) => [...ids]))];
    const some = [
      [first, second],
      [second, first],
      [first.toReversed(), second],
      [flat, second],
    ];
    expect(new Set(some.map((layers) => keptHash(layers))).size).toBe(4);
    expect(keptHash(LAYERS)).toMatch(/^[0-9a-f]{64}$/);
  });
});

describe('countKept', () => {
  it('counts neurons by how many experts keep them', () => {
    expect(LAYERS.map((experts) => countKept(experts, 8))).toEqual([
      [2, 4, 1, 1],
      [5, 0, 0, 3],
    ]);
  });
});
