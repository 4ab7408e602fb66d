import {type FloatDtype, isFloatDtype} from '../format/dtype.js';
import type {ModelFolder} from '../format/model-folder.js';
import type {Architecture} from './architecture.js';
import {FAMILIES} from './family/registry.js';
import {diskTensors} from './names.js';
import {leavesOf, parameterSpecs} from './parameters.js';
import {storedDtype} from './save.js';

/** The dtype of a model's embedding, which is that of its matrices. */
export function matrixDtype({tensors}: Pick<ModelFolder, 'tensors'>, architecture: Architecture): FloatDtype {
  const [{name} = {name: ''}] = diskTensors(parameterSpecs(architecture).embed, FAMILIES[architecture.family].names);
  const {dtype} = tensors.info(name);
  return isFloatDtype(dtype) ? dtype : 'F32';
}

/** Whether storing a model's matrices in a dtype rounds numbers of theirs; routers keep float32 whatever the dtype. */
export function storesNarrower(
  {tensors}: Pick<ModelFolder, 'tensors'>,
  architecture: Architecture,
  dtype: FloatDtype,
): boolean {
  if (dtype === 'F32' || dtype === 'F64') return false;
  const {names} = FAMILIES[architecture.family];
  const matrices = leavesOf(parameterSpecs(architecture)).filter((spec) => storedDtype(spec.role, dtype) === dtype);
  return matrices.some((spec) => diskTensors(spec, names).some(({name}) => tensors.info(name).dtype !== dtype));
}
