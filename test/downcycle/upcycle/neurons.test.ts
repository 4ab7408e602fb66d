import {describe, expect, it} from 'vitest';
import {drawNeurons, moments, renewNeurons} from '../../../src/downcycle/upcycle/neurons.js';
import {createRng} from '../../../src/util/rng.js';
import {changedNeurons, neuronsOf, normalMatrix} from './matrix.js';

const streams = (purpose: string) => createRng(1, purpose);

describe('drawNeurons', () => {
  it.each([
    [24, 0.5, 12],
    [25, 0.5, 12],
    [100, 0.29, 29],
    [24, 0, 0],
    [24, 0.04, 0],
    [24, 1, 24],
  ])('of %i draws the share %f: %i', (numNeurons, ratio, count) => {
    const neurons = [...drawNeurons(numNeurons, ratio, createRng(1, 'x'))];
    expect(new Set(neurons).size).toBe(count);
    expect(neurons).toEqual(neurons.toSorted((a, b) => a - b));
    expect(neurons.every((id) => id >= 0 && id < numNeurons)).toBe(true);
  });

  it('draws every neuron equally often', () => {
    const times = new Float64Array(8);
    for (let draw = 0; draw < 2000; draw++) {
      for (const id of drawNeurons(8, 0.5, createRng(draw, 'x'))) times[id]!++;
    }
    for (const count of times) expect(Math.abs(count - 1000)).toBeLessThan(5 * Math.sqrt(500));
  });
});

describe('renewNeurons', () => {
  for (const dtype of ['F32', 'BF16', 'F16', 'F64'] as const) {
    it.each(['gate', 'up', 'down'] as const)(
      `changes whole neurons of %s and keeps all other bits, in ${dtype}`,
      (which) => {
        const matrix = which === 'down' ? normalMatrix(5, 12, dtype) : normalMatrix(12, 5, dtype);
        const before = new Uint8Array(matrix.bytes);
        const after = renewNeurons(matrix, which, {ratio: 0.5, streams}, (values) => values.map(() => 2));
        const chosen = drawNeurons(12, 0.5, streams('neurons'));
        expect(matrix.bytes).toEqual(before);
        expect(changedNeurons(matrix, after, which)).toEqual([...chosen]);
        for (const f of chosen) expect(neuronsOf(matrix, after, which)[f]).toEqual([2, 2, 2, 2, 2]);
      },
    );
  }
});

describe('moments', () => {
  it('are mean and standard deviation of the population', () => {
    expect(moments(Float32Array.of(1, 2, 3, 4))).toEqual({mean: 2.5, std: Math.sqrt(1.25)});
    expect(moments(Float32Array.of(-7))).toEqual({mean: -7, std: 0});
  });
});
