import {TF} from '../../native/dtype.js';
import type * as tf from '../../tfjs.js';
import {type Attribute, boolAttr, intAttr, typeAttr} from '../attributes.js';
import type {TensorFlowBackend} from '../backend.js';
import type {Metadata} from '../binding.js';
import {type Raw, withRaw} from './raw.js';
import {input, type KernelCall} from './register.js';

const DOUBLE = typeAttr('T', TF.DOUBLE);
const INDEX = typeAttr('Index', TF.INT32);

/** Columns of the right side that are solved for at once, in some float64 copies. */
const SOLVED_COLUMNS = 128;

/** `Cholesky` in float64. */
export function cholesky({binding, toIds, toTensor}: TensorFlowBackend, call: KernelCall): tf.TensorInfo {
  const [a = 0] = toIds([input(call, 'a')]);
  const [result] = withRaw(binding, (raw) => [narrow(raw, factor(raw, widen(raw, a)))]);
  if (!result) throw new Error('Cholesky has no output');
  return toTensor(result);
}

/**
 * Factors lower panels from the left, then substitutes forward and backward, in float64; disposes its inputs.
 *
 * TensorFlow's own `Cholesky` and `MatrixTriangularSolve` work on one core and hold matrices of N² numbers; here all
 * but the diagonal blocks are products, and one lower half is held. What is let go is let go as soon as it can be.
 */
export function choleskySolve({binding, toIds, toTensor}: TensorFlowBackend, call: KernelCall): tf.TensorInfo {
  const b = input(call, 'b') as tf.Tensor2D;
  const panels = Array.from(
    {length: Object.keys(call.inputs).length - 1},
    (_, p) => input(call, `a${p}`) as tf.Tensor2D,
  );
  const take = <T>(tensor: tf.Tensor, use: (id: number) => T): T => {
    const [id = 0] = toIds([tensor]);
    const result = use(id);
    tensor.dispose();
    return result;
  };
  const [result] = withRaw(binding, (raw) => {
    const rights = take(b, (id) => columnBlocks(raw, id, b.shape));
    const read = (panel: tf.Tensor): number => take(panel, (id) => widen(raw, id));
    const factors = factorPanels(raw, panels, {read, shift: Number(call.attrs?.shift ?? 0)});
    const solved = rights.map((right) => consume(raw, substitute(raw, factors, consume(raw, right, widen)), narrow));
    for (const {inverse, below} of factors) for (const id of [inverse, below]) raw.free(id);
    const ids = solved.map(({id}) => id);
    return solved.length === 1 ? solved : [join(raw, ids, 1, TF.FLOAT)];
  });
  if (!result) throw new Error('a solve has no output');
  return toTensor(result);
}

/** The columns of a float32 matrix, some at a time. */
function columnBlocks(raw: Raw, matrix: number, [rows, columns]: readonly [number, number]): number[] {
  return Array.from({length: Math.ceil(columns / SOLVED_COLUMNS)}, (_, block) => {
    const from = block * SOLVED_COLUMNS;
    return slice(raw, matrix, [0, from], [rows, Math.min(SOLVED_COLUMNS, columns - from)], TF.FLOAT);
  });
}

/** The part of L that a panel gave, in float64. */
interface Factor {
  readonly width: number;
  /** Inverse of the diagonal block, [width, width]. */
  readonly inverse: number;
  /** L below the diagonal block, [rows left, width]. */
  readonly below: number;
}

/** L of `panels + shift·I`; panel p holds the columns of its width from the diagonal down. */
function factorPanels(
  raw: Raw,
  panels: readonly tf.Tensor2D[],
  {read, shift}: {readonly read: (panel: tf.Tensor) => number; readonly shift: number},
): Factor[] {
  const factors: Factor[] = [];
  for (const panel of panels) {
    const [, width] = panel.shape;
    let left = read(panel);
    for (const [q, {below}] of factors.entries()) {
      const done = sum(factors.slice(q + 1).map((factor) => factor.width)); // rows of `below` above this panel
      const beside = slice(raw, below, [done, 0], [-1, -1]);
      const top = slice(raw, beside, [0, 0], [width, -1]);
      left = subtract(
        raw,
        left,
        consume(raw, top, () => multiply(raw, beside, top, {b: true})),
      );
      raw.free(beside);
    }
    factors.push(factorPanel(raw, left, width, shift));
  }
  return factors;
}

/** Factors a panel from which all that lies to the left was subtracted; consumes it. */
function factorPanel(raw: Raw, left: number, width: number, shift: number): Factor {
  const block = slice(raw, left, [0, 0], [width, -1]);
  const shifted = shift === 0 ? block : consume(raw, block, () => add(raw, block, diagonal(raw, width, shift)));
  const l = consume(raw, shifted, factor);
  const inverse = consume(raw, l, () =>
    consume(raw, diagonal(raw, width, 1), (_, identity) => {
      const attributes = [boolAttr('lower', true), boolAttr('adjoint', false), DOUBLE];
      return raw.run('MatrixTriangularSolve', attributes, [l, identity]).id;
    }),
  );
  const rest = consume(raw, left, () => slice(raw, left, [width, 0], [-1, -1]));
  return {width, inverse, below: consume(raw, rest, () => multiply(raw, rest, inverse, {b: true}))};
}

/** x with `L·Lᵀ·x = right`; consumes `right`. */
function substitute(raw: Raw, factors: readonly Factor[], right: number): number {
  let rest = right;
  const forward = factors.map(({width, inverse, below}) => {
    const top = slice(raw, rest, [0, 0], [width, -1]);
    const y = consume(raw, top, () => multiply(raw, inverse, top));
    const tail = consume(raw, rest, () => slice(raw, rest, [width, 0], [-1, -1]));
    rest = subtract(raw, tail, multiply(raw, below, y));
    return y;
  });
  let x = rest; // of no rows
  for (const {inverse, below} of factors.toReversed()) {
    const left = subtract(raw, forward.pop() as number, multiply(raw, below, x, {a: true}));
    const upper = consume(raw, left, () => multiply(raw, inverse, left, {a: true}));
    const lower = x;
    x = join(raw, [upper, lower], 0, TF.DOUBLE).id;
    for (const id of [upper, lower]) raw.free(id);
  }
  return x;
}

/** Lower L of a float64 matrix. */
function factor(raw: Raw, a: number): number {
  return raw.run('Cholesky', [DOUBLE], [a]).id;
}

/** What `use` makes of something that nothing needs afterwards. */
function consume<T>(raw: Raw, id: number, use: (raw: Raw, id: number) => T): T {
  const result = use(raw, id);
  raw.free(id);
  return result;
}

function multiply(raw: Raw, a: number, b: number, transpose: {a?: boolean; b?: boolean} = {}): number {
  const attributes = [
    boolAttr('transpose_a', transpose.a ?? false),
    boolAttr('transpose_b', transpose.b ?? false),
    DOUBLE,
  ];
  return raw.run('MatMul', attributes, [a, b]).id;
}

/** `a - b`; consumes both. */
function subtract(raw: Raw, a: number, b: number): number {
  return consume(raw, a, () => consume(raw, b, () => raw.run('Sub', [DOUBLE], [a, b]).id));
}

/** `a + b`; consumes b. */
function add(raw: Raw, a: number, b: number): number {
  return consume(raw, b, () => raw.run('AddV2', [DOUBLE], [a, b]).id);
}

/** A diagonal matrix of one value. */
function diagonal(raw: Raw, size: number, value: number): number {
  const scalar = widen(raw, raw.constant(Float32Array.of(value), [], TF.FLOAT));
  const values = raw.run('Fill', [DOUBLE, typeAttr('index_type', TF.INT32)], [raw.int([size]), scalar]).id;
  return raw.run('MatrixDiag', [DOUBLE], [values]).id;
}

function slice(
  raw: Raw,
  x: number,
  begin: readonly number[],
  size: readonly number[],
  dtype: number = TF.DOUBLE,
): number {
  return raw.run('Slice', [typeAttr('T', dtype), INDEX], [x, raw.int(begin), raw.int(size)]).id;
}

function join(raw: Raw, parts: readonly number[], axis: number, dtype: number): Metadata {
  const attributes: Attribute[] = [intAttr('N', parts.length), typeAttr('T', dtype), typeAttr('Tidx', TF.INT32)];
  return raw.run('ConcatV2', attributes, [...parts, raw.int(axis)]);
}

function widen(raw: Raw, id: number): number {
  return raw.run('Cast', [typeAttr('SrcT', TF.FLOAT), typeAttr('DstT', TF.DOUBLE), boolAttr('Truncate', false)], [id])
    .id;
}

function narrow(raw: Raw, id: number): Metadata {
  return raw.run('Cast', [typeAttr('SrcT', TF.DOUBLE), typeAttr('DstT', TF.FLOAT), boolAttr('Truncate', false)], [id]);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
