// neurons.st of pruned copies: which neurons of the dense FFN each expert kept. Shapes: E experts of W neurons each.
import {createHash} from 'node:crypto';
import {join} from 'node:path';
import {openSafetensors, type SafetensorsFile} from '../../format/safetensors.js';
import {renderHeader, type TensorSpec} from '../../format/safetensors-header.js';
import {ModelError} from '../../util/errors.js';
import {NEURONS_FILE, requireRecorded} from '../neuron-maps.js';
import {readProvenance} from '../provenance.js';

/** The neurons of each expert of a layer, ids ascending, all lists equally long; they may overlap. */
export type KeptNeurons = readonly Int32Array[];

/** The bytes of {@link NEURONS_FILE}: for each layer `layers.{l}.neurons_of_expert`, I32 [E, W]. */
export function renderKeptNeurons(layers: readonly KeptNeurons[]): Uint8Array {
  const specs = layers.map(
    (experts, layer): TensorSpec => ({
      name: nameOf(layer),
      dtype: 'I32',
      shape: [experts.length, experts[0]?.length ?? 0],
    }),
  );
  const data = layers.flat().map(({buffer, byteOffset, byteLength}) => new Uint8Array(buffer, byteOffset, byteLength));
  return Buffer.concat([renderHeader(specs, {format: 'pt'}).bytes, ...data]);
}

/** SHA-256 of the neurons of every layer, in hex: for each E, W and the lists as little-endian int32. */
export function keptHash(layers: readonly KeptNeurons[]): string {
  const hash = createHash('sha256');
  for (const experts of layers) {
    const words = [experts.length, experts[0]?.length ?? 0, ...experts.flatMap((ids) => [...ids])];
    const bytes = Buffer.alloc(words.length * 4);
    words.forEach((word, i) => void bytes.writeInt32LE(word, i * 4));
    hash.update(bytes);
  }
  return hash.digest('hex');
}

/**
 * The neurons of the dense FFN that each expert of each layer kept.
 *
 * @param folder that of pruned copies, or of a checkpoint that was trained from them.
 * @throws ModelError if the folder holds none, its file is missing or damaged, or is not the one of its record.
 */
export async function readKeptNeurons(folder: string): Promise<readonly KeptNeurons[]> {
  const provenance = await readProvenance(folder);
  if (provenance.kind !== 'prune') {
    throw new ModelError(
      `${folder} was not made of pruned copies of a dense model: there are no lists of neurons of it.`,
    );
  }
  const file = await openSafetensors(join(folder, NEURONS_FILE));
  try {
    const layers: KeptNeurons[] = [];
    for (let layer = 0; layer < file.tensors.size; layer++) layers.push(await readLists(file, nameOf(layer)));
    requireRecorded(keptHash(layers), provenance.neuronMapHash, file.path);
    return layers;
  } finally {
    await file.close();
  }
}

/** How many neurons of a layer 0, 1, ... E experts keep, [E + 1]: the first were left out by all. */
export function countKept(experts: KeptNeurons, numNeurons: number): number[] {
  const keepers_F = new Int32Array(numNeurons);
  for (const ids of experts) for (const id of ids) keepers_F[id] = (keepers_F[id] as number) + 1;
  const counts = new Array<number>(experts.length + 1).fill(0);
  for (const keepers of keepers_F) counts[keepers] = (counts[keepers] as number) + 1;
  return counts;
}

async function readLists(file: SafetensorsFile, name: string): Promise<KeptNeurons> {
  const {dtype, shape} = file.info(name);
  const [numExperts = 0, width = 0] = shape;
  if (dtype !== 'I32' || shape.length !== 2) {
    throw new ModelError(
      `${file.path}: tensor "${name}" is ${dtype} [${shape.join(', ')}], lists of neurons are I32 [E, W].`,
    );
  }
  const ids = new Int32Array((await file.readBytes(name)).buffer);
  return Array.from({length: numExperts}, (_, e) => ids.subarray(e * width, (e + 1) * width));
}

function nameOf(layer: number): string {
  return `layers.${layer}.neurons_of_expert`;
}
