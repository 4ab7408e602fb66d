import type * as tf from '@tensorflow/tfjs';
import {TF} from '../../native/dtype.js';
import {type Attribute, boolAttr, typeAttr} from '../attributes.js';
import type {TensorFlowBackend} from '../backend.js';
import {type Raw, withRaw} from './raw.js';
import {input, type KernelCall} from './register.js';

const DOUBLE = typeAttr('T', TF.DOUBLE);

/** `Cholesky` in float64. */
export function cholesky({binding, toIds, toTensor}: TensorFlowBackend, call: KernelCall): tf.TensorInfo {
  const [a = 0] = toIds([input(call, 'a')]);
  const [result] = withRaw(binding, (raw) => [narrow(raw, factor(raw, a))]);
  if (!result) throw new Error('Cholesky has no output');
  return toTensor(result);
}

/** `Cholesky`, then a solve with L and one with Lᵀ, in float64. */
export function choleskySolve({binding, toIds, toTensor}: TensorFlowBackend, call: KernelCall): tf.TensorInfo {
  const [a = 0, b = 0] = toIds([input(call, 'a'), input(call, 'b')]);
  const [result] = withRaw(binding, (raw) => {
    const l = factor(raw, a);
    return [narrow(raw, solve(raw, l, solve(raw, l, widen(raw, b), false), true))];
  });
  if (!result) throw new Error('MatrixTriangularSolve has no output');
  return toTensor(result);
}

/** L in float64. */
function factor(raw: Raw, a: number): number {
  return last(raw, 'Cholesky', [DOUBLE], [], widen(raw, a));
}

/** Solves with L or with Lᵀ. */
function solve(raw: Raw, l: number, right: number, adjoint: boolean): number {
  const attributes = [boolAttr('lower', true), boolAttr('adjoint', adjoint), DOUBLE];
  return last(raw, 'MatrixTriangularSolve', attributes, [l], right);
}

/** Runs an operation that is the last to need `consumed`, twice as large as the caller's, and so let go at once. */
function last(
  raw: Raw,
  op: string,
  attributes: readonly Attribute[],
  inputs: readonly number[],
  consumed: number,
): number {
  const {id} = raw.run(op, attributes, [...inputs, consumed]);
  raw.free(consumed);
  return id;
}

function widen(raw: Raw, id: number): number {
  return raw.run('Cast', [typeAttr('SrcT', TF.FLOAT), typeAttr('DstT', TF.DOUBLE), boolAttr('Truncate', false)], [id])
    .id;
}

function narrow(raw: Raw, id: number) {
  return raw.run('Cast', [typeAttr('SrcT', TF.DOUBLE), typeAttr('DstT', TF.FLOAT), boolAttr('Truncate', false)], [id]);
}
