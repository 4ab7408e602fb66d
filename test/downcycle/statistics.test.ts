import {describe, expect, it} from 'vitest';
import {
  checkProfile,
  coefficientOfVariation,
  columnMeans,
  type LayerProfile,
  meanMagnitude,
  neuronCv,
  rankAscending,
  taskMeans,
  unwatched,
} from '../../src/downcycle/statistics.js';
import {DataError, ModelError} from '../../src/util/errors.js';
import {fixture, fixtureProfile, fixtureTensors, groupedProfile} from './golden.js';

const small: LayerProfile = {
  ...unwatched(2),
  gateMean_JF: new Float32Array([1, -4, 3, 0, 5, -2]),
  taskOfSample_J: [0, 1, 0],
};

describe('statistics', () => {
  it('takes the mean of each task over its own samples, however many they are and in any order', () => {
    expect(taskMeans(small)).toBeAllClose([(1 + 5) / 2, (-4 - 2) / 2, 3, 0]);
  });

  it('keeps the sign in means and drops it in magnitudes', () => {
    expect(columnMeans(small.gateMean_JF, 2)).toBeAllClose([3, -2]);
    expect(meanMagnitude(small)).toBeAllClose([3, 2]);
  });

  it('divides the variance by R - ddof', () => {
    const rows = new Float64Array([1, 3, 5]);
    expect(coefficientOfVariation(rows, 1)).toBeAllClose([Math.sqrt(8 / 3) / 3]);
    expect(coefficientOfVariation(rows, 1, 1)).toBeAllClose([2 / 3]);
  });

  it('gives a neuron that never changes CV 0, also when it is always 0', () => {
    expect(Array.from(coefficientOfVariation(new Float64Array([2, 0, 2, 0]), 2))).toEqual([0, 0]);
  });

  it('gives the CV of PyTorch over tasks', () => {
    expectCv(neuronCv(fixtureProfile, 'tasks'), fixture.cvOverTasks);
  });

  it('gives the CV of PyTorch over samples', () => {
    expectCv(neuronCv(fixtureProfile, 'samples'), fixture.cvOverSamples);
  });

  it('does not change with the scale or sign of a neuron', () => {
    const scaled = groupedProfile(
      fixtureTensors.gate_mean!.map((x) => -8 * x),
      256,
      4,
    );
    expect(neuronCv(scaled, 'tasks')).toBeAllClose(neuronCv(fixtureProfile, 'tasks'), {rtol: 1e-4});
  });

  it('ranks the lower id first among equals', () => {
    expect(Array.from(rankAscending(new Float64Array([2, 1, 2, 0, 1])))).toEqual([3, 1, 4, 0, 2]);
  });
});

describe('checkProfile', () => {
  it('accepts a profile that arithmetic can be done on', () => {
    expect(() => checkProfile(small, 0)).not.toThrow();
  });

  it('names the layer, neuron and sample of the first activation that is not finite', () => {
    const bad = {...small, gateMean_JF: new Float32Array([1, 2, 3, Number.NaN, 5, 6])};
    expect(() => checkProfile(bad, 7)).toThrow(ModelError);
    expect(() => checkProfile(bad, 7)).toThrow('layer 7: neuron 1 is NaN on sample 1');
  });

  it('refuses sizes that do not fit', () => {
    const bad = {...small, numNeurons: 4};
    expect(() => checkProfile(bad, 0)).toThrow(DataError);
    expect(() => checkProfile(bad, 0)).toThrow('6 activations do not make 3 samples of 4 neurons');
  });

  it('refuses a profile without samples', () => {
    const empty = unwatched(4);
    expect(() => checkProfile(empty, 0)).toThrow(DataError);
  });

  it('names a task without samples', () => {
    expect(() => checkProfile({...small, taskOfSample_J: [0, 2, 0]}, 0)).toThrow('task 1 of 3 has no sample');
  });
});

/** CVs above 10 belong to means near 0 and have few correct digits. */
function expectCv(received_F: Float64Array, expected_F: number[]): void {
  const ids = expected_F.flatMap((cv, i) => (cv < 10 ? [i] : []));
  expect(ids.length).toBeGreaterThan(expected_F.length / 2);
  expect(ids.map((i) => received_F[i]!)).toBeAllClose(
    ids.map((i) => expected_F[i]!),
    {rtol: 1e-4, atol: 0},
  );
}
