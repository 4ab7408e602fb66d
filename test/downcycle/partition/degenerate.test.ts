// Activations of which little or nothing can be told: every method still gives a whole plan, the same each time.
import {describe, expect, it} from 'vitest';
import {planConversion} from '../../../src/downcycle/partition/plan-conversion.js';
import {type ConversionPlan, neuronMaps, SHARED} from '../../../src/downcycle/plan.js';
import {cvRows, type LayerProfile, neuronCv} from '../../../src/downcycle/statistics.js';
import {ConfigError} from '../../../src/util/errors.js';
import {createRng} from '../../../src/util/rng.js';
import {splitOptions} from '../split-options.js';

const F = 24;
const D = 5;
const TASKS = [0, 0, 1, 1, 2, 2];
const COUNTS = {experts: 6, shared: 2, topK: 2};
const METHODS = [
  {method: 'expertweaver'},
  {method: 'expertweaver', sharedBy: 'low-cv', assignment: 'greedy', standardise: false},
  {method: 'expertweaver', allocation: 'sensitivity'},
  {method: 'cmoe'},
  {method: 'weave', repair: 'none'},
  {method: 'moefication'},
  {method: 'llama-moe', split: 'k-means'},
  {method: 'llama-moe', split: 'co-activation'},
  {method: 'llama-moe', split: 'importance'},
  {method: 'all-shared', keepBy: 'variance'},
];

/** A layer whose every number comes from `value` for its neuron. */
function layerOf(value: (neuron: number) => number, markers: readonly number[], taskOfSample_J = TASKS): LayerProfile {
  const perNeuron = Float32Array.from({length: F}, (_, i) => value(i));
  const rows = (count: number): Float32Array => Float32Array.from({length: count * F}, (_, at) => value(at % F));
  return {
    numNeurons: F,
    taskOfSample_J,
    gateMean_JF: rows(taskOfSample_J.length),
    gateMagnitude_F: perNeuron,
    hMean_JF: rows(taskOfSample_J.length),
    hSquare_JF: rows(taskOfSample_J.length).map((mean) => 2 * mean * mean),
    hMagnitude_F: perNeuron,
    marker_NM: Int32Array.from(Array.from({length: 12}, () => markers).flat()),
    numMarkers: markers.length,
    downNorm_F: perNeuron,
    predicted: {
      numColumns: 3,
      read: () => Promise.resolve(Float32Array.from({length: F * 3}, (_, at) => value(Math.floor(at / 3)))),
    },
    gradients: {importance_F: perNeuron, sensitivity_F: perNeuron},
  };
}

function plan(
  method: object,
  profile: LayerProfile,
  gate: (neuron: number) => number = () => 0,
): Promise<ConversionPlan> {
  const gate_FD = Float32Array.from({length: F * D}, (_, at) => gate(Math.floor(at / D)));
  return planConversion({
    ...{method: splitOptions({...COUNTS, ...method}), profiles: [profile, profile], cv: 'tasks', seed: 1, where: 'x'},
    gateRows: () => Promise.resolve(gate_FD),
  });
}

describe.each(METHODS)('%o', (method) => {
  it.each([0, 0.5, -2])('splits neurons that are all %f alike, the same way each time', async (value) => {
    const profile = layerOf(() => value, [0, 1, 2]);
    const [one, other] = [await plan(method, profile, () => value), await plan(method, profile, () => value)];
    expect(one).toEqual(other); // validated when it was made
    expect(one.layers.map(({shared}) => shared.length).every((count) => count > 0)).toBe(true);
  });

  it('sends dead neurons to routed experts, or leaves them out', async () => {
    const dead = [1, 2, 9, 17, 23];
    const rng = createRng(2, 'alive');
    const value_F = Array.from({length: F}, (_, i) => (dead.includes(i) ? 0 : 1 + rng.uniform()));
    const alive = layerOf((i) => value_F[i]!, [0, 3, 4, 5, 6, 7, 8]);
    const spread = alive.gateMean_JF.map((value, at) => value * (1 + 0.1 * Math.floor(at / F)));
    const found = await plan(method, {...alive, gateMean_JF: spread}, (i) => value_F[i]!);
    for (const map of neuronMaps(found)) expect(dead.map((id) => map[id])).not.toContain(SHARED);
    for (const {shared} of found.layers) expect(shared.length).toBeGreaterThan(0);
  });
});

it('a dead neuron is specialised, not universal, and no number of it is NaN', () => {
  const profile = layerOf((i) => (i === 3 ? 0 : 1), [0]);
  const cv_F = neuronCv(profile, 'tasks');
  expect(cv_F[3]).toBe(Number.POSITIVE_INFINITY);
  expect(cv_F.filter((_, i) => i !== 3)).toEqual(new Float64Array(F - 1));
});

describe('one task alone', () => {
  const profile = layerOf((i) => i + 1, [0, 1], [0, 0, 0]);

  it.each([{sharedBy: 'low-cv'}, {allocation: 'adaptive'}])('is nothing that %o could compare', async (words) => {
    expect(cvRows(profile, 'tasks')).toBe(1);
    const refused = plan({method: 'expertweaver', ...words}, profile);
    await expect(refused).rejects.toThrow(ConfigError);
    await expect(refused).rejects.toThrow(
      expect.objectContaining({
        message:
          'x: allocation adaptive and sharedBy low-cv ask how neurons differ from task to task, but the profile has one task.',
        hint: 'Give more sources, take tasks from a field with profile.task, or set profile.cv to samples; then profile again.',
      }),
    );
  });

  it('can be compared by its samples, unless there is one only', async () => {
    const bySamples = (one: LayerProfile) =>
      planConversion({
        method: splitOptions({method: 'expertweaver', ...COUNTS, sharedBy: 'low-cv'}),
        ...{profiles: [one], cv: 'samples', seed: 1, where: 'x', gateRows: () => Promise.reject(new Error('asked'))},
      });
    expect((await bySamples(profile)).layers).toHaveLength(1);
    await expect(bySamples(layerOf((i) => i + 1, [0, 1], [0]))).rejects.toThrow(
      'ask how neurons differ from sample to sample, but the profile has one sample.',
    );
  });

  it('is enough where nothing is compared, and no share of specialised neurons is recorded', async () => {
    const {allocation} = await plan({method: 'expertweaver'}, profile);
    expect(allocation.map(({specialisedShare}) => specialisedShare)).toEqual([null, null]);
  });
});
