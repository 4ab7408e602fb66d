import {describe, expect, it} from 'vitest';
import {dropNeurons} from '../../../src/downcycle/upcycle/drop.js';
import {moments} from '../../../src/downcycle/upcycle/neurons.js';
import {createRng} from '../../../src/util/rng.js';
import {changedNeurons, neuronsOf, normalMatrix} from './matrix.js';

const streams = (purpose: string) => createRng(1, purpose);
const SHAPES = {gate: [400, 200], up: [400, 200], down: [200, 400]} as const;

describe('dropNeurons', () => {
  it.each(['gate', 'up', 'down'] as const)('draws new weights of %s with mean and std of those it loses', (which) => {
    const [rows, columns] = SHAPES[which];
    const matrix = normalMatrix(rows, columns);
    const after = dropNeurons(matrix, which, 0.25, streams);
    const dropped = changedNeurons(matrix, after, which);
    expect(dropped).toHaveLength(100);
    const weightsOf = (bytes: Uint8Array): Float32Array => {
      const neurons = neuronsOf(matrix, bytes, which);
      return Float32Array.from(dropped.flatMap((f) => neurons[f]!));
    };
    const [lost, drawn] = [moments(weightsOf(matrix.bytes)), moments(weightsOf(after))];
    // 20,000 draws: four standard errors of a mean and of a standard deviation
    expect(Math.abs(drawn.mean - lost.mean)).toBeLessThan((4 * lost.std) / Math.sqrt(20_000));
    expect(Math.abs(drawn.std - lost.std)).toBeLessThan((4 * lost.std) / Math.sqrt(40_000));
  });

  it('drops the same neurons from all three matrices', () => {
    const dropped = (['gate', 'up', 'down'] as const).map((which) => {
      const [rows, columns] = SHAPES[which];
      const matrix = normalMatrix(rows, columns);
      return changedNeurons(matrix, dropNeurons(matrix, which, 0.5, streams), which);
    });
    expect(dropped[1]).toEqual(dropped[0]);
    expect(dropped[2]).toEqual(dropped[0]);
  });

  it('draws each matrix from a stream of its own', () => {
    const matrix = normalMatrix(8, 8);
    expect(dropNeurons(matrix, 'gate', 1, streams)).not.toEqual(dropNeurons(matrix, 'up', 1, streams));
  });

  it('reads statistics of the lost weights only', () => {
    const matrix = {...normalMatrix(8, 1), bytes: new Uint8Array(Float32Array.of(5, 5, 5, 5, 5, 5, 5, 5).buffer)};
    expect(changedNeurons(matrix, dropNeurons(matrix, 'gate', 0.5, streams), 'gate')).toEqual([]);
  });
});
