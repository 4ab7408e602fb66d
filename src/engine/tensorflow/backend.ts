import {createRequire} from 'node:module';
import {NodeJSKernelBackend} from '@tensorflow/tfjs-node-gpu/dist/nodejs_kernel_backend.js';
import type {TFJSBinding} from '@tensorflow/tfjs-node-gpu/dist/tfjs_binding.js';
import type {HostValues} from '../native/host-tensor.js';
import type {Runtime} from '../native/runtime.js';
import * as tf from '../tfjs.js';
import {Binding, type Metadata} from './binding.js';
import {registerKernels} from './kernel/register.js';

/** The parts of tfjs-node's backend that its types hide; the only place that knows them. */
interface BackendInternals {
  createOutputTensor(metadata: Metadata): tf.Tensor;
  getInputTensorIds(tensors: readonly tf.TensorInfo[]): number[];
  readonly tensorMap: {get(dataId: object): TensorEntry};
}

interface TensorEntry {
  readonly shape: number[];
  readonly dtype: number;
  readonly values: HostValues | null;
  readonly id: number;
}

/** TensorFlow as a tfjs backend, with the two conversions between tfjs tensors and native ids. */
export interface TensorFlowBackend {
  readonly binding: Binding;
  /** Wraps a native tensor; the tfjs engine owns it from then on. */
  readonly toTensor: (metadata: Metadata) => tf.Tensor;
  /** Native ids of tensors, uploading host values first. */
  readonly toIds: (tensors: readonly tf.TensorInfo[]) => number[];
}

/** Name under which tfjs knows the backend; the kernels of tfjs-node are registered for it. */
const BACKEND = 'tensorflow';

/** Registers the backend and the kernels with tfjs and selects it. */
export async function startBackend(runtime: Runtime): Promise<TensorFlowBackend> {
  restoreRemovedUtilities();
  const binding = new Binding(runtime);
  // Binding has what the kernels use of TFJSBinding; saved models and image files are not among it.
  const backend = new NodeJSKernelBackend(binding as object as TFJSBinding, '@tensorflow/tfjs-node-gpu');
  const internals = backend as object as BackendInternals;
  const upload = internals.getInputTensorIds.bind(backend);
  const toIds = (tensors: readonly tf.TensorInfo[]): number[] =>
    binding.trace ? tensors.map((tensor) => idInTrace(binding, internals, tensor, upload)) : upload(tensors);
  Object.assign(backend, {getInputTensorIds: toIds});
  tf.registerBackend(BACKEND, () => backend);
  await import('@tensorflow/tfjs-node-gpu/dist/register_all_kernels.js');
  const result = {binding, toIds, toTensor: (metadata: Metadata) => internals.createOutputTensor(metadata)};
  registerKernels(result);
  if (!(await tf.setBackend(BACKEND))) throw new Error('tfjs refused the TensorFlow backend');
  return result;
}

/**
 * The id of a tensor while a function is traced.
 *
 * Host values become a constant of the graph and are left on the host: caching the id, as tfjs-node does,
 * would leave a graph node behind where later code expects a tensor.
 */
function idInTrace(
  binding: Binding,
  {tensorMap}: BackendInternals,
  tensor: tf.TensorInfo,
  upload: (tensors: readonly tf.TensorInfo[]) => number[],
): number {
  const entry = 'valueArray' in tensor ? null : tensorMap.get(tensor.dataId);
  if (!entry?.values) return upload([tensor])[0] ?? 0;
  const known = binding.trace?.constants.get(tensor.dataId);
  if (known !== undefined) return known;
  const id = binding.createTensor(entry.shape, entry.dtype, entry.values);
  binding.trace?.constants.set(tensor.dataId, id);
  return id;
}

/** Node 23 removed one of two functions that tfjs-node 4.22 calls, and warns at each use of the other. */
function restoreRemovedUtilities(): void {
  const util = createRequire(import.meta.url)('node:util') as Record<string, unknown>;
  util.isNullOrUndefined = (value: unknown) => value === null || value === undefined;
  util.isArray = Array.isArray;
}
