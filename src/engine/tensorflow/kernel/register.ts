import * as tf from '../../tfjs.js';
import type {TensorFlowBackend} from '../backend.js';
import {blockMatMul} from './block-mat-mul.js';
import {cholesky, choleskySolve} from './cholesky.js';
import {expertSlots} from './expert-slots.js';
import {gather} from './gather.js';
import {matMul} from './mat-mul.js';
import {randomUniform} from './random-uniform.js';
import {scatterAdd} from './scatter-add.js';
import {writeRows} from './write-rows.js';

/** Inputs and attributes of a kernel call, as tfjs hands them over. */
export interface KernelCall {
  readonly inputs: tf.NamedTensorInfoMap;
  readonly attrs?: tf.NamedAttrMap;
}

type Kernel = (backend: TensorFlowBackend, call: KernelCall) => tf.TensorInfo | tf.TensorInfo[];

const KERNELS: Readonly<Record<string, Kernel>> = {
  GatherV2: gather,
  DowncycleBlockMatMul: blockMatMul,
  DowncycleCholesky: cholesky,
  DowncycleCholeskySolve: choleskySolve,
  DowncycleMatMul: matMul,
  DowncycleExpertSlots: expertSlots,
  DowncycleRandomUniform: randomUniform,
  DowncycleScatterAdd: scatterAdd,
  DowncycleWriteRows: writeRows,
};

/** Registers the project's kernels, replacing tfjs-node's where both have one. */
export function registerKernels(backend: TensorFlowBackend): void {
  for (const [kernelName, kernel] of Object.entries(KERNELS)) {
    if (tf.getKernel(kernelName, 'tensorflow')) tf.unregisterKernel(kernelName, 'tensorflow');
    tf.registerKernel({
      kernelName,
      backendName: 'tensorflow',
      kernelFunc: ({inputs, attrs}) => kernel(backend, attrs ? {inputs, attrs} : {inputs}),
    });
  }
}

/** The input called `name`. */
export function input({inputs}: KernelCall, name: string): tf.TensorInfo {
  const found = inputs[name];
  if (!found) throw new Error(`kernel input ${name} is missing`);
  return found;
}
