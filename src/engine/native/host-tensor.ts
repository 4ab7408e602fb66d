import {numElements} from '../../util/shape.js';
import {type Pointer, viewMemory} from './c-api.js';
import {bytesOf, TF} from './dtype.js';
import {check, type Runtime} from './runtime.js';

/** Host memory in any of the forms tfjs hands over. */
export type HostValues = Float32Array | Int32Array | Uint8Array | BigInt64Array | readonly number[];

/** A new `TF_Tensor` holding a copy of `values`; the caller deletes it. */
export function toNativeTensor({c}: Runtime, shape: readonly number[], dtype: number, values: HostValues): Pointer {
  const size = numElements(shape);
  const bytes = size * bytesOf(dtype);
  const tensor = c.TF_AllocateTensor(dtype, shape.map(BigInt), shape.length, bytes);
  if (bytes === 0) return tensor;
  const data = c.TF_TensorData(tensor);
  if (!data) throw new Error(`TensorFlow allocated no memory for ${bytes} bytes`);
  const source = asTyped(dtype, values);
  viewMemory(data, bytes).set(new Uint8Array(source.buffer, source.byteOffset, bytes));
  return tensor;
}

/** The values of an eager handle, copied to a typed array; waits until they are computed. */
export function readHandle(
  {c, status}: Runtime,
  handle: Pointer,
): Float32Array | Int32Array | Uint8Array | BigInt64Array | Uint16Array {
  const tensor = c.TFE_TensorHandleResolve(handle, status);
  check(c, status, 'read a tensor');
  const bytes = Number(c.TF_TensorByteSize(tensor));
  const data = bytes === 0 ? null : c.TF_TensorData(tensor);
  // A copy: the memory belongs to the TF_Tensor and goes with it.
  const copy = data ? viewMemory(data, bytes).slice().buffer : new ArrayBuffer(0);
  const dtype = c.TF_TensorType(tensor);
  c.TF_DeleteTensor(tensor);
  switch (dtype) {
    case TF.FLOAT:
      return new Float32Array(copy);
    case TF.INT32:
      return new Int32Array(copy);
    case TF.INT64:
      return new BigInt64Array(copy);
    case TF.BFLOAT16:
    case TF.HALF:
      return new Uint16Array(copy);
    default:
      return new Uint8Array(copy);
  }
}

/** Shape and dtype of an eager handle. */
export function describeHandle({c, status}: Runtime, handle: Pointer): {shape: number[]; dtype: number} {
  const rank = c.TFE_TensorHandleNumDims(handle, status);
  check(c, status, 'rank of a tensor');
  const shape = Array.from({length: rank}, (_, i) => Number(c.TFE_TensorHandleDim(handle, i, status)));
  return {shape, dtype: c.TFE_TensorHandleDataType(handle)};
}

function asTyped(dtype: number, values: HostValues): Float32Array | Int32Array | Uint8Array | BigInt64Array {
  // tfjs hands an int64 scalar over as a pair of 32-bit words, low word first; other int64 data as int32.
  if (dtype === TF.INT64 && !(values instanceof BigInt64Array)) {
    const words = values instanceof Int32Array && values.length === 2 ? [values[0] ?? 0] : Array.from(values);
    return BigInt64Array.from(words, BigInt);
  }
  if (ArrayBuffer.isView(values)) return values;
  if (dtype === TF.FLOAT) return Float32Array.from(values);
  return dtype === TF.BOOL || dtype === TF.UINT8 ? Uint8Array.from(values) : Int32Array.from(values);
}
