import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {type FloatDtype, firstNonFinite, isDtype, isFloatDtype, narrow, widen} from '../../src/format/dtype.js';

/** A small float format as its definition has it: sign, exponent, fraction. */
interface Layout {
  readonly exponentBits: number;
  readonly fractionBits: number;
}

const LAYOUT = {F16: {exponentBits: 5, fractionBits: 10}, BF16: {exponentBits: 8, fractionBits: 7}} as const;
const HALVES = ['F16', 'BF16'] as const;

describe.each(HALVES)('%s', (dtype) => {
  const layout = LAYOUT[dtype];
  const positive = Array.from({length: 0x8000}, (_, bits) => decode(bits, layout)).filter(Number.isFinite);

  it('widens every one of the 65536 patterns to the value its definition gives', () => {
    const patterns = Uint16Array.from({length: 0x10000}, (_, bits) => bits);
    const expected = Array.from(patterns, (bits) => decode(bits, layout));
    expect(Array.from(widen(new Uint8Array(patterns.buffer), dtype))).toEqual(expected);
  });

  it('finds exactly the patterns that are no finite number', () => {
    for (let bits = 0; bits < 0x10000; bits++) {
      const bytes = new Uint8Array(Uint16Array.of(0, bits).buffer);
      expect(firstNonFinite(bytes, dtype) === 1, `${bits}`).toBe(!Number.isFinite(decode(bits, layout)));
    }
  });

  it('narrows back every pattern it widened, NaN as some NaN of the same sign', () => {
    const patterns = Uint16Array.from({length: 0x10000}, (_, bits) => bits);
    const back = words(narrow(widen(new Uint8Array(patterns.buffer), dtype), dtype));
    const isNan = (bits: number): boolean => Number.isNaN(decode(bits, layout));
    const wrong = Array.from(patterns).filter((bits) =>
      isNan(bits) ? !isNan(back[bits]!) || back[bits]! >> 15 !== bits >> 15 : back[bits] !== bits,
    );
    expect(wrong).toEqual([]);
  });

  it('rounds any float32 to the nearest value, ties to the even pattern', () => {
    const number = fc.oneof(fc.float({noNaN: true}), nearHalfway(positive));
    fc.assert(
      fc.property(number, (value) => {
        const [bits] = words(narrow(Float32Array.of(value), dtype));
        expect(bits).toBe(nearestPattern(value, positive));
      }),
      {numRuns: 2000},
    );
  });

  it('makes infinity of what lies half a step or more beyond the largest value, and only of that', () => {
    const largest = positive.at(-1)!;
    const step = largest - positive.at(-2)!;
    const below = beforeFloat32(largest + step / 2);
    const rounded = widen(narrow(Float32Array.of(largest + step / 2, below, -Infinity), dtype), dtype);
    expect(Array.from(rounded)).toEqual([Infinity, largest, -Infinity]);
  });

  it('keeps a NaN whose payload lies only in the dropped bits from becoming infinite', () => {
    const nan = new Float32Array(Uint32Array.of(0x7f800001, 0xffffffff).buffer);
    expect(Array.from(widen(narrow(nan, dtype), dtype))).toEqual([Number.NaN, Number.NaN]);
  });

  it('keeps the sign of zero and of what rounds to zero', () => {
    const rounded = widen(narrow(Float32Array.of(-0, -1e-45), dtype), dtype);
    expect(Array.from(rounded).every((value) => Object.is(value, -0))).toBe(true);
  });
});

describe('widen', () => {
  it.each(['F64', 'F32', 'F16', 'BF16'] as const)('reads %s from bytes at an odd address', (dtype: FloatDtype) => {
    const values = [1.5, -0.25, 96];
    const bytes = narrow(Float32Array.from(values), dtype);
    const shifted = new Uint8Array(bytes.length + 1);
    shifted.set(bytes, 1);
    expect(Array.from(widen(shifted.subarray(1), dtype))).toEqual(values);
  });

  it('rounds F64 as a float32 cast does', () => {
    const values = Float64Array.of(1 / 3, 1e300, -1e-320, Number.NaN);
    const expected = Array.from(values, Math.fround);
    expect(Array.from(widen(new Uint8Array(values.buffer), 'F64'))).toEqual(expected);
  });
});

describe('narrow', () => {
  it('reads only its part of a larger array', () => {
    const part = Float32Array.of(9, 1, 2, 9).subarray(1, 3);
    for (const dtype of ['F64', 'F32', 'F16', 'BF16'] as const) {
      expect(Array.from(widen(narrow(part, dtype), dtype))).toEqual([1, 2]);
    }
  });
});

describe('isDtype', () => {
  it('knows the ten dtypes and no inherited word', () => {
    const known = ['F64', 'F32', 'F16', 'BF16', 'I64', 'I32', 'I16', 'I8', 'U8', 'BOOL'];
    expect([...known, 'F8_E4M3', 'toString', ''].filter(isDtype)).toEqual(known);
    expect(known.filter(isDtype).filter(isFloatDtype)).toEqual(['F64', 'F32', 'F16', 'BF16']);
  });
});

/** IEEE 754 interchange format, by the book. */
function decode(bits: number, {exponentBits, fractionBits}: Layout): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits & 0x7fff) >> fractionBits;
  const fraction = (bits & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === 2 ** exponentBits - 1) return fraction === 0 ? sign * Infinity : Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** (1 - bias) : sign * (1 + fraction) * 2 ** (exponent - bias);
}

/** By search in the sorted list of all finite values; one step beyond them stands infinity. */
function nearestPattern(value: number, positive: readonly number[]): number {
  const sign = Object.is(value, -0) || value < 0 ? 0x8000 : 0;
  const x = Math.abs(value);
  if (x === Infinity) return sign | positive.length;
  const ladder = (i: number): number => (i < positive.length ? positive[i]! : 2 * positive.at(-1)! - positive.at(-2)!);
  let low = 0;
  let high = positive.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (ladder(middle) <= x) low = middle;
    else high = middle;
  }
  if (x >= ladder(high)) return sign | high;
  const down = x - ladder(low);
  const up = ladder(high) - x;
  const isUp = up < down || (up === down && low % 2 === 1);
  return sign | (isUp ? high : low);
}

/** Values at, just below and just above the middle between two neighbours, where rounding goes wrong first. */
function nearHalfway(positive: readonly number[]): fc.Arbitrary<number> {
  return fc
    .tuple(fc.nat(positive.length - 2), fc.constantFrom(-1, 0, 1), fc.constantFrom(1, -1))
    .map(([i, side, sign]) => {
      const middle = (positive[i]! + positive[i + 1]!) / 2;
      const value = side < 0 ? beforeFloat32(middle) : side > 0 ? -beforeFloat32(-middle) : middle;
      return sign * Math.fround(value);
    });
}

/** The next float32 toward minus infinity, for a value other than zero. */
function beforeFloat32(value: number): number {
  const float = Float32Array.of(value);
  const bits = new Int32Array(float.buffer);
  bits[0]! += value > 0 ? -1 : 1;
  return float[0]!;
}

function words(bytes: Uint8Array): Uint16Array {
  return new Uint16Array(bytes.slice().buffer);
}

describe('firstNonFinite', () => {
  it.each(['F32', 'F64'] as const)('finds the first NaN or infinity of %s, wherever the bytes begin', (dtype) => {
    fc.assert(
      fc.property(fc.array(fc.double(), {maxLength: 20}), fc.nat(7), (values, offset) => {
        const bytes = new Uint8Array((dtype === 'F32' ? Float32Array : Float64Array).from(values).buffer);
        const moved = new Uint8Array(bytes.length + offset);
        moved.set(bytes, offset);
        const stored = dtype === 'F32' ? values.map(Math.fround) : values;
        const expected = stored.findIndex((value) => !Number.isFinite(value));
        expect(firstNonFinite(moved.subarray(offset), dtype)).toBe(expected);
      }),
    );
  });
});
