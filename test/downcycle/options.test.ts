import {describe, expect, it} from 'vitest';
import {z} from 'zod';
import {methodSchema} from '../../src/downcycle/options.js';
import {profileSchema} from '../../src/downcycle/profile-options.js';

const issuesOf = (input: unknown): {path: string; message: string}[] => {
  const result = methodSchema.safeParse(input);
  return (result.error?.issues ?? []).map(({path, message}) => ({path: path.join('.'), message}));
};
const cut = {experts: 30, shared: 2, topK: 6};
const CHECKED = ['expertweaver', 'random', 'contiguous', 'moefication', 'llama-moe', 'sparse-upcycle'];

describe('methodSchema', () => {
  it('fills in the defaults of ExpertWeaver', () => {
    expect(methodSchema.parse({method: 'expertweaver', experts: 30, topK: 6})).toEqual({
      method: 'expertweaver',
      experts: 30,
      shared: 0,
      topK: 6,
      pad: false,
      sharedBy: 'mean-abs',
      assignment: 'optimal',
      standardise: true,
      outputScale: 'none',
      allocation: 'uniform',
      router: 'gate-mean',
      weights: 'score',
      regroup: 0,
      repair: 'none',
      repairWeight: 0.5,
    });
  });

  it('fits what weave fits, and scores as CMoE does, unless said otherwise', () => {
    expect(methodSchema.parse({method: 'weave', ...cut})).toMatchObject({
      ...{router: 'ridge', weights: 'one', repair: 'refit', allocation: 'sensitivity', regroup: 3},
    });
    expect(methodSchema.parse({method: 'cmoe', ...cut})).toMatchObject({
      ...{router: 'representative', weights: 'one', repair: 'none', allocation: 'uniform'},
    });
  });

  it('makes MoEfication and LLaMA-MoE ready for use without training', () => {
    const common = {
      pad: false,
      router: 'gate-mean',
      weights: 'one',
      outputScale: 'none',
      regroup: 0,
      repair: 'none',
      allocation: 'uniform',
    };
    expect(methodSchema.parse({method: 'moefication', ...cut})).toEqual({
      ...{method: 'moefication', ...cut, ...common, repairWeight: 0.5},
    });
    expect(methodSchema.parse({method: 'llama-moe', ...cut})).toEqual({
      ...{method: 'llama-moe', ...cut, ...common, repairWeight: 0.5, split: 'random'},
    });
  });

  it('says which ways of LLaMA-MoE there are', () => {
    const [issue] = issuesOf({method: 'llama-moe', ...cut, split: 'clustering'});
    expect(issue?.path).toBe('split');
    for (const split of ['random', 'contiguous', 'k-means', 'co-activation', 'importance']) {
      expect(issue?.message).toContain(split);
      expect(methodSchema.parse({method: 'llama-moe', ...cut, split})).toMatchObject({split});
    }
  });

  it.each([
    [{router: 'ridge'}, 'router', 'ridge needs weights one: what it foresees is no score. Set weights to one.'],
    [
      {router: 'representative', regroup: 2},
      'router',
      'representative needs regroup 0, found 2: it stands for experts as they were cut.',
    ],
    [{outputScale: 'match', weights: 'one'}, 'weights', 'weights one does not go with outputScale match, which needs'],
    [{outputScale: 'match', router: 'representative'}, 'router', 'router representative does not go with outputScale'],
    [{outputScale: 'match', router: 'centroid'}, 'router', 'router centroid does not go with outputScale match'],
    [{outputScale: 'match', repair: 'refit'}, 'repair', 'repair refit does not go with outputScale match'],
    [{repairWeight: 0.3}, 'repairWeight', '0.3 has no effect without repair refit. Set repair to refit, or leave'],
  ])('refuses %o', (words, path, message) => {
    const issues = issuesOf({method: 'random', ...cut, ...words});
    expect(issues).toEqual([{path, message: expect.stringContaining(message) as string}]);
  });

  it('takes the weight of a repair of what is pruned only where it is repaired', () => {
    const pruned = {method: 'all-shared', ...cut, repairWeight: 0.3};
    expect(issuesOf(pruned)[0]?.path).toBe('repairWeight');
    expect(methodSchema.parse({...pruned, repair: 'refit'})).toMatchObject({repairWeight: 0.3});
  });

  it('gives a model without experts no router', () => {
    expect(issuesOf({method: 'all-shared', ...cut, router: 'ridge'})[0]?.message).toContain('Unrecognized key');
  });

  it('fills in the constants of the paper when allocation is adaptive', () => {
    const options = methodSchema.parse({method: 'expertweaver', ...cut, allocation: 'adaptive'});
    expect(options).toMatchObject({allocation: 'adaptive', cvThreshold: 0.6, alphaMin: 0.2, alphaMax: 0.7});
  });

  it('reads what it has written', () => {
    for (const input of [
      {method: 'expertweaver', ...cut},
      {method: 'expertweaver', ...cut, allocation: 'adaptive'},
      {method: 'random', ...cut},
      {method: 'contiguous', ...cut},
      {method: 'moefication', ...cut},
      {method: 'llama-moe', ...cut, split: 'co-activation'},
      {method: 'sparse-upcycle', experts: 8, topK: 2},
      {method: 'granular-upcycle', experts: 8, topK: 2, shards: 2},
    ]) {
      const options = methodSchema.parse(input);
      expect(methodSchema.parse(options)).toEqual(options);
    }
  });

  it('refuses adaptive settings that uniform allocation would ignore', () => {
    const issues = issuesOf({method: 'expertweaver', ...cut, alphaMin: 0.1});
    expect(issues).toEqual([{path: '', message: 'Unrecognized key: "alphaMin"'}]);
  });

  it.each(CHECKED)('%s refuses unknown keys', (method) => {
    const [issue] = issuesOf({method, experts: 8, topK: 2, tokp: 1});
    expect(issue?.message).toBe('Unrecognized key: "tokp"');
  });

  it.each(CHECKED)('%s refuses topK above experts', (method) => {
    const issues = issuesOf({method, experts: 2, topK: 3});
    expect(issues).toEqual([
      {path: 'topK', message: 'topK (= 3) must be at most experts (= 2). Lower topK or raise experts.'},
    ]);
  });

  it('refuses alphaMin above alphaMax', () => {
    const [issue] = issuesOf({method: 'expertweaver', ...cut, allocation: 'adaptive', alphaMin: 0.8});
    expect(issue).toEqual({path: 'alphaMin', message: 'alphaMin must be at most alphaMax. Swap them or change one.'});
  });

  it('says which allocations there are', () => {
    const [issue] = issuesOf({method: 'expertweaver', ...cut, allocation: 'fixed'});
    expect(issue).toEqual({path: 'allocation', message: 'allocation must be uniform, adaptive or sensitivity.'});
  });

  it.each([
    ['experts', 0],
    ['experts', 2.5],
    ['shared', -1],
    ['topK', 0],
    ['topK', '6'],
  ])('refuses %s of %s', (field, value) => {
    expect(issuesOf({method: 'random', ...cut, [field]: value}).map(({path}) => path)).toContain(field);
  });

  it('describes every field in the JSON Schema', () => {
    const schema = z.toJSONSchema(methodSchema, {io: 'input'}) as JsonSchema;
    const objects = alternatives(schema);
    expect(objects).toHaveLength(15);
    for (const {properties, additionalProperties} of objects) {
      expect(additionalProperties).toBe(false);
      for (const field of Object.values(properties!)) expect(field.description).toMatch(/\.$/);
    }
  });
});

function alternatives(schema: JsonSchema): JsonSchema[] {
  return schema.oneOf ? schema.oneOf.flatMap(alternatives) : [schema];
}

describe('profileSchema', () => {
  it('has the calibration of the paper as default', () => {
    expect(profileSchema.parse({})).toEqual({
      ...{samplesPerTask: 5, tokensPerSample: 128, task: 'source', cv: 'tasks'},
      ...{markers: {count: 10, of: 'normalised'}, predictors: false, gradients: false},
    });
  });

  it('takes tasks from sources or from a field', () => {
    expect(profileSchema.parse({task: {field: 'domain'}}).task).toEqual({field: 'domain'});
    for (const task of ['domain', {}, {field: ''}, {field: 'a', file: 'b'}]) {
      expect(profileSchema.safeParse({task}).success).toBe(false);
    }
  });

  it('refuses an empty calibration', () => {
    expect(profileSchema.safeParse({samplesPerTask: 0}).success).toBe(false);
    expect(profileSchema.safeParse({tokensPerSample: 0}).success).toBe(false);
  });

  it('refuses unknown keys', () => {
    expect(profileSchema.safeParse({samples: 5}).error?.issues[0]?.message).toBe('Unrecognized key: "samples"');
  });
});

interface JsonSchema {
  oneOf?: JsonSchema[];
  properties?: Record<string, {description?: string}>;
  additionalProperties?: boolean;
}
