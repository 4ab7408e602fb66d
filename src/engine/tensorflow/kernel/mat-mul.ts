import {TF} from '../../native/dtype.js';
import {matmulPrecision} from '../../precision.js';
import type * as tf from '../../tfjs.js';
import {boolAttr, typeAttr} from '../attributes.js';
import type {TensorFlowBackend} from '../backend.js';
import type {Binding} from '../binding.js';
import {input, type KernelCall} from './register.js';

/** `op(a)·op(b)` in float32, or with inputs rounded to bfloat16 and the product widened again. */
export function matMul({binding, toIds, toTensor}: TensorFlowBackend, call: KernelCall): tf.TensorInfo {
  const a = input(call, 'a');
  const b = input(call, 'b');
  const {transposeA, transposeB} = call.attrs as {transposeA: boolean; transposeB: boolean};
  const multiply = a.shape.length === 2 ? matMul2d : matMulBatched;
  const ids = toIds([a, b]);
  if (matmulPrecision() === 'float32') return toTensor(multiply(binding, TF.FLOAT, ids, transposeA, transposeB));
  const narrow = ids.map((id) => cast(binding, id, TF.FLOAT, TF.BFLOAT16));
  const product = multiply(binding, TF.BFLOAT16, narrow, transposeA, transposeB).id;
  const result = one(
    binding.executeOp('Cast', [typeAttr('SrcT', TF.BFLOAT16), typeAttr('DstT', TF.FLOAT)], [product], 1),
  );
  for (const id of [...narrow, product]) binding.deleteTensor(id);
  return toTensor(result);
}

function matMul2d(binding: Binding, dtype: number, ids: readonly number[], transposeA: boolean, transposeB: boolean) {
  const attributes = [typeAttr('T', dtype), boolAttr('transpose_a', transposeA), boolAttr('transpose_b', transposeB)];
  return one(binding.executeOp('MatMul', attributes, ids, 1));
}

function matMulBatched(binding: Binding, dtype: number, ids: readonly number[], adjointA: boolean, adjointB: boolean) {
  const attributes = [typeAttr('T', dtype), boolAttr('adj_x', adjointA), boolAttr('adj_y', adjointB)];
  return one(binding.executeOp('BatchMatMulV2', attributes, ids, 1));
}

function cast(binding: Binding, id: number, from: number, to: number): number {
  return one(binding.executeOp('Cast', [typeAttr('SrcT', from), typeAttr('DstT', to)], [id], 1)).id;
}

function one<T>([first]: readonly T[]): T {
  if (first === undefined) throw new Error('the operation has no output');
  return first;
}
