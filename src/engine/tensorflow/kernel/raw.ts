import {TF} from '../../native/dtype.js';
import type {HostValues} from '../../native/host-tensor.js';
import {type Attribute, boolAttr, intAttr, typeAttr} from '../attributes.js';
import type {Binding, Metadata} from '../binding.js';

/** TensorFlow operations on raw ids, for kernels made of several of them. */
export interface Raw {
  /** Runs an operation with one output. */
  run(op: string, attributes: readonly Attribute[], inputs: readonly number[]): Metadata;
  /** An int32 constant; a scalar if `shape` is left out. */
  int(values: number | readonly number[], shape?: readonly number[]): number;
  constant(values: HostValues, shape: readonly number[], dtype: number): number;
  /** Frees an intermediate result before the body ends: for large ones that nothing needs any more. */
  free(id: number): void;
}

/** Runs `body` and frees every intermediate result but those it returns. */
export function withRaw(binding: Binding, body: (raw: Raw) => Metadata[]): Metadata[] {
  const made = new Set<number>();
  const constant: Raw['constant'] = (values, shape, dtype) => {
    const id = binding.createTensor(shape, dtype, values);
    made.add(id);
    return id;
  };
  const raw: Raw = {
    constant,
    int: (values, shape) => {
      const list = typeof values === 'number' ? [values] : values;
      return constant(Int32Array.from(list), shape ?? (typeof values === 'number' ? [] : [list.length]), TF.INT32);
    },
    run: (op, attributes, inputs) => {
      const [result] = binding.executeOp(op, attributes, inputs, 1);
      if (!result) throw new Error(`${op} has no output`);
      made.add(result.id);
      return result;
    },
    free: (id) => {
      made.delete(id);
      binding.deleteTensor(id);
    },
  };
  try {
    const results = body(raw);
    for (const {id} of results) made.delete(id);
    return results;
  } finally {
    for (const id of made) binding.deleteTensor(id);
  }
}

const INT = typeAttr('T', TF.INT32);

/** Elementwise int32 arithmetic and comparisons with broadcasting. */
export function intOp(
  raw: Raw,
  op: 'AddV2' | 'Sub' | 'Mul' | 'Maximum' | 'Minimum' | 'Less' | 'FloorDiv',
  a: number,
  b: number,
): number {
  return raw.run(op, [INT], [a, b]).id;
}

/** int32 sum over one axis. */
export function intSum(raw: Raw, x: number, axis: number): Metadata {
  return raw.run('Sum', [INT, typeAttr('Tidx', TF.INT32), boolAttr('keep_dims', false)], [x, raw.int([axis])]);
}

/** `condition ? a : b` on int32. */
export function intSelect(raw: Raw, condition: number, a: number, b: number): Metadata {
  return raw.run('SelectV2', [INT], [condition, a, b]);
}

/** int32 one-hot rows: `[N] -> [N, depth]`. */
export function intOneHot(raw: Raw, indices: number, depth: number): number {
  const attributes = [INT, typeAttr('TI', TF.INT32), intAttr('axis', -1)];
  return raw.run('OneHot', attributes, [indices, raw.int(depth), raw.int(1), raw.int(0)]).id;
}
