// A mixture whose experts stand together in tensors, as if each had tensors of its own. Nothing on disk changes.
import {DTYPE_BYTES} from '../../format/dtype.js';
import {readFloats, rowRange, type TensorStore} from '../../format/tensor-store.js';
import {FAMILIES} from '../../model/family/registry.js';
import {type DiskTensor, diskTensors} from '../../model/names.js';
import {leavesOf, parameterSpecs} from '../../model/parameters.js';
import {numElements} from '../../util/shape.js';
import type {ModelSource} from '../model-source.js';

/** A tensor of the view, and where its numbers stand in the source. */
interface Place {
  readonly shape: readonly number[];
  readonly held: DiskTensor;
  /** Whether rows of the view are columns there. */
  readonly isTurned: boolean;
}

/**
 * The mixture in the family of dense models that its own grew out of, whose mixtures have each expert by itself: so one can be
 * made anew without the others. The source itself where it is so already; closing either closes both.
 */
export function expertsApart(source: ModelSource): ModelSource {
  const {apart} = FAMILIES[source.architecture.family];
  if (!apart) return source;
  const architecture = {...source.architecture, family: apart};
  const {names} = FAMILIES[apart];
  const places = new Map<string, Place>();
  for (const spec of leavesOf(parameterSpecs(architecture))) {
    const parts = diskTensors(spec, source.names);
    for (const [i, {name, shape, isTransposed}] of diskTensors(spec, names).entries()) {
      const held = parts[i];
      if (!held) throw new Error(`${spec.path} stands in ${parts.length} places`);
      places.set(name, {shape, held, isTurned: isTransposed !== held.isTransposed});
    }
  }
  return {...source, architecture, names, folder: {...source.folder, tensors: viewOf(source.folder.tensors, places)}};
}

function viewOf(store: TensorStore, places: ReadonlyMap<string, Place>): TensorStore {
  const placeOf = (name: string): Place => {
    const place = places.get(name);
    if (!place) throw new Error(`there is no tensor "${name}" in the view`);
    return place;
  };
  const info: TensorStore['info'] = (name) => {
    const {held, shape} = placeOf(name);
    const {dtype, begin} = store.info(held.name);
    const [from, size] = [begin + held.offset * DTYPE_BYTES[dtype], numElements(shape) * DTYPE_BYTES[dtype]];
    return {name, dtype, shape, begin: from, end: from + size};
  };
  const readBytes: TensorStore['readBytes'] = async (name, range) => {
    const {held, shape, isTurned} = placeOf(name);
    const elementBytes = DTYPE_BYTES[info(name).dtype];
    const [begin, end] = [held.offset * elementBytes, (held.offset + numElements(shape)) * elementBytes];
    if (!isTurned) {
      return store.readBytes(held.name, {begin: begin + (range?.begin ?? 0), end: range ? begin + range.end : end});
    }
    const bytes = turned(await store.readBytes(held.name, {begin, end}), shape, elementBytes);
    return range ? bytes.subarray(range.begin, range.end) : bytes;
  };
  const view = {path: store.path, info, readBytes};
  return {
    ...store,
    ...view,
    names: [...places.keys()],
    has: (name) => places.has(name),
    fileOf: (name) => store.fileOf(placeOf(name).held.name),
    read: (name) => readFloats(view, name),
    readRows: async (name, begin, end) => readFloats(view, name, rowRange(info(name), begin, end)),
  };
}

/** The bytes of a matrix of this shape whose columns stand one after another. */
function turned(bytes: Uint8Array, [rows = 0, columns = 0]: readonly number[], elementBytes: number): Uint8Array {
  const result = new Uint8Array(bytes.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const [from, to] = [(column * rows + row) * elementBytes, (row * columns + column) * elementBytes];
      for (let k = 0; k < elementBytes; k++) result[to + k] = bytes[from + k] as number;
    }
  }
  return result;
}
