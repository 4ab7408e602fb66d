import {describe, expect, it} from 'vitest';
import {methodSchema, type SplitOptions} from '../../../src/downcycle/options.js';
import {type PlanInput, planConversion, profileNeeds} from '../../../src/downcycle/partition/plan-conversion.js';
import {planHash, validatePlan} from '../../../src/downcycle/plan.js';
import {unwatched} from '../../../src/downcycle/statistics.js';
import {ConfigError, ModelError} from '../../../src/util/errors.js';
import {fixture, fixtureProfile} from '../golden.js';

const cut = {experts: 14, shared: 2, topK: 4};
const input = (method: object, change: Partial<PlanInput> = {}): PlanInput => ({
  method: methodSchema.parse(method) as SplitOptions,
  profiles: [fixtureProfile, fixtureProfile],
  gateRows: () => Promise.reject(new Error('nobody asks for weights')),
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
  {method: 'llama-moe', ...cut, split: 'random'},
  {method: 'llama-moe', ...cut, split: 'contiguous'},
];

describe('planConversion', () => {
  it.each(methods)('makes a valid plan of every layer, the same every time: %o', async (method) => {
    const plan = await planConversion(input(method));
    expect(() => validatePlan(plan)).not.toThrow();
    expect(plan).toMatchObject({method: method.method, numNeurons: 256});
    expect(plan.layers).toHaveLength(2);
    expect(plan.allocation).toHaveLength(2);
    expect(planHash(await planConversion(input(method)))).toBe(planHash(plan));
  });

  it('gives another split for another seed', async () => {
    for (const method of [methods[0]!, methods[2]!]) {
      const [one, other] = [await planConversion(input(method)), await planConversion(input(method, {seed: 8}))];
      expect(planHash(other)).not.toBe(planHash(one));
    }
  });

  it('draws each layer from its own stream', async () => {
    const [first, second] = (await planConversion(input(methods[2]!))).layers;
    expect(first).not.toEqual(second);
  });

  it('splits a layer alike whatever layers follow it', async () => {
    const alone = await planConversion(input(methods[0]!, {profiles: [fixtureProfile]}));
    expect((await planConversion(input(methods[0]!))).layers[0]).toEqual(alone.layers[0]);
  });

  it('splits at random and in order as the controls do', async () => {
    for (const split of ['random', 'contiguous'] as const) {
      const control = await planConversion(input({method: split, ...cut}));
      expect((await planConversion(input({method: 'llama-moe', ...cut, split}))).layers).toEqual(control.layers);
    }
  });

  it.each([
    {method: 'moefication', ...cut, shared: 0, experts: 16},
    {method: 'llama-moe', ...cut, shared: 0, experts: 16, split: 'k-means'},
  ])('asks for the gate rows of one layer after the other, and for no profile: %o', async (method) => {
    const asked: number[] = [];
    let isReading = false;
    const gateRows = async (layer: number): Promise<Float32Array> => {
      expect(isReading).toBe(false);
      isReading = true;
      asked.push(layer);
      await Promise.resolve();
      isReading = false;
      return Float32Array.from({length: 256 * 3}, (_, i) => Math.sin(i + layer));
    };
    const plan = await planConversion(input(method, {profiles: [unwatched(256), unwatched(256)], gateRows}));
    expect(asked).toEqual([0, 1]);
    expect(plan.layers.map(({experts}) => experts.length)).toEqual([16, 16]);
    expect(profileNeeds(input(method).method)).toEqual({profile: false, predictors: false, gradients: false});
  });

  it.each([
    [
      {method: 'moefication', ...cut},
      {profile: true, predictors: false, gradients: false},
    ],
    [
      {method: 'llama-moe', ...cut},
      {profile: false, predictors: false, gradients: false},
    ],
    [
      {method: 'llama-moe', ...cut, split: 'k-means'},
      {profile: true, predictors: false, gradients: false},
    ],
    [
      {method: 'llama-moe', ...cut, split: 'co-activation'},
      {profile: true, predictors: false, gradients: false},
    ],
    [
      {method: 'llama-moe', ...cut, split: 'importance'},
      {profile: true, predictors: false, gradients: true},
    ],
    [
      {method: 'llama-moe', ...cut, router: 'representative'},
      {profile: true, predictors: false, gradients: false},
    ],
    [
      {method: 'llama-moe', ...cut, allocation: 'sensitivity'},
      {profile: true, predictors: false, gradients: true},
    ],
    [
      {method: 'weave', ...cut},
      {profile: true, predictors: true, gradients: true},
    ],
  ])('knows what the profile of %o must hold', (method, needs) => {
    expect(profileNeeds(input(method).method)).toEqual(needs);
  });

  it.each([
    [{method: 'llama-moe', ...cut, split: 'importance'}, 'gradients'],
    [{method: 'all-shared', ...cut, keepBy: 'sensitivity'}, 'gradients'],
    [{method: 'weave', ...cut, allocation: 'uniform'}, 'predictors'],
  ])('refuses a profile that lacks what %o looks at', async (method, key) => {
    const asked = planConversion(input(method));
    await expect(asked).rejects.toThrow(ConfigError);
    await expect(asked).rejects.toThrow(`arms.a: method ${method.method} needs a profile with ${key}.`);
  });

  it('cuts an adaptive layer as its CVs ask for', async () => {
    const plan = await planConversion(input(methods[1]!));
    const {shared_experts: shared, r, alpha} = fixture.grid;
    expect(plan.layers[0]!.shared).toHaveLength(shared * 16);
    expect(plan.layers[0]!.experts).toHaveLength(16 - shared);
    expect(plan.layers[0]!.topK).toBe(10 - shared);
    expect(plan.allocation[0]).toEqual({specialisedShare: r, sharedRatio: alpha});
  });

  it('records r of a uniform cut, and none for the controls', async () => {
    expect((await planConversion(input(methods[0]!))).allocation[0]).toEqual({
      specialisedShare: fixture.grid.r,
      sharedRatio: 1 / 8,
    });
    expect((await planConversion(input(methods[2]!))).allocation[0]).toEqual({
      specialisedShare: null,
      sharedRatio: 1 / 8,
    });
  });

  it('refuses counts that do not divide the FFN', async () => {
    const asked = planConversion(input({method: 'random', experts: 28, shared: 2, topK: 6}));
    await expect(asked).rejects.toThrow(ConfigError);
    await expect(asked).rejects.toThrow(
      'arms.a: experts + shared (= 30) must divide the FFN width 256; nearest that do: 16 and 32.',
    );
  });

  it('names the layer whose adaptive share uses up the active chunks', async () => {
    const asked = planConversion(input({...methods[1]!, topK: 1}));
    await expect(asked).rejects.toThrow(ConfigError);
    await expect(asked).rejects.toThrow('arms.a, layer 0: adaptive allocation shares 5 of 16 chunks');
  });

  it('names the layer whose profile is not finite', async () => {
    const gateMean_JF = fixtureProfile.gateMean_JF.slice();
    gateMean_JF[3] = Number.POSITIVE_INFINITY;
    const asked = planConversion(input(methods[0]!, {profiles: [fixtureProfile, {...fixtureProfile, gateMean_JF}]}));
    await expect(asked).rejects.toThrow(ModelError);
    await expect(asked).rejects.toThrow('Profile of layer 1: neuron 3 is Infinity on sample 0');
  });
});
