// Frequencies and amplitudes against transformers: scripts/family-fixtures.py.
import {readFileSync} from 'node:fs';
import {describe, expect, it} from 'vitest';
import {architectureFromConfig} from '../../src/model/config.js';
import {ropeAmplitude, ropeFrequencies} from '../../src/model/rope-frequencies.js';
import {tinyConfig} from './tiny-llama.js';

interface Recorded {
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly amplitude: number;
  readonly frequencies: readonly number[];
}

const recorded = JSON.parse(
  readFileSync(new URL('../fixtures/model/rope.json', import.meta.url), 'utf8'),
) as readonly Recorded[];

describe.each(recorded)('rotations by $parameters', ({parameters, amplitude, frequencies}) => {
  const {ropeTheta, ropeScaling} = architectureFromConfig({...tinyConfig, rope_parameters: parameters}, 'config.json');

  it('turn as fast as those of transformers', () => {
    const received = ropeFrequencies(2 * frequencies.length, ropeTheta, ropeScaling);
    expect(received).toBeAllClose(frequencies, {rtol: 5e-7, atol: 0}); // rounded once here, at every step there
  });

  it('are as large', () => {
    expect(ropeAmplitude(ropeScaling)).toBeAllClose(amplitude, {rtol: 1e-12, atol: 0});
  });
});
