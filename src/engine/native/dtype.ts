import type {DataType} from '../tfjs.js';

/** TensorFlow's dtype codes (`types.proto`) that the engine meets. */
export const TF = {
  FLOAT: 1,
  DOUBLE: 2,
  INT32: 3,
  UINT8: 4,
  STRING: 7,
  COMPLEX64: 8,
  INT64: 9,
  BOOL: 10,
  BFLOAT16: 14,
  HALF: 19,
  RESOURCE: 20,
  UINT64: 23,
} as const;

/** Attribute kinds as tfjs-node numbers them. */
export const ATTR = {STRING: 0, INT: 1, FLOAT: 2, BOOL: 3, TYPE: 4, SHAPE: 5, RESOURCE: -1} as const;

const BYTES: Readonly<Record<number, number>> = {
  [TF.FLOAT]: 4,
  [TF.INT32]: 4,
  [TF.UINT8]: 1,
  [TF.INT64]: 8,
  [TF.BOOL]: 1,
  [TF.BFLOAT16]: 2,
  [TF.HALF]: 2,
  [TF.COMPLEX64]: 8,
  [TF.UINT64]: 8,
};

/** Bytes of one element of a TensorFlow dtype. */
export function bytesOf(dtype: number): number {
  const bytes = BYTES[dtype];
  if (bytes === undefined) throw new Error(`tensors of TensorFlow dtype ${dtype} cannot cross the boundary`);
  return bytes;
}

/** TensorFlow's code of a tfjs dtype. */
export function dtypeCode(dtype: DataType): number {
  switch (dtype) {
    case 'float32':
      return TF.FLOAT;
    case 'int32':
      return TF.INT32;
    case 'bool':
      return TF.BOOL;
    case 'complex64':
      return TF.COMPLEX64;
    case 'string':
      return TF.STRING;
  }
}
