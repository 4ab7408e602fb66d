import {describe, expect, it} from 'vitest';
import {layoutText} from '../../src/cli/show/layout.js';
import {experts} from '../train/support.js';

describe('the words for a layer', () => {
  it('say that a top p makes topK the most there is', () => {
    expect(layoutText(experts(8, 2), {})).toBe('2 of 8 experts 64 wide, and a shared one 16 wide');
    expect(layoutText({...experts(8, 2), sharedGate: true}, {})).toMatch(/, and a gated shared one 16 wide$/);
    expect(layoutText(experts(8, 2), {topP: 0.5})).toBe('at most 2 of 8 experts 64 wide, and a shared one 16 wide');
  });
});
