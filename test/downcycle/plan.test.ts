import {createHash} from 'node:crypto';
import {describe, expect, it} from 'vitest';
import {
  type ConversionPlan,
  type LayerPlan,
  neuronMap,
  planHash,
  SHARED,
  validatePlan,
} from '../../src/downcycle/plan.js';
import {ModelError} from '../../src/util/errors.js';

const layer: LayerPlan = {
  shared: Int32Array.of(0, 5),
  experts: [Int32Array.of(1, 4), Int32Array.of(2, 3)],
  topK: 1,
};
const plan = (...layers: LayerPlan[]): ConversionPlan => ({
  method: 'random',
  numNeurons: 6,
  padding: 0,
  layers,
  allocation: layers.map(() => ({specialisedShare: null, sharedRatio: 1 / 3})),
});

describe('neuronMap', () => {
  it('names the expert of every neuron', () => {
    expect(Array.from(neuronMap(layer, 6, 0))).toEqual([SHARED, 0, 1, 1, 0, SHARED]);
  });
});

describe('validatePlan', () => {
  it('accepts a plan that holds every neuron once', () => {
    expect(() => validatePlan(plan(layer, {...layer, shared: Int32Array.of(0, 5)}))).not.toThrow();
  });

  const broken: [string, Partial<LayerPlan>, string][] = [
    ['a missing neuron', {shared: Int32Array.of(0)}, 'neuron 5 belongs to no expert'],
    ['a neuron listed twice', {shared: Int32Array.of(0, 3, 5)}, 'neuron 3 is listed twice'],
    ['a neuron outside the FFN', {shared: Int32Array.of(0, 5, 6)}, 'neuron 6 is outside the FFN of 6'],
    ['a negative id', {shared: Int32Array.of(-1, 0, 5)}, 'neuron -1 is outside the FFN of 6'],
    ['ids out of order', {shared: Int32Array.of(5, 0)}, 'the shared expert lists its neurons out of order'],
    [
      'experts of different width',
      {experts: [Int32Array.of(1, 2, 4), Int32Array.of(3)]},
      'expert 1 has 1 neurons, expert 0 has 3',
    ],
    ['no active expert', {topK: 0}, 'topK (0) must be from 1 to the number of routed experts (2)'],
    ['more active experts than there are', {topK: 3}, 'topK (3) must be from 1'],
  ];
  it.each(broken)('refuses %s and names the layer', (_, change, message) => {
    const bad = plan(layer, {...layer, ...change});
    expect(() => validatePlan(bad)).toThrow(ModelError);
    expect(() => validatePlan(bad)).toThrow(`Conversion plan, layer 1: ${message}`);
  });
});

describe('planHash', () => {
  it('is the SHA-256 of width, number of experts and map as little-endian int32', () => {
    const words = Int32Array.of(6, 2, -1, 0, 1, 1, 0, -1);
    expect(planHash(plan(layer))).toBe(createHash('sha256').update(new Uint8Array(words.buffer)).digest('hex'));
  });

  it('changes when two neurons change places', () => {
    const swapped = {...layer, experts: [Int32Array.of(2, 4), Int32Array.of(1, 3)]};
    expect(planHash(plan(swapped))).not.toBe(planHash(plan(layer)));
  });

  it('changes when layers change places', () => {
    const other = {...layer, experts: [...layer.experts].reverse()};
    expect(planHash(plan(layer, other))).not.toBe(planHash(plan(other, layer)));
  });
});
