import {describe, expect, it} from 'vitest';
import {moments} from '../../../src/downcycle/upcycle/neurons.js';
import {addNoise} from '../../../src/downcycle/upcycle/noise.js';
import {widen} from '../../../src/format/dtype.js';
import {createRng} from '../../../src/util/rng.js';
import {changedNeurons, normalMatrix} from './matrix.js';

const streams = (purpose: string) => createRng(1, purpose);

describe('addNoise', () => {
  it('adds noise of a share of the standard deviation of the matrix', () => {
    const matrix = normalMatrix(200, 100);
    const before = widen(matrix.bytes, 'F32');
    const after = widen(addNoise(matrix, 'gate', {noise: 0.05, ratio: 1}, streams), 'F32');
    const {mean, std} = moments(after.map((weight, i) => weight - before[i]!));
    const expected = 0.05 * moments(before).std;
    expect(Math.abs(std - expected)).toBeLessThan((4 * expected) / Math.sqrt(40_000));
    expect(Math.abs(mean)).toBeLessThan((4 * expected) / Math.sqrt(20_000));
  });

  it.each([
    ['gate', 1, 40],
    ['down', 0.5, 20],
    ['up', 0.1, 4],
  ] as const)('adds it to whole neurons of %s, the share %f of them', (which, ratio, count) => {
    const matrix = normalMatrix(40, 40);
    expect(changedNeurons(matrix, addNoise(matrix, which, {noise: 0.05, ratio}, streams), which)).toHaveLength(count);
  });

  it('of zero keeps every bit, the sign of zero too', () => {
    const matrix = {...normalMatrix(2, 1), bytes: new Uint8Array(Float32Array.of(-0, 1).buffer)};
    expect(addNoise(matrix, 'gate', {noise: 0, ratio: 1}, streams)).toEqual(matrix.bytes);
  });
});
