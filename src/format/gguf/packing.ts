// How GGUF files pack the numbers of tensors: plainly, or in blocks of small integers with a scale.
import {type FloatDtype, widen} from '../dtype.js';

/** One way to store numbers, by the name that llama.cpp has for it. */
export interface Packing {
  readonly type: string;
  /** Numbers of a block, which lie one after the other in a row. */
  readonly blockSize: number;
  readonly blockBytes: number;
  /** What its numbers are once they are read: as they stand, or float32 of blocks. */
  readonly dtype: FloatDtype;
  /** Fills in the numbers of whole blocks; null where they stand as they are. */
  readonly unpack: ((blocks: Uint8Array, values: Float32Array) => void) | null;
}

/** Numbers of a block of every kind that is read. */
const BLOCK = 32;

/** The packings that are read, by their number in files. */
export const PACKINGS: ReadonlyMap<number, Packing> = new Map([
  [0, plain('F32', 4)],
  [1, plain('F16', 2)],
  [30, plain('BF16', 2)],
  [2, blocks('Q4_0', 18, unpackQ40)],
  [3, blocks('Q4_1', 20, unpackQ41)],
  [8, blocks('Q8_0', 34, unpackQ80)],
]);

/** Names of all packings that llama.cpp has had, so that one that is not read can be told by name. */
const NAMES: Readonly<Record<number, string>> = {
  6: 'Q5_0',
  7: 'Q5_1',
  9: 'Q8_1',
  10: 'Q2_K',
  11: 'Q3_K',
  12: 'Q4_K',
  13: 'Q5_K',
  14: 'Q6_K',
  15: 'Q8_K',
  16: 'IQ2_XXS',
  17: 'IQ2_XS',
  18: 'IQ3_XXS',
  19: 'IQ1_S',
  20: 'IQ4_NL',
  21: 'IQ3_S',
  22: 'IQ2_S',
  23: 'IQ4_XS',
  24: 'I8',
  25: 'I16',
  26: 'I32',
  27: 'I64',
  28: 'F64',
  29: 'IQ1_M',
  34: 'TQ1_0',
  35: 'TQ2_0',
  39: 'MXFP4',
};

/** What to call a packing that is not read. */
export function packingName(code: number): string {
  return NAMES[code] ?? `of type ${code}`;
}

function plain(type: 'F32' | 'F16' | 'BF16', bytes: number): Packing {
  return {type, blockSize: 1, blockBytes: bytes, dtype: type, unpack: null};
}

function blocks(type: string, blockBytes: number, unpack: NonNullable<Packing['unpack']>): Packing {
  return {type, blockSize: BLOCK, blockBytes, dtype: 'F32', unpack};
}

/** `d · (q - 8)`: a float16 d, and q of 4 bits, the first half of a block in the lower ones. */
function unpackQ40(bytes: Uint8Array, values: Float32Array): void {
  const scales = halvesAt(bytes, 18, 0);
  for (let block = 0, at = 2; block < scales.length; block++, at += 18) {
    const scale = scales[block] as number;
    const first = block * BLOCK;
    for (let i = 0; i < 16; i++) {
      const pair = bytes[at + i] as number;
      values[first + i] = scale * ((pair & 15) - 8);
      values[first + i + 16] = scale * ((pair >>> 4) - 8);
    }
  }
}

/** `d · q + m`: float16 d and m, and q of 4 bits. The product is exact, so that a sum is rounded once, as in float32. */
function unpackQ41(bytes: Uint8Array, values: Float32Array): void {
  const [scales, offsets] = [halvesAt(bytes, 20, 0), halvesAt(bytes, 20, 2)];
  for (let block = 0, at = 4; block < scales.length; block++, at += 20) {
    const [scale, offset] = [scales[block] as number, offsets[block] as number];
    const first = block * BLOCK;
    for (let i = 0; i < 16; i++) {
      const pair = bytes[at + i] as number;
      values[first + i] = scale * (pair & 15) + offset;
      values[first + i + 16] = scale * (pair >>> 4) + offset;
    }
  }
}

/** `d · q`: a float16 d, and signed q of 8 bits. */
function unpackQ80(bytes: Uint8Array, values: Float32Array): void {
  const scales = halvesAt(bytes, 34, 0);
  for (let block = 0, at = 2; block < scales.length; block++, at += 34) {
    const scale = scales[block] as number;
    const first = block * BLOCK;
    for (let i = 0; i < BLOCK; i++) values[first + i] = scale * (((bytes[at + i] as number) << 24) >> 24);
  }
}

/** The float16 number at `offset` of each block of `stride` bytes. */
function halvesAt(bytes: Uint8Array, stride: number, offset: number): Float32Array {
  const halves = new Uint8Array((bytes.length / stride) * 2);
  for (let from = offset, to = 0; to < halves.length; from += stride, to += 2) {
    halves[to] = bytes[from] as number;
    halves[to + 1] = bytes[from + 1] as number;
  }
  return widen(halves, 'F16');
}
