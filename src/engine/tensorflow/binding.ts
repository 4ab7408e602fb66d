import type {Pointer} from '../native/c-api.js';
import {ATTR, TF} from '../native/dtype.js';
import {describeHandle, type HostValues, readHandle, toNativeTensor} from '../native/host-tensor.js';
import {check, type Runtime} from '../native/runtime.js';
import {userLine} from '../user-line.js';
import {type Attribute, setEagerAttribute} from './attributes.js';
import {addConstant, addNode, addPlaceholder, type GraphValue, type Trace} from './trace.js';

/** A tensor as tfjs-node sees it. */
export interface Metadata {
  readonly id: number;
  readonly shape: number[];
  readonly dtype: number;
}

type Value = {readonly kind: 'eager'; readonly handle: Pointer} | {readonly kind: 'graph'; readonly value: GraphValue};

/**
 * TensorFlow behind tfjs-node's binding interface: the kernels of tfjs-node call `executeOp` on tensor ids.
 *
 * While a trace is active the same calls add nodes to its graph instead of running.
 */
export class Binding {
  readonly TF_FLOAT = TF.FLOAT;
  readonly TF_INT32 = TF.INT32;
  readonly TF_INT64 = TF.INT64;
  readonly TF_BOOL = TF.BOOL;
  readonly TF_COMPLEX64 = TF.COMPLEX64;
  readonly TF_STRING = TF.STRING;
  readonly TF_RESOURCE = TF.RESOURCE;
  readonly TF_UINT8 = TF.UINT8;
  readonly TF_ATTR_STRING = ATTR.STRING;
  readonly TF_ATTR_INT = ATTR.INT;
  readonly TF_ATTR_FLOAT = ATTR.FLOAT;
  readonly TF_ATTR_BOOL = ATTR.BOOL;
  readonly TF_ATTR_TYPE = ATTR.TYPE;
  readonly TF_ATTR_SHAPE = ATTR.SHAPE;
  readonly TF_ATTR_RESOURCE = ATTR.RESOURCE;
  readonly TF_Version: string;
  /** Names of the functions that TensorFlow knows already. */
  readonly functions = new Set<string>();
  /** The function body being traced, or null when operations run at once. */
  trace: Trace | null = null;
  /** What a person calls a long-lived native tensor, for error messages. */
  readonly names = new Map<number, string>();
  readonly #values = new Map<number, Value>();
  #nextId = 1;

  constructor(readonly runtime: Runtime) {
    this.TF_Version = runtime.version;
  }

  /** Native tensors alive: what a leak test counts. */
  getNumOfTensors(): number {
    return this.#values.size;
  }

  isUsingGpuDevice(): boolean {
    return this.runtime.accelerator !== null;
  }

  /** Uploads host values; inside a trace they become a graph constant. */
  createTensor(shape: readonly number[], dtype: number, values: HostValues): number {
    if (this.trace) return this.adopt(addConstant(this.runtime, this.trace, shape, dtype, values));
    const {c, status} = this.runtime;
    const tensor = toNativeTensor(this.runtime, shape, dtype, values);
    const handle = c.TFE_NewTensorHandle(tensor, status);
    c.TF_DeleteTensor(tensor);
    check(c, status, 'create a tensor');
    return this.#add({kind: 'eager', handle});
  }

  /** Frees a tensor. A value of a trace lives as long as the trace: results are read after tfjs let go of them. */
  deleteTensor(id: number): void {
    const found = this.#values.get(id);
    if (found?.kind !== 'eager') return;
    this.#values.delete(id);
    this.names.delete(id);
    this.runtime.c.TFE_DeleteTensorHandle(found.handle);
  }

  /** @throws Error inside a trace: the value does not exist yet. */
  tensorDataSync(id: number): ReturnType<typeof readHandle> {
    const found = this.#find(id);
    if (found.kind === 'eager') return readHandle(this.runtime, found.handle);
    throw new Error(
      `The value of ${found.value.op} was read at ${userLine()} while its function was being compiled. ` +
        'Return the tensor from the compiled function and read it afterwards.',
    );
  }

  /** Runs an operation, or adds it to the active trace. */
  executeOp(op: string, attributes: readonly Attribute[], inputs: readonly number[], numOutputs: number): Metadata[] {
    const {trace} = this;
    if (!trace) return this.#executeEager(op, attributes, inputs, numOutputs);
    const outputs = addNode(
      this.runtime,
      trace,
      op,
      attributes,
      inputs.map((id) => this.valueInTrace(id).output),
    );
    return outputs.map((value) => ({id: this.adopt(value), shape: [...value.shape], dtype: value.dtype}));
  }

  /** The graph value of an id; an eager tensor is captured as a further argument of the function. */
  valueInTrace(id: number): GraphValue {
    const found = this.#find(id);
    if (found.kind === 'graph') return found.value;
    const {trace} = this;
    if (!trace) throw new Error('no trace is active');
    const known = trace.captures.get(id);
    if (known) return known;
    const {shape, dtype} = describeHandle(this.runtime, found.handle);
    const placeholder = addPlaceholder(this.runtime, trace, shape, dtype);
    trace.captures.set(id, placeholder);
    return placeholder;
  }

  /** Gives a graph value an id, so that tfjs can hold it. */
  adopt(value: GraphValue): number {
    return this.#add({kind: 'graph', value});
  }

  /** The native handle of an eager tensor, or null if it was disposed. */
  handleOf(id: number): Pointer | null {
    const found = this.#values.get(id);
    return found?.kind === 'eager' ? found.handle : null;
  }

  /** Registers a handle the caller owns from now on through its id. */
  register(handle: Pointer): Metadata {
    return {id: this.#add({kind: 'eager', handle}), ...describeHandle(this.runtime, handle)};
  }

  /** Forgets every value of a finished trace. */
  dropGraphValues(): void {
    for (const [id, {kind}] of this.#values) if (kind === 'graph') this.#values.delete(id);
  }

  #add(value: Value): number {
    const id = this.#nextId++;
    this.#values.set(id, value);
    return id;
  }

  #find(id: number): Value {
    const found = this.#values.get(id);
    if (found) return found;
    throw new Error(
      `A tensor used at ${userLine()} no longer exists: it was disposed, or it belongs to a function whose compilation has ended.`,
    );
  }

  #executeEager(
    op: string,
    attributes: readonly Attribute[],
    inputs: readonly number[],
    numOutputs: number,
  ): Metadata[] {
    const {c, context, status} = this.runtime;
    const native = c.TFE_NewOp(context, op, status);
    check(c, status, op);
    try {
      for (const id of inputs) this.#addInput(native, id, op);
      for (const attribute of attributes) setEagerAttribute(c, native, attribute, status);
      check(c, status, op);
      const outputs = new Array<Pointer | null>(numOutputs).fill(null);
      const count: [number] = [numOutputs];
      c.TFE_Execute(native, outputs, count, status);
      check(c, status, op);
      return outputs.slice(0, count[0]).flatMap((handle) => (handle ? [this.register(handle)] : []));
    } finally {
      c.TFE_DeleteOp(native);
    }
  }

  #addInput(native: Pointer, id: number, op: string): void {
    const {c, status} = this.runtime;
    const found = this.#find(id);
    if (found.kind === 'graph') throw new Error(`${op} was given a tensor of a function still being compiled`);
    c.TFE_OpAddInput(native, found.handle, status);
    check(c, status, op);
  }
}
