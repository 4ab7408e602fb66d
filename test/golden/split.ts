// Cuts a dense model of host values into shared neurons and experts by hand, neuron by neuron.
import type {Architecture, FfnLayout, Routing} from '../../src/model/architecture.js';
import {floats, type Host} from '../support/host.js';
import type {HostModel, Weights} from './run-model.js';

/** Which neurons every token uses, and which belong to each expert; the same in every layer. */
export interface Partition {
  readonly shared: readonly number[];
  readonly experts: readonly (readonly number[])[];
  readonly topK: number;
}

/** The model with every FFN cut; experts with fewer neurons than the largest are filled up with zeros. */
export function splitModel({architecture, weights}: HostModel, partition: Partition, routing: Routing): HostModel {
  const layout: FfnLayout = {
    kind: 'moe',
    experts: partition.experts.length,
    topK: partition.topK,
    expertWidth: widthOf(partition),
    sharedWidth: partition.shared.length,
    selectionBias: false,
    router: 'linear',
  };
  const cut: Architecture = {...architecture, ffn: architecture.ffn.map(() => layout), routing};
  const layers = architecture.ffn.map((_, l) => splitLayer(weights, `layers.${l}.ffn`, partition));
  return {architecture: cut, weights: Object.assign({}, weights, ...layers) as Weights};
}

function splitLayer(weights: Weights, path: string, partition: Partition): Weights {
  const {shared, experts} = partition;
  const [gate, up, down] = ['gate', 'up', 'down'].map((name) => weights[`${path}.${name}`]!) as [Host, Host, Host];
  const width = widthOf(partition);
  return {
    [`${path}.router`]: columns(experts.map((ids) => meanColumn(gate, ids))),
    [`${path}.shared.gate`]: columns(shared.map((id) => column(gate, id))),
    [`${path}.shared.up`]: columns(shared.map((id) => column(up, id))),
    [`${path}.shared.down`]: rows(shared.map((id) => row(down, id))),
    [`${path}.experts.gate`]: stack(experts.map((ids) => columns(filled(ids, width, (id) => column(gate, id))))),
    [`${path}.experts.up`]: stack(experts.map((ids) => columns(filled(ids, width, (id) => column(up, id))))),
    [`${path}.experts.down`]: stack(experts.map((ids) => rows(filled(ids, width, (id) => row(down, id))))),
  };
}

function widthOf({experts}: Partition): number {
  return Math.max(...experts.map(({length}) => length));
}

function filled(ids: readonly number[], width: number, vector: (id: number) => number[]): number[][] {
  const real = ids.map(vector);
  return [...real, ...Array.from({length: width - ids.length}, () => real[0]!.map(() => 0))];
}

function column({shape: [D = 0, F = 0], values}: Host, f: number): number[] {
  return Array.from({length: D}, (_, d) => values[d * F + f]!);
}

function row({shape: [, D = 0], values}: Host, f: number): number[] {
  return Array.from(values.subarray(f * D, (f + 1) * D));
}

function meanColumn(matrix: Host, ids: readonly number[]): number[] {
  const picked = ids.map((id) => column(matrix, id));
  return picked[0]!.map((_, d) => picked.reduce((sum, one) => sum + one[d]!, 0) / ids.length);
}

function rows(vectors: readonly (readonly number[])[]): Host {
  return floats([vectors.length, vectors[0]!.length], vectors.flat());
}

function columns(vectors: readonly (readonly number[])[]): Host {
  const length = vectors[0]!.length;
  return rows(Array.from({length}, (_, i) => vectors.map((vector) => vector[i]!)));
}

function stack(matrices: readonly Host[]): Host {
  return floats(
    [matrices.length, ...matrices[0]!.shape],
    matrices.flatMap(({values}) => Array.from(values)),
  );
}
