import {numElements} from '../util/shape.js';
import {ATTR, TF} from './native/dtype.js';
import {getEngine} from './state.js';
import {boolAttr, shapeAttr, stringAttr, typeAttr} from './tensorflow/attributes.js';
import type {TensorFlowBackend} from './tensorflow/backend.js';
import * as tf from './tfjs.js';
import {userLine} from './user-line.js';

/** A float32 tensor that outlives steps and is updated in place, inside compiled functions too. */
export interface Variable {
  readonly name: string;
  readonly shape: readonly number[];
  /** The value now, as a tensor of the caller's. @throws Error naming the caller's line once disposed. */
  read(): tf.Tensor;
  /** Replaces the value; in a compiled function the native buffer is reused. */
  assign(value: tf.Tensor): void;
  /** Lets go of the value and its memory; there is none to read until the next one is assigned. */
  release(): void;
  dispose(): void;
}

/** A variable holding a copy of `values` (row-major). */
export function createVariable(name: string, shape: readonly number[], values: Float32Array): Variable {
  const size = numElements(shape);
  if (values.length !== size) throw new Error(`variable ${name} needs ${size} values, got ${values.length}`);
  const engine = getEngine();
  if (engine.kind === 'wasm') return guarded(name, shape, tensorStorage(shape, values));
  const {backend} = engine;
  refuseTrace(backend, name);
  const initial = backend.binding.createTensor(shape, TF.FLOAT, values);
  return guarded(name, shape, nativeStorage(backend, name, shape, initial));
}

/**
 * A variable of TensorFlow whose memory is set aside and not touched: enough to compile what uses it, and costs nothing.
 *
 * @throws Error on another engine.
 */
export function createHollowVariable(name: string, shape: readonly number[]): Variable {
  const engine = getEngine();
  if (engine.kind === 'wasm') throw new Error(`hollow variable ${name}: the wasm engine compiles nothing`);
  const {backend} = engine;
  refuseTrace(backend, name);
  const size = backend.binding.createTensor([shape.length], TF.INT32, Int32Array.from(shape));
  const attributes = [typeAttr('dtype', TF.FLOAT), boolAttr('init', false)];
  const [initial] = backend.binding.executeOp('Empty', attributes, [size], 1);
  backend.binding.deleteTensor(size);
  if (!initial) throw new Error('Empty has no output');
  return guarded(name, shape, nativeStorage(backend, name, shape, initial.id));
}

function refuseTrace({binding}: TensorFlowBackend, name: string): void {
  if (!binding.trace) return;
  throw new Error(`Variable ${name} was created at ${userLine()} inside a function being compiled; create it before.`);
}

interface Storage {
  read(): tf.Tensor;
  assign(value: tf.Tensor): void;
  release(): void;
  dispose(): void;
}

function guarded(name: string, shape: readonly number[], storage: Storage): Variable {
  let state: 'held' | 'released' | 'disposed' = 'held';
  const refuse = (isRefused: boolean): Storage => {
    if (isRefused) throw new Error(`Variable ${name} was used at ${userLine()} after it was ${state}.`);
    return storage;
  };
  return {
    name,
    shape,
    read: () => refuse(state !== 'held').read(),
    assign: (value) => {
      tf.util.assertShapesMatch(value.shape, [...shape], `assigning variable ${name}: `);
      refuse(state === 'disposed').assign(value);
      state = 'held';
    },
    release: () => {
      refuse(state === 'disposed').release();
      state = 'released';
    },
    dispose: () => {
      refuse(state === 'disposed').dispose();
      state = 'disposed';
    },
  };
}

let numVariables = 0;

/** A resource of TensorFlow, which takes over `initial`: compiled functions take its handle and write into its buffer. */
function nativeStorage(
  {binding, toIds, toTensor}: TensorFlowBackend,
  name: string,
  shape: readonly number[],
  initial: number,
): Storage {
  const dtype = typeAttr('dtype', TF.FLOAT);
  const one = (op: string, attributes: Parameters<typeof binding.executeOp>[1], ids: readonly number[]) => {
    const [result] = binding.executeOp(op, attributes, ids, 1);
    if (!result) throw new Error(`${op} has no output`);
    return result;
  };
  const shared = stringAttr('shared_name', `variable_${numVariables++}`);
  const handle = one('VarHandleOp', [dtype, shapeAttr('shape', shape), shared], []).id;
  binding.names.set(handle, name);
  const assign = (id: number): unknown => binding.executeOp('AssignVariableOp', [dtype], [handle, id], 0);
  const destroy = (): void => {
    binding.executeOp('DestroyResourceOp', [boolAttr('ignore_lookup_error', true)], [handle], 0);
  };
  assign(initial);
  binding.deleteTensor(initial);
  return {
    read: () => {
      const value = one('ReadVariableOp', [dtype], [handle]);
      if (!binding.trace) return toTensor(value);
      // A handle carries no shape into the graph, and shape inference behind it needs one.
      const T = typeAttr('T', TF.FLOAT);
      return toTensor(one('EnsureShape', [T, {name: 'shape', type: ATTR.SHAPE, value: shape}], [value.id]));
    },
    assign: (value) => {
      assign(toIds([value])[0] ?? 0);
    },
    release: destroy, // assigning makes the resource anew
    dispose: () => {
      destroy();
      binding.deleteTensor(handle);
    },
  };
}

/** A kept tensor, replaced at each assignment. */
function tensorStorage(shape: readonly number[], values: Float32Array): Storage {
  let kept = tf.keep(tf.tensor(values.slice(), [...shape]));
  return {
    read: () => kept.clone(),
    assign: (value) => {
      const old = kept;
      kept = tf.keep(value.clone());
      old.dispose();
    },
    release: () => kept.dispose(),
    dispose: () => kept.dispose(),
  };
}
