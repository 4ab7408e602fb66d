import {expect, test} from 'vitest';
import {startText} from '../../src/cli/show/progress.js';

const size = {arm: 'a', parameters: {total: 4_200_000, active: 3_000_000}, notes: []};

test('a starting model is shown with its proof', () => {
  const proof = {maxLogitDifference: 1e-6, limit: 5e-5, passed: true, tokens: 128};
  expect(startText({...size, proof})).toMatch(
    /with all experts equal to its parent: largest logit difference 1.0e-6 \(allowed 5.0e-5\) on 128 tokens$/,
  );
});

test('and with a line for each note', () => {
  expect(startText({...size, proof: 'drawn at random', notes: ['one', 'two']})).toMatch(/drawn at random\none\ntwo$/);
});

test('or with the words why there is none', () => {
  expect(startText({...size, proof: 'not equal to its parent by design: x'})).toMatch(
    /active, not equal to its parent by design: x$/,
  );
});
