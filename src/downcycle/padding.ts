// A dense model as if neurons of zeros stood behind those of every FFN: gate and up rows and down columns of zeros, so that
// it computes the same. Nothing on disk changes. Shapes: F neurons, of which the last are zeros; D model width.
import {DTYPE_BYTES, isFloatDtype, widen} from '../format/dtype.js';
import type {TensorStore} from '../format/tensor-store.js';
import type {FfnLayout} from '../model/architecture.js';
import {diskTensors} from '../model/names.js';
import {parameterSpecs} from '../model/parameters.js';
import type {DenseSource} from './model-source.js';

/** Which axis of an FFN's matrix on disk the neurons are: rows of gate and up [F, D], columns of down [D, F]. */
type NeuronAxis = 'rows' | 'columns';

/** A dense model with `added` neurons of zeros behind those of every FFN; closing either closes both. */
export function padDense(source: DenseSource, added: number): DenseSource {
  if (added === 0) return source;
  const numNeurons = source.numNeurons + added;
  const ffn = source.architecture.ffn.map((): FfnLayout => ({kind: 'dense', width: numNeurons}));
  const tensors = padTensors(source.folder.tensors, neuronAxes(source), added);
  return {
    ...source,
    numNeurons,
    architecture: {...source.architecture, ffn},
    folder: {...source.folder, tensors},
  };
}

function neuronAxes({architecture, names}: DenseSource): ReadonlyMap<string, NeuronAxis> {
  const axes = new Map<string, NeuronAxis>();
  for (const {ffn} of parameterSpecs(architecture).layers) {
    if (ffn.kind !== 'dense') continue;
    for (const which of ['gate', 'up', 'down'] as const) {
      for (const {name} of diskTensors(ffn[which], names)) axes.set(name, which === 'down' ? 'columns' : 'rows');
    }
  }
  return axes;
}

function padTensors(store: TensorStore, axes: ReadonlyMap<string, NeuronAxis>, added: number): TensorStore {
  const info: TensorStore['info'] = (name) => {
    const found = store.info(name);
    const [rows = 0, columns = 0] = found.shape;
    const axis = axes.get(name);
    if (!axis) return found;
    return {...found, shape: axis === 'rows' ? [rows + added, columns] : [rows, columns + added]};
  };
  const readBytes: TensorStore['readBytes'] = async (name) => {
    const bytes = await store.readBytes(name);
    const axis = axes.get(name);
    if (!axis) return bytes;
    const {dtype, shape} = store.info(name);
    const [rows = 0, columns = 0] = shape;
    const row = columns * DTYPE_BYTES[dtype];
    return axis === 'columns'
      ? padEnds(bytes, row, added * DTYPE_BYTES[dtype])
      : padEnds(bytes, rows * row, added * row);
  };
  const read: TensorStore['read'] = async (name) => {
    const {dtype} = info(name);
    return axes.has(name) && isFloatDtype(dtype) ? widen(await readBytes(name), dtype) : store.read(name);
  };
  const readRows: TensorStore['readRows'] = async (name, begin, end) => {
    const [rows = 0, columns = 0] = store.info(name).shape;
    const axis = axes.get(name);
    if (!axis) return store.readRows(name, begin, end);
    const found = await store.readRows(name, Math.min(begin, rows), Math.min(end, rows));
    if (axis === 'columns') return padEnds(found, columns, added);
    const padded = new Float32Array((end - begin) * columns);
    padded.set(found);
    return padded;
  };
  return {...store, info, read, readRows, readBytes};
}

/** Appends `added` zeros to every run of `length` values. */
function padEnds<T extends Uint8Array | Float32Array>(values: T, length: number, added: number): T {
  const runs = values.length / length;
  const padded = new (values.constructor as new (size: number) => T)(values.length + runs * added);
  for (let run = 0; run < runs; run++) {
    padded.set(values.subarray(run * length, (run + 1) * length), run * (length + added));
  }
  return padded;
}
