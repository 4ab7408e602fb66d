import {matmulPrecision} from './precision.js';
import {getEngine} from './state.js';
import * as tf from './tfjs.js';

/**
 * The kernels this project adds to tfjs, registered by every engine under the same name but for those that say otherwise.
 *
 * Operations call them through {@link runKernel}; which engine answers is tfjs's business.
 */
export interface Kernels {
  /** `op(a)·op(b)` over the last two axes, batch axes equal. */
  readonly DowncycleMatMul: {
    readonly inputs: {readonly a: tf.Tensor; readonly b: tf.Tensor};
    readonly attrs: {readonly transposeA: boolean; readonly transposeB: boolean};
    readonly result: tf.Tensor;
  };
  /**
   * The first `used` [] of the blocks `rows` [S, H, ·], each times the one of `matrices` [E, ·, ·] that `expert` [S] names; the
   * others are zero. Of TensorFlow alone, where {@link hasLoops}.
   */
  readonly DowncycleBlockMatMul: {
    readonly inputs: {
      readonly rows: tf.Tensor;
      readonly matrices: tf.Tensor;
      readonly expert: tf.Tensor;
      readonly used: tf.Tensor;
    };
    readonly attrs: Readonly<Record<string, never>>;
    readonly result: tf.Tensor;
  };
  /** Where each chosen expert's row goes: see op/experts. */
  readonly DowncycleExpertSlots: {
    readonly inputs: {readonly expert_TK: tf.Tensor};
    readonly attrs: {
      readonly numExperts: number;
      readonly rows: number;
      readonly blockRows: number;
      readonly blocks: number;
    };
    readonly result: tf.Tensor[];
  };
  /** `base` with `rows` [S, N] added to its rows `index` [S]; the same row may come more than once. */
  readonly DowncycleScatterAdd: {
    readonly inputs: {readonly base: tf.Tensor; readonly index: tf.Tensor; readonly rows: tf.Tensor};
    readonly attrs: Readonly<Record<string, never>>;
    readonly result: tf.Tensor;
  };
  /** `cache` [N, C, d] with `rows` [N, S, d] in place of its own from position `start` [1] on; on TensorFlow inside compiled functions only. */
  readonly DowncycleWriteRows: {
    readonly inputs: {readonly cache: tf.Tensor; readonly rows: tf.Tensor; readonly start: tf.Tensor};
    readonly attrs: Readonly<Record<string, never>>;
    readonly result: tf.Tensor;
  };
  /** Lower L with `L·Lᵀ = a`, computed in float64. */
  readonly DowncycleCholesky: {
    readonly inputs: {readonly a: tf.Tensor};
    readonly attrs: Readonly<Record<string, never>>;
    readonly result: tf.Tensor;
  };
  /**
   * x with `(a + shift·I)·x = b`, computed in float64; `a0`, `a1` ... are lower panels of a: see op/cholesky. Disposes its
   * inputs.
   */
  readonly DowncycleCholeskySolve: {
    readonly inputs: {readonly b: tf.Tensor; readonly [panel: `a${number}`]: tf.Tensor};
    readonly attrs: {readonly shift: number};
    readonly result: tf.Tensor;
  };
  /** Uniform numbers in [0, 1) from a two-word seed, the same on every engine. */
  readonly DowncycleRandomUniform: {
    readonly inputs: {readonly seed: tf.Tensor};
    readonly attrs: {readonly shape: number[]};
    readonly result: tf.Tensor;
  };
}

/**
 * Whether what runs now is being compiled into a program that may loop as often as a tensor says: one in float32 on the
 * processor. On a GPU every turn would wait for the host.
 */
export function hasLoops(): boolean {
  const engine = getEngine();
  if (engine.kind === 'wasm' || matmulPrecision() !== 'float32') return false;
  const {binding} = engine.backend;
  return binding.trace !== null && !binding.isUsingGpuDevice();
}

/** Runs one of the project's kernels on the engine in use. */
export function runKernel<K extends keyof Kernels>(
  name: K,
  inputs: Kernels[K]['inputs'],
  attrs: Kernels[K]['attrs'],
): Kernels[K]['result'] {
  const result: unknown = tf.engine().runKernel(name, inputs, attrs);
  return result as Kernels[K]['result'];
}
