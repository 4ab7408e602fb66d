import {numElements} from '../../../util/shape.js';
import * as tf from '../../tfjs.js';
import type {WasmKernel} from './register.js';

/** Philox-4x32-10 (Salmon et al. 2011) from counter 0: the low 23 bits of each word as a number in [0, 1). */
export const randomUniform: WasmKernel = ({seed}, attrs) => {
  if (!seed) throw new Error('random numbers need a seed');
  const {shape} = attrs as {shape: number[]};
  const [low = 0, high = 0] = seed.dataSync();
  const size = numElements(shape);
  const values = new Float32Array(size);
  for (let block = 0; block * 4 < size; block++) {
    const words = philox([block, 0, 0, 0], [low >>> 0, high >>> 0]);
    for (let i = 0; i < 4 && block * 4 + i < size; i++) values[block * 4 + i] = ((words[i] ?? 0) & 0x7fffff) * 2 ** -23;
  }
  return tf.tensor(values, shape);
};

type Words4 = [number, number, number, number];

function philox(counter: Words4, [k0, k1]: [number, number]): Words4 {
  let [c0, c1, c2, c3] = counter;
  let key0 = k0;
  let key1 = k1;
  for (let round = 0; round < 10; round++) {
    const [hi0, lo0] = multiply(0xd2511f53, c0);
    const [hi1, lo1] = multiply(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(hi1 ^ c1 ^ key0) >>> 0, lo1, (hi0 ^ c3 ^ key1) >>> 0, lo0];
    key0 = (key0 + 0x9e3779b9) >>> 0;
    key1 = (key1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** High and low word of a 32 x 32 bit product. */
function multiply(a: number, b: number): [number, number] {
  const product = BigInt(a) * BigInt(b);
  return [Number(product >> 32n), Number(product & 0xffffffffn)];
}
