// neurons.st: which expert of a split each neuron of the dense FFN went to. Shapes: F neurons of the dense FFN. Where experts
// were cut once more, a layer's F neurons are those of all its experts, one expert after the other.
import {join} from 'node:path';
import {ORIGIN_FILES} from '../format/model-folder.js';
import {openSafetensors, type SafetensorsFile} from '../format/safetensors.js';
import {renderHeader, type TensorSpec} from '../format/safetensors-header.js';
import {ModelError} from '../util/errors.js';
import {LEFT_OUT, mapHash, SHARED} from './plan.js';
import {PROVENANCE_FILE, readProvenance} from './provenance.js';

/** The file in the folder of a split that holds its neuron maps. */
export const NEURONS_FILE = ORIGIN_FILES.neurons;

/** How many neurons of a dense FFN went where. */
export interface NeuronCount {
  readonly shared: number;
  /** Of each routed expert. */
  readonly experts: readonly number[];
  readonly leftOut: number;
}

/** What {@link NEURONS_FILE} holds. */
export interface NeuronMaps {
  /** Expert of every neuron, for each layer int32 [F]. */
  readonly maps: readonly Int32Array[];
  /** How many neurons of zeros were appended to each FFN; they are the last. */
  readonly padding: number;
}

/**
 * The bytes of {@link NEURONS_FILE}: for each layer `layers.{l}.expert_of_neuron`, I32 [F], and in the metadata how many
 * neurons are `padding`, if any.
 */
export function renderNeuronMaps({maps, padding}: NeuronMaps): Uint8Array {
  const specs = maps.map(({length}, layer): TensorSpec => ({name: nameOf(layer), dtype: 'I32', shape: [length]}));
  const {bytes} = renderHeader(specs, {format: 'pt', ...(padding > 0 && {padding: String(padding)})});
  const data = maps.map(({buffer, byteOffset, byteLength}) => new Uint8Array(buffer, byteOffset, byteLength));
  return Buffer.concat([bytes, ...data]);
}

/**
 * Expert of every neuron of each layer's dense FFN, [F]: 0..E-1, -1 for a shared one, -2 for one that was left out. Where
 * experts were cut once more, the place of every neuron in its own: 0..e-1, or -1; of a layer without experts none, [0].
 *
 * @param folder that of a split, or of a checkpoint that was trained from one.
 * @throws ModelError if the folder holds no split, its map is missing or damaged, or is not the one of its record.
 */
export async function readNeuronMaps(folder: string): Promise<readonly Int32Array[]> {
  const provenance = await readProvenance(folder);
  if (provenance.kind !== 'split' && provenance.kind !== 'inner-split') {
    throw new ModelError(`${folder} was not cut out of another model: there is no neuron map of it.`);
  }
  const file = await openSafetensors(join(folder, NEURONS_FILE));
  try {
    const maps: Int32Array[] = [];
    for (const layer of provenance.layers.keys()) maps.push(await readMap(file, layer));
    requireRecorded(mapHash(maps), provenance.neuronMapHash, file.path);
    return maps;
  } finally {
    await file.close();
  }
}

/** Counts the neurons of a map, [F]. */
export function countNeurons(expertOf_F: Int32Array): NeuronCount {
  const counts = new Map<number, number>();
  for (const expert of expertOf_F) counts.set(expert, (counts.get(expert) ?? 0) + 1);
  const of = (place: number): number => counts.get(place) ?? 0;
  const experts = [...counts.keys()].filter((expert) => expert >= 0).sort((a, b) => a - b);
  return {shared: of(SHARED), experts: experts.map(of), leftOut: of(LEFT_OUT)};
}

async function readMap(file: SafetensorsFile, layer: number): Promise<Int32Array> {
  const {name, dtype, shape} = file.info(nameOf(layer));
  if (dtype !== 'I32' || shape.length !== 1) {
    throw new ModelError(`${file.path}: tensor "${name}" is ${dtype} [${shape.join(', ')}], a neuron map is I32 [F].`);
  }
  return new Int32Array((await file.readBytes(name)).buffer);
}

/** @throws ModelError if the neurons in a file are not those that its record names. */
export function requireRecorded(found: string, recorded: string, path: string): void {
  if (found === recorded) return;
  throw new ModelError(
    `${path}: this is not the map that ${PROVENANCE_FILE} names: its SHA-256 is ${short(found)}..., ${short(recorded)}... is recorded.`,
    {hint: 'Take both files from the folder that was converted, or convert again.'},
  );
}

function nameOf(layer: number): string {
  return `layers.${layer}.expert_of_neuron`;
}

function short(hash: string): string {
  return hash.slice(0, 12);
}
