// Reads the golden numbers and the one layer of them that is kept in test/fixtures.
import {existsSync, readFileSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import {type LayerProfile, unwatched} from '../../src/downcycle/statistics.js';

export interface GoldenCut {
  r: number;
  alpha: number;
  shared_neurons: number;
  shared_experts: number;
  shared_ids: number[];
  balanced_k_means: {
    initial_centroid_ids?: number[];
    cost_per_round: number[];
    cost_greedy_in_id_order: number;
    expert_ids: number[][];
  };
}

export interface Golden {
  allocations: Record<string, {r: number[]; alpha: number[]}>;
  shared: Record<string, {expert_count: number; expert_size: number; layers: GoldenCut[]}>;
  partitions: Record<string, {shared_ids: number[]; expert_ids: number[][]}>;
}

export interface FixtureLayer {
  numNeurons: number;
  width: number;
  numTasks: number;
  samplesPerTask: number;
  cvOverTasks: number[];
  cvOverSamples: number[];
  allocations: Record<string, {r: number; alpha: number}>;
  grid: GoldenCut & {expertCount: number; expertSize: number};
  partition: {experts: number[][]};
}

const root = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));

export const GOLDENS = root('../shared/goldens');
export const hasGoldens = existsSync(GOLDENS);

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}

/** F32 tensors of a safetensors file, by name. */
export function readTensors(path: string): Record<string, Float32Array> {
  const file = readFileSync(path);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, start)) as Record<
    string,
    {dtype: string; data_offsets: [number, number]}
  >;
  const floats = Object.entries(header).filter(([, {dtype}]) => dtype === 'F32');
  return Object.fromEntries(
    floats.map(([name, {data_offsets: at}]) => {
      return [name, new Float32Array(Uint8Array.from(file.subarray(start + at[0], start + at[1])).buffer)];
    }),
  );
}

export const fixture = readJson<FixtureLayer>(root('test/fixtures/downcycle/tiny-llama-layer-1.json'));
export const fixtureTensors = readTensors(root('test/fixtures/downcycle/tiny-llama-layer-1.safetensors'));

/** A profile whose samples are grouped by task, as in the goldens. */
export function groupedProfile(gateMean_JF: Float32Array, numNeurons: number, samplesPerTask: number): LayerProfile {
  const taskOfSample_J = Int32Array.from({length: gateMean_JF.length / numNeurons}, (_, j) =>
    Math.floor(j / samplesPerTask),
  );
  return {...unwatched(numNeurons), gateMean_JF, taskOfSample_J};
}

export const fixtureProfile = groupedProfile(fixtureTensors.gate_mean!, fixture.numNeurons, fixture.samplesPerTask);

/** Layer `layer` of a tensor that stacks layers first. */
export function layerOf(stacked: Float32Array, layer: number, numLayers: number): Float32Array {
  const size = stacked.length / numLayers;
  return stacked.slice(layer * size, (layer + 1) * size);
}

/** Moves neuron `i` of a profile to `to_F[i]`. */
export function permuteProfile(profile: LayerProfile, to_F: ArrayLike<number>): LayerProfile {
  const {gateMean_JF, numNeurons} = profile;
  const moved = new Float32Array(gateMean_JF.length);
  gateMean_JF.forEach((value, at) => {
    moved[at - (at % numNeurons) + to_F[at % numNeurons]!] = value;
  });
  return {...profile, gateMean_JF: moved};
}

/** Ids after `to_F`, ascending. */
export function permuteIds(ids: Int32Array, to_F: ArrayLike<number>): Int32Array {
  return ids.map((id) => to_F[id]!).sort();
}

/** An integer tensor of a safetensors file, whatever its width. */
export function readIds(path: string, name: string): Int32Array {
  const file = readFileSync(path);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, start)) as Record<
    string,
    {dtype: string; data_offsets: [number, number]}
  >;
  const found = header[name];
  if (!found) throw new Error(`${path} has no ${name}`);
  const bytes = Uint8Array.from(file.subarray(start + found.data_offsets[0], start + found.data_offsets[1]));
  return found.dtype === 'U8' ? Int32Array.from(bytes) : new Int32Array(bytes.buffer);
}
