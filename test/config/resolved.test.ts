import {describe, expect, test} from 'vitest';
import {loadConfig, parseConfig} from '../../src/config/load.js';
import {configHash, resolvedYaml} from '../../src/config/resolved.js';

const TEXT = `name: "12"
model: m
data: {sources: [{name: a, path: a.txt}]}
arms: {b: {method: random, experts: 3, topK: 1}, a: {like: b}}
`;

describe('resolvedYaml', () => {
  test('reads back as the same config', async () => {
    const {config} = await loadConfig('configs/quickstart.yaml');
    expect(parseConfig(resolvedYaml(config), 'resolved').config).toEqual(config);
  });

  test('keeps strings that look like numbers, and the order of arms', () => {
    const {config} = parseConfig(TEXT, 'x.yaml');
    const again = parseConfig(resolvedYaml(config), 'resolved').config;
    expect(again.name).toBe('12');
    expect(Object.keys(again.arms)).toEqual(['b', 'a']);
  });

  test('says every default', () => {
    const yaml = resolvedYaml(parseConfig(TEXT, 'x.yaml').config);
    expect(yaml).toContain('eps: 1e-8');
    expect(yaml).toContain('device: auto');
  });
});

describe('configHash', () => {
  const hash = (text: string, set: string[] = []): string => configHash(parseConfig(text, 'x.yaml', {set}).config);

  test('is the same however the config is written', () => {
    const reordered = `data: {sources: [{path: a.txt, name: a, weight: 1}]}
model: m
train: {steps: 1k}
arms: {a: {init: scratch, like: b}, b: {topK: 1, experts: 3, method: random}}
name: '12'
`;
    expect(hash(reordered)).toBe(hash(TEXT));
  });

  test('changes with every value', () => {
    const sets = ['seed=1', 'train.optimizer.lr=0.1', 'arms.b.topK=2', 'data.sources[0].path=b.txt', 'model=n'];
    const hashes = [hash(TEXT), ...sets.map((set) => hash(TEXT, [set]))];
    expect(new Set(hashes).size).toBe(sets.length + 1);
  });
});
