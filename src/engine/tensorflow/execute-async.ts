import type {Pointer} from '../native/c-api.js';
import {check} from '../native/runtime.js';
import {type Attribute, setEagerAttribute} from './attributes.js';
import type {Binding, Metadata} from './binding.js';

/** An eager tensor given to an operation, with what to call it should it be gone. */
export interface Operand {
  readonly id: number;
  readonly what: string;
}

/** One call of an operation, or of a function by its name. */
export interface Call {
  readonly op: string;
  readonly attributes: readonly Attribute[];
  readonly operands: readonly Operand[];
  readonly numOutputs: number;
  /** Null leaves the choice to TensorFlow. */
  readonly device: string | null;
}

/**
 * Runs an operation on a worker thread; the event loop stays free meanwhile.
 *
 * @throws TensorFlowError with TensorFlow's message; Error if an operand was disposed.
 */
export async function executeAsync(binding: Binding, call: Call): Promise<Metadata[]> {
  const {c, context} = binding.runtime;
  const status = c.TF_NewStatus(); // the shared one may be used while this call runs
  const op = c.TFE_NewOp(context, call.op, status);
  try {
    check(c, status, call.op);
    for (const operand of call.operands) addInput(binding, op, operand, call, status);
    for (const attribute of call.attributes) setEagerAttribute(c, op, attribute, status);
    if (call.device) c.TFE_OpSetDevice(op, call.device, status);
    check(c, status, call.op);
    const outputs = await execute(binding, op, call, status);
    return outputs.map((handle) => binding.register(handle));
  } finally {
    c.TFE_DeleteOp(op);
    c.TF_DeleteStatus(status);
  }
}

function addInput(binding: Binding, op: Pointer, {id, what}: Operand, call: Call, status: Pointer): void {
  const {c} = binding.runtime;
  const handle = binding.handleOf(id);
  if (!handle) throw new Error(`${call.op} uses ${what} that was disposed after the function was compiled.`);
  c.TFE_OpAddInput(op, handle, status);
  check(c, status, call.op);
}

async function execute({runtime: {c}}: Binding, op: Pointer, call: Call, status: Pointer): Promise<Pointer[]> {
  const outputs = new Array<Pointer | null>(Math.max(call.numOutputs, 1)).fill(null);
  const count: [number] = [call.numOutputs];
  await new Promise<void>((resolve, reject) => {
    c.TFE_Execute.async(op, outputs, count, status, (error) => (error ? reject(error) : resolve()));
  });
  check(c, status, call.op);
  return outputs.slice(0, count[0]).filter((handle) => handle !== null);
}
