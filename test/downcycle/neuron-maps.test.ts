import {existsSync} from 'node:fs';
import {rm, writeFile} from 'node:fs/promises';
import {describe, expect, it} from 'vitest';
import {convert, planOf} from '../../src/downcycle/convert.js';
import {countNeurons, NEURONS_FILE, readNeuronMaps, renderNeuronMaps} from '../../src/downcycle/neuron-maps.js';
import {LEFT_OUT, neuronMaps, SHARED} from '../../src/downcycle/plan.js';
import {upcycle} from '../../src/downcycle/upcycle.js';
import {upcycleSchema} from '../../src/downcycle/upcycle-options.js';
import {openTensors} from '../../src/format/tensor-store.js';
import {ModelError} from '../../src/util/errors.js';
import {useScratch} from '../format/scratch.js';
import {readIds, TINY_LLAMA} from '../model/tiny-llama.js';
import {splitOptions} from './split-options.js';
import {tinyProfile} from './tiny-profile.js';

const scratch = useScratch();
const method = splitOptions({method: 'random', experts: 4, shared: 2, topK: 2});
const options = {model: TINY_LLAMA, method, seed: 7};
const make = () => convert({...options, out: scratch('moe')});

/** What reading the maps of a folder is refused with. */
async function refusal(folder = scratch('moe')): Promise<string> {
  const error: unknown = await readNeuronMaps(folder).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(ModelError);
  return (error as Error).message;
}

describe('the neuron maps of a split', () => {
  it('are those of its plan', async () => {
    await make();
    const maps = neuronMaps(await planOf(options));
    expect(await readNeuronMaps(scratch('moe'))).toEqual(maps);
    expect(await readIds(scratch(`moe/${NEURONS_FILE}`), 'layers.1.expert_of_neuron')).toEqual(Array.from(maps[1]!));
  });

  it('are no weights of the model', async () => {
    await make();
    const tensors = await openTensors(scratch('moe'));
    expect(tensors.names.filter((name) => name.includes('neuron'))).toEqual([]);
    await tensors.close();
  });

  it('say which neurons pruning left out', async () => {
    const pruning = splitOptions({method: 'all-shared', experts: 4, shared: 2, topK: 1});
    await convert({...options, method: pruning, profile: await tinyProfile(), out: scratch('moe')});
    for (const map of await readNeuronMaps(scratch('moe'))) {
      expect([...new Set(map)].sort()).toEqual([SHARED, LEFT_OUT]);
      expect(countNeurons(map)).toEqual({shared: 12, experts: [], leftOut: 12});
    }
  });

  it('are counted expert by expert', () => {
    expect(countNeurons(Int32Array.of(1, SHARED, 0, 1, LEFT_OUT, 0, 2))).toEqual({
      shared: 1,
      experts: [2, 2, 1],
      leftOut: 1,
    });
  });
});

describe('neuron maps are refused', () => {
  it('where neurons were copied', async () => {
    const copying = upcycleSchema.parse({method: 'sparse-upcycle', experts: 2, topK: 1});
    await upcycle({...options, method: copying, out: scratch('moe')});
    expect(existsSync(scratch(`moe/${NEURONS_FILE}`))).toBe(false);
    expect(await refusal()).toBe(`${scratch('moe')} was not cut out of another model: there is no neuron map of it.`);
  });

  it('where an older version wrote none', async () => {
    await make();
    await rm(scratch(`moe/${NEURONS_FILE}`));
    expect(await refusal()).toBe(`${scratch(`moe/${NEURONS_FILE}`)}: there is no such file.`);
  });

  it('if two neurons changed places', async () => {
    await make();
    const maps = neuronMaps(await planOf(options));
    const [map] = maps as [Int32Array];
    const [one, other] = [map.indexOf(0), map.indexOf(SHARED)];
    [map[one], map[other]] = [SHARED, 0];
    await writeFile(scratch(`moe/${NEURONS_FILE}`), renderNeuronMaps({maps, padding: 0}));
    expect(await refusal()).toMatch(
      /neurons\.st: this is not the map that downcycle\.json names: its SHA-256 is [\da-f]{12}\.\.\., [\da-f]{12}\.\.\. is recorded\.$/,
    );
  });

  it.each([
    [
      'a layer is missing',
      (maps: Int32Array[]) => renderNeuronMaps({maps: maps.slice(1), padding: 0}),
      'there is no tensor "layers.1.',
    ],
    [
      'it is cut off',
      (maps: Int32Array[]) => renderNeuronMaps({maps, padding: 0}).subarray(0, -4),
      'it may be truncated',
    ],
    [
      'it is of another type',
      (maps: Int32Array[]) =>
        Buffer.from(renderNeuronMaps({maps, padding: 0}))
          .toString('latin1')
          .replaceAll('"I32"', '"F32"'),
      'is F32 [24], a neuron map is I32 [F].',
    ],
  ])('if %s', async (_, damage, message) => {
    await make();
    const data = damage(neuronMaps(await planOf(options)));
    await writeFile(scratch(`moe/${NEURONS_FILE}`), data, 'latin1');
    expect(await refusal()).toContain(message);
  });
});
