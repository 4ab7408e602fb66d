import {EnvironmentError} from '../util/errors.js';
import {type ClusterConfig, serverDef} from './native/config-proto.js';
import {ATTR, TF} from './native/dtype.js';
import {check, TensorFlowError} from './native/runtime.js';
import {getEngine} from './state.js';
import {type Attribute, intAttr, stringAttr, typeAttr} from './tensorflow/attributes.js';
import type {TensorFlowBackend} from './tensorflow/backend.js';
import {executeAsync} from './tensorflow/execute-async.js';
import * as tf from './tfjs.js';

/**
 * A group of processes that compute together. Results are the caller's to dispose.
 *
 * Every process calls the same operations, with tensors of the same shape and the same key; a key names one place of
 * the program and may be used again at its next round. Several may be under way at once if all start them in one order.
 * A failed operation ends the group: TensorFlow refuses all later ones.
 *
 * All reject with EnvironmentError when another process ended, cannot be reached, or stays away past the time limit.
 */
export interface Cluster {
  readonly size: number;
  /** This process's number, from 0. */
  readonly rank: number;
  /** The sum over all processes, the same bits for each. */
  readonly allReduce: Collective;
  /** Everyone's tensors, one after another along the first axis, in the order of ranks: [n, ...] → [size·n, ...]. */
  readonly allGather: Collective;
  /** This process's part, by rank, of the sum over all: [size·n, ...] → [n, ...]. */
  readonly reduceScatter: Collective;
  /** Part r of the first axis goes to process r: row block s of the result came from process s. Shapes stay. */
  readonly allToAll: Collective;
}

/** An operation of all processes of a cluster on a float32 or int32 tensor. */
type Collective = (tensor: tf.Tensor, key: number) => Promise<tf.Tensor>;

/** How a process joins. */
export interface JoinOptions {
  /** Seconds an operation waits for the others; long, because one may still be compiling what another already runs. */
  readonly timeout?: number;
}

/**
 * Joins the cluster; call it once, right after the engine was started and before any tensor is made.
 *
 * Does not wait for the others: the first operation does.
 * @throws EnvironmentError on the wasm engine, or when this process's address cannot be listened on.
 */
export function joinCluster(config: ClusterConfig, {timeout = 600}: JoinOptions = {}): Cluster {
  const engine = getEngine();
  if (engine.kind !== 'tensorflow') {
    throw new EnvironmentError('A cluster needs TensorFlow, and the WebAssembly engine runs.', {
      hint: 'Run `downcycle doctor` to see why, or unset TF_CONFIG.',
    });
  }
  const {backend} = engine;
  if (backend.binding.getNumOfTensors() > 0) throw new Error('joinCluster must come before the first tensor');
  listen(backend, config);
  const group: Group = {backend, size: config.addresses.length, rank: config.index, timeout};
  return {
    size: group.size,
    rank: group.rank,
    allReduce: (tensor, key) => allReduce(group, tensor, key),
    allGather: (tensor, key) => allGather(group, tensor, key),
    reduceScatter: (tensor, key) => reduceScatter(group, tensor, key),
    allToAll: (tensor, key) => allToAll(group, tensor, key),
  };
}

interface Group {
  readonly backend: TensorFlowBackend;
  readonly size: number;
  readonly rank: number;
  readonly timeout: number;
}

function listen({binding}: TensorFlowBackend, config: ClusterConfig): void {
  const {c, context, status} = binding.runtime;
  const definition = serverDef(config);
  c.TFE_EnableCollectiveOps(context, definition, definition.length, status);
  try {
    check(c, status, 'join the cluster');
  } catch (cause) {
    const own = config.addresses[config.index] ?? 'no address';
    const reason = cause instanceof Error ? cause.message : String(cause);
    const hint = 'See that the address is of this machine and its port is free.';
    throw new EnvironmentError(`Task ${config.index} cannot listen on ${own}: ${reason}.`, {hint, cause});
  }
}

function allReduce(group: Group, tensor: tf.Tensor, key: number): Promise<tf.Tensor> {
  const merge = [stringAttr('merge_op', 'Add'), stringAttr('final_op', 'Id'), intAttr('max_subdivs_per_device', -1)];
  return collective(group, 'CollectiveReduceV2', merge, tensor, key);
}

function allGather(group: Group, tensor: tf.Tensor, key: number): Promise<tf.Tensor> {
  if (tensor.rank === 0) throw new Error('allGather needs a tensor with at least one axis');
  return collective(group, 'CollectiveGatherV2', [], tensor, key);
}

/** A sum and a cut: TensorFlow has no reduce-scatter for processors. */
async function reduceScatter(group: Group, tensor: tf.Tensor, key: number): Promise<tf.Tensor> {
  const rows = rowsAProcess(group, tensor, 'reduceScatter');
  const sum = await allReduce(group, tensor, key);
  const part = tf.tidy(() => tf.slice(sum, [group.rank * rows], [rows]));
  sum.dispose();
  return part;
}

/** Everyone's parts, of which each takes its own: TensorFlow has no all-to-all for processors. */
async function allToAll(group: Group, tensor: tf.Tensor, key: number): Promise<tf.Tensor> {
  const rows = rowsAProcess(group, tensor, 'allToAll');
  const all = await allGather(group, tensor, key);
  const mine = tf.tidy(() => {
    const blocks = tf.reshape(all, [group.size, group.size, rows, ...tensor.shape.slice(1)]);
    return tf.reshape(tf.slice(blocks, [0, group.rank], [group.size, 1]), tensor.shape);
  });
  all.dispose();
  return mine;
}

function rowsAProcess({size}: Group, {shape}: tf.Tensor, name: string): number {
  const [rows = 0] = shape;
  if (shape.length > 0 && rows % size === 0) return rows / size;
  throw new Error(`${name} needs a first axis that ${size} processes can share evenly; the shape is [${shape.join()}]`);
}

/** One group holds all processes, so its key is fixed. */
const GROUP_KEY = 1;

async function collective(
  {backend, size, timeout}: Group,
  op: string,
  attributes: readonly Attribute[],
  tensor: tf.Tensor,
  key: number,
): Promise<tf.Tensor> {
  const {binding, toIds, toTensor} = backend;
  const numbers = [size, GROUP_KEY, key].map((value) => binding.createTensor([], TF.INT32, Int32Array.of(value)));
  const operands = [...toIds([tensor]), ...numbers].map((id) => ({id, what: 'a tensor'}));
  const common = [
    typeAttr('T', tensor.dtype),
    stringAttr('communication_hint', 'auto'),
    {name: 'timeout_seconds', type: ATTR.FLOAT, value: timeout},
    intAttr('Nordering_token', 0),
  ];
  try {
    const call = {op, attributes: [...attributes, ...common], operands, numOutputs: 1, device: null};
    const [result] = await executeAsync(binding, call);
    if (!result) throw new Error(`${op} has no output`);
    return toTensor(result);
  } catch (error) {
    throw error instanceof TensorFlowError ? groupFailed(op, size, error) : error;
  } finally {
    for (const id of numbers) binding.deleteTensor(id);
  }
}

function groupFailed(op: string, size: number, cause: TensorFlowError): EnvironmentError {
  const [reason = ''] = cause.message.split('\n', 1);
  return new EnvironmentError(`The ${size} processes of the cluster lost each other in ${op}: ${reason}`, {
    hint: 'See the log of each for the first that ended, then start all of them again.',
    cause,
  });
}
