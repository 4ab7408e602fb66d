import {describe, expect, it} from 'vitest';
import {methodSchema, type SplitOptions} from '../../../src/downcycle/options.js';
import {type PlanInput, planConversion} from '../../../src/downcycle/partition/plan-conversion.js';
import {planHash, validatePlan} from '../../../src/downcycle/plan.js';
import {ConfigError, ModelError} from '../../../src/util/errors.js';
import {fixture, fixtureProfile} from '../golden.js';

const cut = {experts: 14, shared: 2, topK: 4};
const input = (method: object, change: Partial<PlanInput> = {}): PlanInput => ({
  method: methodSchema.parse(method) as SplitOptions,
  profiles: [fixtureProfile, fixtureProfile],
  cv: 'tasks',
  seed: 7,
  where: 'arms.a',
  ...change,
});
const methods = [
  {method: 'expertweaver', ...cut},
  {method: 'expertweaver', ...cut, topK: 8, allocation: 'adaptive'},
  {method: 'random', ...cut},
  {method: 'contiguous', ...cut},
];

describe('planConversion', () => {
  it.each(methods)('makes a valid plan of every layer, the same every time: %o', (method) => {
    const plan = planConversion(input(method));
    expect(() => validatePlan(plan)).not.toThrow();
    expect(plan).toMatchObject({method: method.method, numNeurons: 256});
    expect(plan.layers).toHaveLength(2);
    expect(plan.allocation).toHaveLength(2);
    expect(planHash(planConversion(input(method)))).toBe(planHash(plan));
  });

  it('gives another split for another seed', () => {
    for (const method of [methods[0]!, methods[2]!]) {
      expect(planHash(planConversion(input(method, {seed: 8})))).not.toBe(planHash(planConversion(input(method))));
    }
  });

  it('draws each layer from its own stream', () => {
    const [first, second] = planConversion(input(methods[2]!)).layers;
    expect(first).not.toEqual(second);
  });

  it('splits a layer alike whatever layers follow it', () => {
    const alone = planConversion(input(methods[0]!, {profiles: [fixtureProfile]}));
    expect(planConversion(input(methods[0]!)).layers[0]).toEqual(alone.layers[0]);
  });

  it('cuts an adaptive layer as its CVs ask for', () => {
    const plan = planConversion(input(methods[1]!));
    const {shared_experts: shared, r, alpha} = fixture.grid;
    expect(plan.layers[0]!.shared).toHaveLength(shared * 16);
    expect(plan.layers[0]!.experts).toHaveLength(16 - shared);
    expect(plan.layers[0]!.topK).toBe(10 - shared);
    expect(plan.allocation[0]).toEqual({specialisedShare: r, sharedRatio: alpha});
  });

  it('records r of a uniform cut, and none for the controls', () => {
    expect(planConversion(input(methods[0]!)).allocation[0]).toEqual({
      specialisedShare: fixture.grid.r,
      sharedRatio: 1 / 8,
    });
    expect(planConversion(input(methods[2]!)).allocation[0]).toEqual({specialisedShare: null, sharedRatio: 1 / 8});
  });

  it('refuses counts that do not divide the FFN', () => {
    const ask = () => planConversion(input({method: 'random', experts: 28, shared: 2, topK: 6}));
    expect(ask).toThrow(ConfigError);
    expect(ask).toThrow('arms.a: experts + shared (= 30) must divide the FFN width 256; nearest that do: 16 and 32.');
  });

  it('names the layer whose adaptive share uses up the active chunks', () => {
    const ask = () => planConversion(input({...methods[1]!, topK: 1}));
    expect(ask).toThrow(ConfigError);
    expect(ask).toThrow('arms.a, layer 0: adaptive allocation shares 5 of 16 chunks');
  });

  it('names the layer whose profile is not finite', () => {
    const gateMean_JF = fixtureProfile.gateMean_JF.slice();
    gateMean_JF[3] = Number.POSITIVE_INFINITY;
    const ask = () =>
      planConversion(input(methods[0]!, {profiles: [fixtureProfile, {...fixtureProfile, gateMean_JF}]}));
    expect(ask).toThrow(ModelError);
    expect(ask).toThrow('Profile of layer 1: neuron 3 is Infinity on sample 0');
  });
});
