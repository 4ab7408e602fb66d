import {TF} from '../../native/dtype.js';
import type * as tf from '../../tfjs.js';
import {boolAttr, intAttr, typeAttr} from '../attributes.js';
import type {TensorFlowBackend} from '../backend.js';
import {runLoop} from '../loop.js';
import {intOp, type Raw, withRaw} from './raw.js';
import {input, type KernelCall} from './register.js';

/**
 * One block of rows after the other through the matrix of its expert, until all that are in use are done: a matrix is read where
 * it lies, and a block that is not in use stays zero. Float32, inside compiled functions.
 */
export function blockMatMul({binding, toIds, toTensor}: TensorFlowBackend, call: KernelCall): tf.TensorInfo {
  const [rows, matrices] = [input(call, 'rows'), input(call, 'matrices')];
  const [S = 0, H = 0, D = 0] = rows.shape;
  const F = matrices.shape[2] ?? 0;
  const shape = [S, H, F];
  const [result] = withRaw(binding, (raw) => {
    const zeros = raw.run('Fill', [FLOAT, typeAttr('index_type', TF.INT32)], [raw.int(shape), zero(raw)]).id;
    const given = toIds([rows, matrices, input(call, 'expert'), input(call, 'used')]);
    const ended = runLoop(binding, [...given, raw.int(0), zeros], {
      goesOn: ([, , , used = 0, block = 0]) => intOp(raw, 'Less', block, used),
      turn: ([x = 0, w = 0, expert = 0, used = 0, block = 0, y = 0]) => {
        const at = raw.run('Reshape', [INT, typeAttr('Tshape', TF.INT32)], [block, raw.int([1])]).id;
        const own = slice(raw, INT, expert, at, [1]);
        const matrix = slice(raw, FLOAT, w, corner(raw, own), [1, D, F]);
        const part = slice(raw, FLOAT, x, corner(raw, at), [1, H, D]);
        const sides = [FLOAT, boolAttr('adj_x', false), boolAttr('adj_y', false)];
        const product = raw.run('BatchMatMulV2', sides, [part, matrix]).id;
        const written = raw.run('XlaDynamicUpdateSlice', [FLOAT, PLACE], [y, product, corner(raw, at)]).id;
        return [x, w, expert, used, intOp(raw, 'AddV2', block, raw.int(1)), written];
      },
    });
    return [{id: ended.at(-1) ?? 0, shape, dtype: TF.FLOAT}];
  });
  if (!result) throw new Error('StatelessWhile has no output');
  return toTensor(result);
}

const FLOAT = typeAttr('T', TF.FLOAT);
const INT = typeAttr('T', TF.INT32);
const PLACE = typeAttr('Tindices', TF.INT32);

function zero(raw: Raw): number {
  return raw.constant(Float32Array.of(0), [], TF.FLOAT);
}

/** Where the part of a three-dimensional tensor begins that is at a place of its first axis. */
function corner(raw: Raw, at: number): number {
  const join = [intAttr('N', 3), INT, typeAttr('Tidx', TF.INT32)];
  return raw.run('ConcatV2', join, [at, raw.int([0]), raw.int([0]), raw.int(0)]).id;
}

function slice(raw: Raw, dtype: typeof FLOAT, x: number, begin: number, size: readonly number[]): number {
  return raw.run('XlaDynamicSlice', [dtype, PLACE], [x, begin, raw.int(size)]).id;
}
