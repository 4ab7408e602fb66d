import {runInThisContext} from 'node:vm';
import {expect, it} from 'vitest';
import {userLine} from '../../src/engine/user-line.js';

it('the line is that of the caller outside the engine', () => {
  const lineOf = (): string => userLine();
  expect(lineOf()).toMatch(/^\/.*test\/engine\/user-line\.test\.ts:6:\d+$/);
});

it("a person's own folder called src/engine is not taken for ours", () => {
  const place = '/home/someone/app/src/engine/step.js';
  const theirs = runInThisContext('(userLine) => userLine()', {filename: place}) as (fn: () => string) => string;
  expect(theirs(userLine)).toContain(place);
});
