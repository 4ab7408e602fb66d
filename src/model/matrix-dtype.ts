import {type FloatDtype, isFloatDtype} from '../format/dtype.js';
import type {ModelFolder} from '../format/model-folder.js';
import type {Architecture} from './architecture.js';
import {FAMILIES} from './family/registry.js';
import {diskTensors} from './names.js';
import {parameterSpecs} from './parameters.js';

/** The dtype of a model's embedding, which is that of its matrices. */
export function matrixDtype({tensors}: Pick<ModelFolder, 'tensors'>, architecture: Architecture): FloatDtype {
  const [{name} = {name: ''}] = diskTensors(parameterSpecs(architecture).embed, FAMILIES[architecture.family].names);
  const {dtype} = tensors.info(name);
  return isFloatDtype(dtype) ? dtype : 'F32';
}
