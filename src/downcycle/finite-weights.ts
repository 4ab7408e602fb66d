import {type FloatDtype, firstNonFinite, isFloatDtype, widen} from '../format/dtype.js';
import type {TensorStore} from '../format/tensor-store.js';
import type {Architecture} from '../model/architecture.js';
import {FAMILIES} from '../model/family/registry.js';
import {diskTensors} from '../model/names.js';
import {leavesOf, parameterSpecs} from '../model/parameters.js';
import {ModelError} from '../util/errors.js';
import {numElements} from '../util/shape.js';

/**
 * Refuses a model with a weight that is NaN or infinite: everything made of it would be. Reads every weight once, one
 * tensor in memory at a time.
 *
 * @throws ModelError naming file, tensor and row of the first.
 */
export async function requireFiniteWeights(tensors: TensorStore, architecture: Architecture): Promise<void> {
  const {names} = FAMILIES[architecture.family];
  const parts = leavesOf(parameterSpecs(architecture)).flatMap((spec) => diskTensors(spec, names));
  for (const name of new Set(parts.map((part) => part.name))) {
    const {dtype} = tensors.info(name);
    if (isFloatDtype(dtype)) requireFinite(tensors, name, await tensors.readBytes(name), dtype);
  }
}

/** The same for the bytes of one tensor. */
export function requireFinite(tensors: TensorStore, name: string, bytes: Uint8Array, dtype: FloatDtype): void {
  const bad = firstNonFinite(bytes, dtype);
  if (bad < 0) return;
  const {shape} = tensors.info(name);
  const [columns, size] = [shape.at(-1) ?? 1, bytes.length / numElements(shape)];
  const [value] = widen(bytes.slice(bad * size, (bad + 1) * size), dtype);
  const place = shape.length > 1 ? `in row ${Math.floor(bad / columns)}` : `at place ${bad}`;
  throw new ModelError(`${tensors.fileOf(name)}: tensor "${name}" has ${value} ${place}.`, {
    hint: 'The file is damaged, or the training that made it diverged; get another.',
  });
}
