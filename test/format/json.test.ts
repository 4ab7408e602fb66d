import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {parseJson, readableJson, repeatedName} from '../../src/format/json.js';

describe('parseJson', () => {
  it('gives the value of any JSON', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom(undefined, 2, '\t'), (value, indent) => {
        const text = JSON.stringify(value, null, indent);
        expect(parseJson(text)).toEqual({kind: 'value', value: JSON.parse(text) as unknown});
      }),
    );
  });

  it.each([
    ['{"a": 1,\n "b": }', 2, 7, 'expected a value, found `}`'],
    ['{"a": 1,}', 1, 9, 'expected a quoted name, found `}`'],
    ['{"a" 1}', 1, 6, 'expected ":", found `1}`'],
    ['{"a": [1 2]}', 1, 10, 'expected "," or the end of the list or object, found `2]}`'],
    ['[1, 2}', 1, 6, 'expected "," or the end of the list or object, found `}`'],
    ['[1,]', 1, 4, 'expected a value, found `]`'],
    ['[', 1, 2, 'expected a value or "]", found the end of the file'],
    ['{a: 1}', 1, 2, 'expected a quoted name or "}", found `a:`'],
    ['{} {}', 1, 4, 'expected nothing more, found `{}`'],
    ['{"a": "x\ny"}', 1, 7, 'expected a value, found `"x`'],
    ['{"a": 01}', 1, 8, 'expected "," or the end of the list or object, found `1}`'],
    ['{"a": NaN}', 1, 7, 'expected a value, found `NaN}`'],
    ['', 1, 1, 'expected a value, found the end of the file'],
  ])('tells where %j stops being JSON', (text, line, column, reason) => {
    expect(parseJson(text)).toEqual({kind: 'fault', line, column, reason});
  });

  it('finds a stray character at the start of any line of any JSON', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.nat(), fc.constantFrom('\u0001', '=', 'x'), (value, seed, stray) => {
        const lines = JSON.stringify({value}, null, 1).split('\n');
        const at = seed % lines.length;
        const parsed = parseJson(lines.with(at, stray + lines[at]!).join('\n'));
        expect(parsed).toMatchObject({kind: 'fault', line: at + 1, column: 1});
      }),
    );
  });
});

describe('repeatedName', () => {
  it('finds a name that stands twice, however it is escaped', () => {
    expect(repeatedName('{"a": {}, "b": {}, "\\u0061": {}}')).toBe('a');
  });

  it('does not mind names that repeat further inside', () => {
    expect(repeatedName('{"a": {"x": "b"}, "b": {"x": "}"}, "c\\"a": {}}')).toBeUndefined();
  });
});

describe('readableJson', () => {
  it('says what it is given, whatever stands in its texts', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const plain: unknown = JSON.parse(JSON.stringify(value)); // for −0, which JSON has as 0
        expect(JSON.parse(readableJson(value))).toEqual(plain);
      }),
    );
    const text = {a: '[\n  1,\n  2\n]'};
    expect(JSON.parse(readableJson(text))).toEqual(text);
  });

  it('has a line for each list of numbers', () => {
    const rows = [
      [1, -2.5e-9, null],
      [null, 3, 4],
    ];
    expect(readableJson({rows, empty: []})).toBe(
      '{\n  "rows": [\n    [1, -2.5e-9, null],\n    [null, 3, 4]\n  ],\n  "empty": []\n}',
    );
  });
});
