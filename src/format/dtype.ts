/**
 * Bytes of one element, for every dtype downcycle reads and writes.
 *
 * Files are little-endian and so is every machine Node runs on that has an engine; nothing here swaps bytes.
 */
export const DTYPE_BYTES = {F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, I16: 2, I8: 1, U8: 1, BOOL: 1} as const;

/** Element types by their safetensors names. */
export type Dtype = keyof typeof DTYPE_BYTES;

/** Element types that hold real numbers, and so can be widened to float32. */
export type FloatDtype = 'F64' | 'F32' | 'F16' | 'BF16';

/** Whether a word names a dtype that downcycle knows. */
export function isDtype(word: string): word is Dtype {
  return Object.hasOwn(DTYPE_BYTES, word);
}

/** Whether elements of this dtype are real numbers. */
export function isFloatDtype(dtype: Dtype): dtype is FloatDtype {
  return dtype === 'F32' || dtype === 'BF16' || dtype === 'F16' || dtype === 'F64';
}

/**
 * The numbers stored in `bytes`, as float32. F16 and BF16 widen exactly, NaN payloads included; F64 is rounded.
 *
 * For aligned F32 the result shares memory with `bytes`; everything else is a copy.
 */
export function widen(bytes: Uint8Array, dtype: FloatDtype): Float32Array {
  const {buffer, byteOffset, length} = aligned(bytes, DTYPE_BYTES[dtype]);
  switch (dtype) {
    case 'F32':
      return new Float32Array(buffer, byteOffset, length / 4);
    case 'BF16':
      return widenBfloat16(new Uint16Array(buffer, byteOffset, length / 2));
    case 'F16':
      return widenFloat16(new Uint16Array(buffer, byteOffset, length / 2));
    case 'F64':
      return Float32Array.from(new Float64Array(buffer, byteOffset, length / 8));
  }
}

/** The bits of an element's exponent, all of which are set in NaN and infinity alone; of F64 in the upper half. */
const EXPONENT = {F64: 0x7ff00000, F32: 0x7f800000, F16: 0x7c00, BF16: 0x7f80} as const;

/** Index of the first element that is NaN or infinite, -1 if none is. */
export function firstNonFinite(bytes: Uint8Array, dtype: FloatDtype): number {
  const {buffer, byteOffset, length} = aligned(bytes, DTYPE_BYTES[dtype]);
  const isShort = DTYPE_BYTES[dtype] === 2;
  const words = isShort
    ? new Uint16Array(buffer, byteOffset, length / 2)
    : new Uint32Array(buffer, byteOffset, length / 4);
  const [mask, step] = [EXPONENT[dtype], dtype === 'F64' ? 2 : 1];
  for (let i = step - 1; i < words.length; i += step) {
    if (((words[i] as number) & mask) === mask) return (i - (step - 1)) / step;
  }
  return -1;
}

/**
 * The bytes that store `values` in a dtype, rounded to nearest, ties to even; what is too large becomes infinite.
 *
 * For F32 the result shares memory with `values`; everything else is a copy.
 */
export function narrow(values: Float32Array, dtype: FloatDtype): Uint8Array {
  switch (dtype) {
    case 'F32':
      return bytesOf(values);
    case 'BF16':
      return bytesOf(narrowBfloat16(values));
    case 'F16':
      return bytesOf(narrowFloat16(values));
    case 'F64':
      return bytesOf(Float64Array.from(values));
  }
}

/** Typed arrays must start at a multiple of their element size; bytes in a file need not, so those are copied. */
function aligned(bytes: Uint8Array, elementBytes: number): Uint8Array {
  return bytes.byteOffset % elementBytes === 0 ? bytes : bytes.slice();
}

function bytesOf({buffer, byteOffset, byteLength}: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function widenBfloat16(halves: Uint16Array): Float32Array {
  const words = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) words[i] = (halves[i] as number) << 16;
  return new Float32Array(words.buffer);
}

function narrowBfloat16(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as number;
    const isNan = (word & 0x7fffffff) > 0x7f800000;
    // Half of the dropped range, plus one when the kept part is odd, carries exactly the values that round up.
    halves[i] = isNan ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return halves;
}

function widenFloat16(halves: Uint16Array): Float32Array {
  const words = new Uint32Array(halves.length);
  const values = new Float32Array(words.buffer);
  for (let i = 0; i < halves.length; i++) {
    const half = halves[i] as number;
    const sign = (half & 0x8000) << 16;
    const magnitude = half & 0x7fff;
    if (magnitude >= 0x7c00) words[i] = sign | 0x7f800000 | ((magnitude & 0x3ff) << 13);
    else if (magnitude >= 0x400) words[i] = sign | ((magnitude << 13) + 0x38000000);
    else values[i] = (sign === 0 ? magnitude : -magnitude) * 2 ** -24;
  }
  return values;
}

function narrowFloat16(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as number;
    halves[i] = ((word >>> 16) & 0x8000) | float16Magnitude(word & 0x7fffffff, Math.abs(values[i] as number));
  }
  return halves;
}

/** The lower 15 bits of a float16. `word` holds the float32 bits of the non-negative `value`. */
function float16Magnitude(word: number, value: number): number {
  if (word > 0x7f800000) return 0x7e00 | ((word >>> 13) & 0x3ff);
  if (word >= 0x477ff000) return 0x7c00; // 65520, halfway between the largest finite value and the next
  if (word >= 0x38800000) return (word - 0x38000000 + 0xfff + ((word >>> 13) & 1)) >>> 13;
  // Subnormal: one unit is 2^-24, which is also the spacing of float32 above 0.5, so rounding that sum rounds to units.
  return (Math.fround(value + 0.5) - 0.5) * 2 ** 24;
}

/** What configs of transformers call the dtypes. */
export const DTYPE_WORDS = {F64: 'float64', F32: 'float32', F16: 'float16', BF16: 'bfloat16'} as const;
