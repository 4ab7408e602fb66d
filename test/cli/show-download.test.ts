import {expect, test} from 'vitest';
import {showDownload} from '../../src/cli/show/download.js';

test('a download shows bytes, then the time that is left by what came over the network, and whom it waits for', () => {
  const shown: string[] = [];
  let now = 0;
  const status = {update: (text: string) => void shown.push(text), print: () => undefined, finish: () => undefined};
  const show = showDownload(status, () => now);
  const progress = {id: 'org/tiny', file: 'model.safetensors', total: 10e6, holder: null};
  show({...progress, done: 6e6, fetched: 0});
  now = 4000;
  show({...progress, done: 7e6, fetched: 1e6});
  show({...progress, done: 7e6, fetched: 1e6, holder: 12});
  show({...progress, done: 10e6, fetched: 4e6});
  expect(shown).toEqual([
    'org/tiny  model.safetensors  6.00MB of 10.0MB',
    'org/tiny  model.safetensors  7.00MB of 10.0MB  12s left',
    'org/tiny  model.safetensors  process 12 is fetching it',
    'org/tiny  model.safetensors  10.0MB of 10.0MB',
  ]);
});
