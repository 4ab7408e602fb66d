import {describe, expect, test} from 'vitest';
import {parseConfig} from '../../src/config/load.js';
import type {ArmOptions} from '../../src/config/schema.js';
import {ConfigError, type DowncycleError, UsageError} from '../../src/util/errors.js';

const BASE = `model: some/model
data:
  sources:
    - {name: a, path: a.txt}
`;
const ONE = 'arms:\n  a: {method: expertweaver, experts: 6, shared: 2, topK: 2}\n';
const TWO = `${ONE}  b: {method: random, experts: 4, topK: 2}\n`;

type Flags = Readonly<Record<string, string | true>>;

/** Parses the base and more with flags such as `{topK: '3'}`, each called `--<key>`. */
function parse(more: string, flags: Flags, {arm, set = []}: {arm?: string; set?: readonly string[]} = {}) {
  const list = Object.entries(flags).map(([key, value]) => ({flag: `--${key}`, key, value}));
  return parseConfig(BASE + more, 'x.yaml', {set, arm: {arm, flags: list}});
}

const armsOf = (...args: Parameters<typeof parse>): Readonly<Record<string, ArmOptions>> => parse(...args).config.arms;

function failure(...args: Parameters<typeof parse>): DowncycleError {
  try {
    parse(...args);
  } catch (error) {
    return error as DowncycleError;
  }
  throw new Error('the config has no fault');
}

describe('flags of an arm', () => {
  test('change the only arm, or the one that is named on the command line or in the config', () => {
    expect(armsOf(ONE, {topK: '3', weights: 'one'}).a).toMatchObject({experts: 6, topK: 3, weights: 'one'});
    expect(armsOf(TWO, {topK: '3'}, {arm: 'b'})).toMatchObject({a: {topK: 2}, b: {topK: 3}});
    expect(armsOf(`${TWO}arm: b\n`, {topK: '3'})).toMatchObject({a: {topK: 2}, b: {topK: 3}});
    expect(armsOf(TWO, {topK: '3'}, {set: ['arm=b']})).toMatchObject({a: {topK: 2}, b: {topK: 3}});
  });

  test('win over --set', () => {
    expect(armsOf(ONE, {topK: '3'}, {set: ['arms.a.topK=5']}).a).toMatchObject({topK: 3});
  });

  test('make an arm called after its method where the config has none', () => {
    const {config, at} = parse('', {method: 'cmoe', experts: '5', shared: '3', topK: '3'});
    expect(Object.keys(config.arms)).toEqual(['cmoe']);
    expect(config.arms.cmoe).toMatchObject({method: 'cmoe', experts: 5, shared: 3, topK: 3});
    expect(at(['arms', 'cmoe'])).toBe('--method cmoe');
    expect(at(['arms', 'cmoe', 'experts'], ['arms', 'cmoe'])).toBe('--experts 5');
    expect(at(['arms', 'cmoe', 'router'], ['arms', 'cmoe', 'topK'])).toBe('--topK 3');
  });

  test('change nothing if there are none, whatever arms there are', () => {
    expect(Object.keys(armsOf(TWO, {}))).toEqual(['a', 'b']);
    expect(armsOf('', {})).toEqual({});
  });

  test.each<[string, string, Flags, string]>([
    ['a word that is none', ONE, {router: 'rigde'}, '--router rigde: arms.a.router: expected one of gate-mean,'],
    ['words that do not go together', ONE, {router: 'ridge'}, '--router ridge: arms.a.router: ridge needs weights one'],
    ['a key of another method', ONE, {keepBy: 'markers'}, '--keepBy markers: arms.a.keepBy: unknown key;'],
    ['no number', ONE, {experts: 'many'}, '--experts many: arms.a.experts: expected a number, found "many".'],
    ['no experts', ONE, {experts: '0', topK: '0'}, '--experts 0: arms.a.experts: must be at least 1, found 0.'],
    ['more than there are', ONE, {topK: '7'}, '--topK 7: arms.a.topK: topK (= 7) must be at most experts (= 6).'],
    ['half an arm', '', {method: 'cmoe', topK: '2'}, '--method cmoe: arms.cmoe.experts: missing; expected a number.'],
    ['what is no YAML', ONE, {experts: '['}, '--experts [: the value is not YAML:'],
  ])('refuse %s and name the flag', (_, more, flags, message) => {
    const error = failure(more, flags);
    expect(error).toBeInstanceOf(UsageError);
    expect(error.message).toContain(message);
  });

  test.each<[string, string, Flags, string | undefined, string, string | undefined]>([
    ['several arms', TWO, {topK: '3'}, undefined, 'x.yaml has several arms: a, b.', 'Choose one, e.g. --arm a'],
    ['an arm that is not there', TWO, {topK: '3'}, 'c', 'There is no arm c to take; there are a, b.', undefined],
    ['nothing to change', '', {topK: '3'}, undefined, 'x.yaml has no arm that --topK could change.', 'Say --method,'],
  ])('refuse %s', (_, more, flags, arm, message, hint) => {
    const error = failure(more, flags, arm === undefined ? {} : {arm});
    expect(error).toBeInstanceOf(UsageError);
    expect(error.message).toBe(message);
    if (hint === undefined) expect(error.hint).toBeUndefined();
    else expect(error.hint).toContain(hint);
  });

  test('that change the method say that the other keys stay', () => {
    const error = failure('arms:\n  a: {method: expertweaver, experts: 6, topK: 2, assignment: greedy}\n', {
      method: 'cmoe',
    });
    expect(error).toBeInstanceOf(ConfigError);
    expect(error.message).toContain('x.yaml:6:50: arms.a.assignment: unknown key; known here are method,');
    expect(error.hint).toBe(
      "An arm keeps its other keys when its method is changed; --set 'arms.a={method: ..., experts: ..., topK: ...}' replaces it whole.",
    );
  });
});
