import {describe, expect, it, vi} from 'vitest';
import {CASES} from '../../scripts/bench/cases.js';
import {parseOptions} from '../../scripts/bench/options.js';

describe('parseOptions', () => {
  it('measures every case and kind unless told otherwise, each with its own number of steps', () => {
    expect(parseOptions([])).toMatchObject({
      cases: [CASES.a, CASES.b],
      kinds: ['dense', 'moe'],
      steps: null,
      json: null,
    });
  });

  it('takes one case, one kind, rounds, steps, a file and torch.compile', () => {
    const args = [
      '--case',
      'b',
      '--kind',
      'moe',
      '--rounds',
      '3',
      '--steps',
      '2',
      '--capacity',
      '1.25',
      '--json',
      'x.json',
      '--compile',
      '--transformers',
      ...['--finetune', 'lora', '--device', 'cuda', '--precision', 'bfloat16'],
    ];
    expect(parseOptions(args)).toEqual({
      cases: [CASES.b],
      kinds: ['moe'],
      finetunes: ['lora'],
      rounds: 3,
      steps: 2,
      json: 'x.json',
      capacity: 1.25,
      compile: true,
      transformers: true,
      device: 'cuda',
      precision: 'bfloat16',
    });
  });

  it.each([
    [['--case', 'd'], /'d' is invalid.*Allowed choices are a, b, c, all/],
    [['--device', 'tpu'], /'tpu' is invalid.*Allowed choices are cpu, cuda/],
    [['--rounds', '0'], /'0' is invalid.*whole number/],
    [['--steps', '1.5'], /'1.5' is invalid.*whole number/],
    [['--capacity', '0.5'], /'0.5' is invalid.*at least 1/],
    [['--speed'], /unknown option '--speed'/],
    [['a'], /too many arguments/],
  ])('refuses %j and says why', (args, reason) => {
    const print = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    expect(() => parseOptions(args)).toThrow(reason);
    print.mockRestore();
  });
});
