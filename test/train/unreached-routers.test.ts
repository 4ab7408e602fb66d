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

  it.each<[string, readonly FfnLayout[], object, string]>([
    ['weights one', [layout], {weight: 'one'}, 'chosen experts weigh 1 (weights one).'],
    ['one expert, renormalised', [{...layout, topK: 1}], {renormalise: true}, 'one expert is chosen, and weights'],
    ['softmax over one', [{...layout, topK: 1}], {order: 'topk-then-score'}, 'one expert is chosen, and weights'],
    ['some layers', [layout, {...layout, topK: 1}], {renormalise: true}, 'one expert is chosen in 1 of 2 layers'],
    ['experts inside', [{...layout, inner}], {}, 'those inside experts'],
  ])('are told of: %s', (_, ffn, routing, text) => {
    expect(reason(ffn, routing)).toContain('The language-model loss teaches the routers nothing');
    expect(reason(ffn, routing)).toContain(text);
  });
});
