import {describe, expect, it} from 'vitest';
import {initialValues} from '../../src/model/init.js';
import {leavesOf, type ParameterSpec, parameterSpecs} from '../../src/model/parameters.js';
import {tinyArchitecture} from './tiny-llama.js';

const layout = {
  kind: 'moe',
  experts: 4,
  topK: 2,
  expertWidth: 32,
  sharedWidth: 32,
  selectionBias: true,
  router: 'linear',
  expertBias: true,
} as const;
const architecture = {
  ...tinyArchitecture,
  width: 64,
  vocab: 256,
  ffn: [layout, layout, layout, layout, layout, layout, layout, layout],
};
const specs = leavesOf(parameterSpecs(architecture));
const find = (path: string): ParameterSpec => specs.find((spec) => spec.path === path)!;
const values = (path: string, seed = 1): Float32Array => initialValues(find(path), architecture, seed);

function std(sample: Float32Array): number {
  return Math.sqrt(sample.reduce((sum, x) => sum + x * x, 0) / sample.length);
}

/** Of a normal cut at three standard deviations: 1 - 2·3·φ(3) / (2Φ(3) - 1) is its variance. */
const CUT_STD = 0.02 * Math.sqrt(1 - (6 * 0.00443184841) / 0.9973002);

describe('initialValues', () => {
  it('fills every parameter', () => {
    for (const spec of specs) {
      expect(initialValues(spec, architecture, 1)).toHaveLength(spec.shape.reduce((a, b) => a * b, 1));
    }
  });

  it('starts norms at one and biases at zero', () => {
    expect(new Set(values('norm'))).toEqual(new Set([1]));
    expect(new Set(values('layers.3.ffnNorm'))).toEqual(new Set([1]));
    for (const path of ['layers.0.ffn.bias', 'layers.0.ffn.expertBias'])
      expect(new Set(values(path))).toEqual(new Set([0]));
  });

  it.each(['embed', 'head', 'layers.0.ffn.experts.gate'])(
    'draws %s with standard deviation 0.02 up to the cut',
    (path) => {
      const sample = values(path);
      expect(std(sample)).toBeAllClose(CUT_STD, {rtol: 5 / Math.sqrt(2 * sample.length), atol: 0});
      expect(Math.max(...sample.map(Math.abs))).toBeLessThanOrEqual(Math.fround(0.06));
    },
  );

  it.each(['layers.0.ffn.experts.down', 'layers.7.ffn.shared.down', 'layers.2.attention.o'])(
    'draws %s, which writes into the residual stream, smaller by sqrt(2 layers)',
    (path) => {
      const sample = values(path);
      expect(std(sample)).toBeAllClose(CUT_STD / 4, {rtol: 5 / Math.sqrt(2 * sample.length), atol: 0});
    },
  );

  it('draws the same for a path and seed, and other numbers for another path or seed', () => {
    expect(values('layers.0.attention.q')).toEqual(values('layers.0.attention.q'));
    expect(values('layers.0.attention.q')).not.toEqual(values('layers.1.attention.q'));
    expect(values('layers.0.attention.q')).not.toEqual(values('layers.0.attention.q', 2));
  });

  it('draws each expert on its own', () => {
    const sample = values('layers.0.ffn.experts.up');
    expect(sample.slice(0, 64)).not.toEqual(sample.slice(64 * 32, 64 * 32 + 64));
  });
});
