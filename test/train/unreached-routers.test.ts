import {describe, expect, it} from 'vitest';
import {type FfnLayout, SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {unreachedRouters} from '../../src/train/unreached-routers.js';
import {tinyArchitecture} from '../model/tiny-llama.js';

const layout = {
  ...{kind: 'moe', experts: 4, topK: 2, expertWidth: 4, sharedWidth: 8, selectionBias: false, router: 'linear'},
} as const satisfies FfnLayout;
const inner = {experts: 2, topK: 1, expertWidth: 2, weight: 'one'} as const;

const reason = (ffn: readonly FfnLayout[], routing: object = {}): string | null =>
  unreachedRouters({...tinyArchitecture, ffn, routing: {...SOFTMAX_ROUTING, ...routing}});

describe('routers that the loss cannot reach', () => {
  it.each<[string, readonly FfnLayout[], object]>([
    ['a dense model', [{kind: 'dense', width: 8}], {}],
    ['scores as weights', [layout], {}],
    ['one expert and its score', [{...layout, topK: 1}], {}],
    ['two experts, renormalised', [layout], {renormalise: true}],
    ['scores inside experts', [{...layout, inner: {...inner, weight: 'score'}}], {}],
    ['one expert by its sigmoid', [{...layout, topK: 1}], {score: 'sigmoid', order: 'topk-then-score'}],
  ])('are none in %s', (_, ffn, routing) => {
    expect(reason(ffn, routing)).toBeNull();
  });

  const taught = 'The language-model loss teaches the routers';
  it.each<[string, readonly FfnLayout[], object, string]>([
    [
      'weights one',
      [layout],
      {weight: 'one'},
      `${taught} nothing, only balance losses move them: chosen experts weigh 1`,
    ],
    [
      'one expert, renormalised',
      [{...layout, topK: 1}],
      {renormalise: true},
      'the weight of one expert over its own sum',
    ],
    [
      'softmax over one',
      [{...layout, topK: 1}],
      {order: 'topk-then-score'},
      'the weight of one expert over its own sum',
    ],
    ['no other expert', [{...layout, experts: 1, topK: 1}], {}, 'the weight of one expert over its own sum is 1.'],
    ['some layers', [layout, {...layout, topK: 1}], {renormalise: true}, `${taught} of 1 of 2 layers nothing,`],
  ])('are told of: %s', (_, ffn, routing, text) => {
    expect(reason(ffn, routing)).toContain(text);
  });

  it('are told of inside experts by themselves, and beside the others', () => {
    const inside = 'Nothing moves the routers inside experts: what they choose weighs 1.';
    expect(reason([{...layout, inner}])).toBe(inside);
    expect(reason([{...layout, inner}], {weight: 'one'})).toMatch(new RegExp(`^${taught} nothing.*\\. ${inside}$`));
  });
});
