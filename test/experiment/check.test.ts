import {expect, test} from 'vitest';
import {parseConfig} from '../../src/config/load.js';
import {checkArms} from '../../src/experiment/check.js';
import {ConfigError} from '../../src/util/errors.js';
import {TINY_LLAMA} from '../model/tiny-llama.js';

const config = (arm: string, model = TINY_LLAMA): string => `model: ${model}
data:
  sequenceLength: 32
  sources: [{name: a, path: package.json}]
arms:
  g: ${arm}
`;
const check = (arm: string) => checkArms(parseConfig(config(arm), 'x.yaml'), ['g']);

test('shards that do not cut the FFN are refused where they stand', async () => {
  const refused = check('{method: granular-upcycle, experts: 20, topK: 5, shards: 5}');
  await expect(refused).rejects.toThrow(ConfigError);
  await expect(refused).rejects.toThrow(
    'x.yaml:6:63: arms.g: shards (= 5) must divide the FFN width 24, and experts (= 20); nearest that does: 4.',
  );
});

test('experts that are no multiple of shards are refused where they stand', () => {
  expect(() => parseConfig(config('{method: granular-upcycle, experts: 8, topK: 4, shards: 3}'), 'x.yaml')).toThrow(
    'x.yaml:6:42: arms.g.experts: experts (= 8) must be a multiple of shards (= 3); nearest that are: 6 and 9.',
  );
});

test('a ratio outside 0 to 1 is refused where it stands', () => {
  expect(() => parseConfig(config('{method: drop-upcycle, experts: 8, topK: 2, ratio: 1.5}'), 'x.yaml')).toThrow(
    'x.yaml:6:57: arms.g.ratio: must be at most 1, found 1.5.',
  );
});

test('a glob of a source that matches nothing is refused where it stands', async () => {
  const text = config('{method: sparse-upcycle, experts: 2, topK: 1}').replace(
    'package.json',
    '[package.json, no/*.txt]',
  );
  await expect(checkArms(parseConfig(text, 'x.yaml'), ['g'])).rejects.toThrow(
    'x.yaml:4:29: data.sources[0].path: no/*.txt is not there.',
  );
});

test('rows longer than the positions of the model are refused where they stand', async () => {
  const text = config('{method: sparse-upcycle, experts: 2, topK: 1}').replace(
    'sequenceLength: 32',
    'sequenceLength: 65',
  );
  const refused = checkArms(parseConfig(text, 'x.yaml'), ['g']);
  await expect(refused).rejects.toThrow(ConfigError);
  await expect(refused).rejects.toThrow(
    `x.yaml:3:19: data.sequenceLength is 65, ${TINY_LLAMA} has 64 positions (max_position_embeddings).`,
  );
});

test('the model an arm copies must be there', async () => {
  await expect(check('{method: drop-upcycle, experts: 2, topK: 1, from: no/such}')).rejects.toThrow(
    'x.yaml:6:56: arms.g.from: no/such is not there.',
  );
});

test.each([
  '{method: sparse-upcycle, experts: 2, topK: 1}',
  '{method: drop-upcycle, experts: 2, topK: 1}',
  '{method: noise-upcycle, experts: 2, topK: 1}',
  '{method: granular-upcycle, experts: 8, topK: 4, shards: 4}',
])('%s can be made', async (arm) => {
  await expect(check(arm)).resolves.toBeUndefined();
});
