import * as tf from '../../tfjs.js';
import {cholesky, choleskySolve} from './cholesky.js';
import {expertSlots} from './expert-slots.js';
import {matMul} from './mat-mul.js';
import {randomUniform} from './random-uniform.js';
import {scatterAdd} from './scatter-add.js';
import {mean, sum} from './sum.js';
import {unsortedSegmentSum} from './unsorted-segment-sum.js';
import {writeRows} from './write-rows.js';

/** A kernel in terms of tensors; the WebAssembly backend reads and writes them synchronously. */
export type WasmKernel = (
  inputs: Readonly<Record<string, tf.Tensor>>,
  attrs: tf.NamedAttrMap,
) => tf.Tensor | tf.Tensor[];

const KERNELS: Readonly<Record<string, WasmKernel>> = {
  Sum: sum,
  Mean: mean,
  UnsortedSegmentSum: unsortedSegmentSum,
  DowncycleCholesky: cholesky,
  DowncycleCholeskySolve: choleskySolve,
  DowncycleMatMul: matMul,
  DowncycleExpertSlots: expertSlots,
  DowncycleRandomUniform: randomUniform,
  DowncycleScatterAdd: scatterAdd,
  DowncycleWriteRows: writeRows,
};

/** Registers what tfjs's WebAssembly backend lacks, and replaces what it gets wrong. */
export function registerKernels(): void {
  for (const [kernelName, kernel] of Object.entries(KERNELS)) {
    if (tf.getKernel(kernelName, 'wasm')) tf.unregisterKernel(kernelName, 'wasm');
    tf.registerKernel({
      kernelName,
      backendName: 'wasm',
      kernelFunc: ({inputs, attrs}) => kernel(inputs as Record<string, tf.Tensor>, attrs ?? {}),
    });
  }
}
