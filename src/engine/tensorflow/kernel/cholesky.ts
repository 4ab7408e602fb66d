import type * as tf from '@tensorflow/tfjs';
import {TF} from '../../native/dtype.js';
import {boolAttr, typeAttr} from '../attributes.js';
import type {TensorFlowBackend} from '../backend.js';
import {type Raw, withRaw} from './raw.js';
import {input, type KernelCall} from './register.js';

const DOUBLE = typeAttr('T', TF.DOUBLE);

/** `Cholesky` in float64. */
export function cholesky({binding, toIds, toTensor}: TensorFlowBackend, call: KernelCall): tf.TensorInfo {
  const [a = 0] = toIds([input(call, 'a')]);
  const [result] = withRaw(binding, (raw) => [narrow(raw, raw.run('Cholesky', [DOUBLE], [widen(raw, a)]).id)]);
  if (!result) throw new Error('Cholesky has no output');
  return toTensor(result);
}

/** `Cholesky`, then a solve with L and one with Lᵀ, in float64. */
export function choleskySolve({binding, toIds, toTensor}: TensorFlowBackend, call: KernelCall): tf.TensorInfo {
  const [a = 0, b = 0] = toIds([input(call, 'a'), input(call, 'b')]);
  const [result] = withRaw(binding, (raw) => {
    const l = raw.run('Cholesky', [DOUBLE], [widen(raw, a)]).id;
    const solve = (right: number, adjoint: boolean): number =>
      raw.run('MatrixTriangularSolve', [boolAttr('lower', true), boolAttr('adjoint', adjoint), DOUBLE], [l, right]).id;
    return [narrow(raw, solve(solve(widen(raw, b), false), true))];
  });
  if (!result) throw new Error('MatrixTriangularSolve has no output');
  return toTensor(result);
}

function widen(raw: Raw, id: number): number {
  return raw.run('Cast', [typeAttr('SrcT', TF.FLOAT), typeAttr('DstT', TF.DOUBLE), boolAttr('Truncate', false)], [id])
    .id;
}

function narrow(raw: Raw, id: number) {
  return raw.run('Cast', [typeAttr('SrcT', TF.DOUBLE), typeAttr('DstT', TF.FLOAT), boolAttr('Truncate', false)], [id]);
}
