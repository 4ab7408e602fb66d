import {describe, expect, it} from 'vitest';
import {workBytesOf} from '../../src/train/xla-report.js';
import {EnvironmentError} from '../../src/util/errors.js';

/** Lines as TensorFlow 2.21 writes them of the step of a dense model. */
const LINES = [
  'BufferAssignment:',
  'allocation 0: size 35072, parameter 3, shape |f32[274,32]| at ShapeIndex {}, maybe-live-out:',
  ' value: <2803 arg3.1 @0> (size=35072,offset=0): f32[274,32]{1,0}',
  ' value: <3015 subtract_select_fusion.19 @0> (size=35072,offset=0): f32[274,32]{1,0}',
  'allocation 1: size 2048, parameter 0, shape |s32[2,8,32]| at ShapeIndex {}:',
  'allocation 2: size 512, output shape is |(f32[5], s32[0], f32[274,32])|, maybe-live-out:',
  'allocation 3: size 20, maybe-live-out:',
  'allocation 4: size 4096, constant:',
  'allocation 5: size 4, thread-local:',
  'allocation 6: size 1560772, preallocated-temp:',
  ' value: <2811 gather.3 @0> (size=32768,offset=7168): f32[256,32]{1,0}',
];
const WORK = 512 + 20 + 4096 + 4 + 1560772;
const report = (total: number | string, lines = LINES): string =>
  [...lines, '', `Total bytes used: ${total} (1.53MiB)`, '', 'Used values:', '<0 Arg_0 @0>', ' size 12'].join('\n');

describe('the report of XLA', () => {
  it('gives the bytes of all that is no parameter, each exactly', () => {
    expect(workBytesOf(report(WORK + 35072 + 2048))).toBe(WORK);
  });

  it('may place memory: a colour and an address', () => {
    const placed = LINES.map((line) => line.replace(/(allocation \d+: )(size \d+)/, '$10x7f00ab, $2, color 1'));
    expect(workBytesOf(report(WORK + 35072 + 2048, placed))).toBe(WORK);
  });

  it.each([
    ['has no total', report('many'), /it has no total, and 7 allocations of 1602524 bytes\.$/],
    ['does not add up', report(7), /it has a total of 7 bytes, and 7 allocations/],
    ['lists nothing known', 'Total bytes used: 7', /it has a total of 7 bytes, and 0 allocations of 0 bytes/],
  ])('that %s is refused', (_, text, message) => {
    const read = (): number => workBytesOf(text);
    expect(read).toThrow(EnvironmentError);
    expect(read).toThrow(message);
    expect(read).toThrow(expect.objectContaining({hint: expect.stringContaining('downcycle doctor') as string}));
  });
});
