import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {createStopText} from '../../src/eval/stop-text.js';

/** All that is shown of pieces, and whether a stop ended them. */
function show(stops: readonly string[], pieces: readonly string[]): {text: string; isFound: boolean} {
  const stopText = createStopText(stops);
  let text = '';
  for (const piece of pieces) {
    const shown = stopText.push(piece);
    text += shown.text;
    if (shown.isFound) return {text, isFound: true};
  }
  return {text: text + stopText.flush(), isFound: false};
}

describe('a text that a string ends', () => {
  it('is cut before the first of them, wherever pieces begin', () => {
    const text = fc.string({unit: fc.constantFrom('a', 'b', 'c')});
    const stops = fc.array(fc.string({unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 3}));
    fc.assert(
      fc.property(fc.array(text), stops, (pieces, some) => {
        const whole = pieces.join('');
        const ends = some.map((stop) => whole.indexOf(stop)).filter((at) => at >= 0);
        const isFound = ends.length > 0;
        // A longer string may begin earlier than the one that is whole first.
        const {text: shown, isFound: found} = show(some, pieces);
        expect(found).toBe(isFound);
        expect(whole.startsWith(shown)).toBe(true);
        if (!isFound) expect(shown).toBe(whole);
        else expect(some.some((stop) => whole.startsWith(stop, shown.length))).toBe(true);
      }),
    );
  });

  it('shows nothing that may be the beginning of one', () => {
    const stopText = createStopText(['\n\nUser:']);
    expect(stopText.push('Yes.\n')).toEqual({text: 'Yes.', isFound: false});
    expect(stopText.push('\nUs')).toEqual({text: '', isFound: false});
    expect(stopText.push('ual')).toEqual({text: '\n\nUsual', isFound: false});
    expect(stopText.push(' \n\nUser: no')).toEqual({text: ' ', isFound: true});
    expect(stopText.flush()).toBe('');
  });
});
