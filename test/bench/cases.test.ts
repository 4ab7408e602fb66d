import {describe, expect, it} from 'vitest';
import {
  architectureOf,
  CASES,
  type Case,
  type Kind,
  type Place,
  setupOf,
  TINY,
  tinySetup,
} from '../../scripts/bench/cases.js';
import type {ParameterSetup} from '../../scripts/bench/protocol.js';
import {flopsOf} from '../../scripts/bench/result.js';
import {initialValues} from '../../src/model/init.js';
import {leavesOf, parameterSpecs} from '../../src/model/parameters.js';

const ALL = [CASES.a, CASES.b].flatMap((one) =>
  (['dense', 'moe'] as const).map((kind) => ({name: one.name, one, kind})),
);

describe('flopsOf', () => {
  it.each(ALL)('is three times the products of one forward pass ($name $kind)', ({one, kind}) => {
    expect(flopsOf(one, kind, 'full')).toBe(3 * forwardFlops(one, kind));
  });
});

const PLACE: Place = {threads: 1, device: 'cpu', precision: 'float32'};

describe('setupOf', () => {
  it('has as many weights as SmolLM2-135M in the dense case b', () => {
    const sizes = setupOf(CASES.b, 'dense', 'full', PLACE).parameters.map(sizeOf);
    expect(sizes.reduce((a, b) => a + b)).toBe(134_515_008);
  });

  it('tells the other side the spread that src/model/init.ts draws our weights with', () => {
    const architecture = architectureOf(CASES.a, 'moe');
    const {parameters} = setupOf(CASES.a, 'moe', 'full', PLACE);
    for (const [i, spec] of leavesOf(parameterSpecs(architecture)).entries()) {
      const values = initialValues(spec, architecture, 1);
      const truncation = 0.9866; // standard deviation of a standard normal cut at 3
      expect(deviation(values) / truncation).toBeCloseTo(parameters[i]?.std ?? 0, 3);
    }
  });

  it('gives rows of sequence + 1 tokens of the vocabulary, the same every time', () => {
    const {batches, batch, sequence} = setupOf(CASES.a, 'dense', 'full', PLACE);
    for (const tokens of batches) {
      expect(tokens).toHaveLength(batch * (sequence + 1));
      expect(Math.max(...tokens)).toBeLessThan(CASES.a.shape.vocab);
    }
    expect(setupOf(CASES.a, 'moe', 'full', PLACE).batches).toEqual(batches);
  });
});

describe('what trains', () => {
  const counted = (finetune: 'full' | 'lora' | 'routers'): readonly number[] => {
    const {parameters, trained, adapted} = setupOf(CASES.b, 'moe', finetune, PLACE);
    const isFactor = ({path}: ParameterSetup): boolean =>
      adapted.some((base) => [`${base}.a`, `${base}.b`].includes(path));
    return [total(parameters.filter(({path}) => trained.includes(path))), total(parameters.filter(isFactor))];
  };
  const total = (list: readonly ParameterSetup[]): number => list.reduce((sum, spec) => sum + sizeOf(spec), 0);

  it('is all, or routers, or a low-rank term of each matrix of attention and experts', () => {
    const [D, rank, layers] = [576, 8, 30];
    const attention = 2 * (D + D) * rank + 2 * (D + 192) * rank;
    const experts = 8 * 3 * (D + 192) * rank;
    expect(counted('full')).toEqual([134_515_008 + layers * D * 8, 0]);
    expect(counted('routers')).toEqual([layers * D * 8, 0]);
    expect(counted('lora')).toEqual([0, layers * (attention + experts)]);
  });
});

describe('tinySetup', () => {
  it.each(['full', 'lora', 'routers'] as const)('carries a value for every weight (%s)', (finetune) => {
    const {parameters, weights} = tinySetup('moe', finetune, PLACE);
    expect(parameters.map(({path}) => weights?.[path]?.length)).toEqual(parameters.map(sizeOf));
    expect(TINY.shape.kvHeads).toBeLessThan(TINY.shape.heads); // so that grouped queries are proved too
  });
});

/** Two for each multiply-add of every matrix product, written out from the shapes; causal scores count half. */
function forwardFlops({shape, batch, sequence: S}: Case, kind: Kind): number {
  const {vocab: V, layers, width: D, heads, kvHeads, ffn: F, experts: E} = shape;
  const T = batch * S;
  const projections = 2 * T * D * (2 * D + 2 * (D / heads) * kvHeads);
  const scores = (2 * 2 * T * S * D) / 2;
  const feedForward = kind === 'dense' ? 2 * T * 3 * D * F : 2 * T * (D * E + 2 * 3 * D * (F / E));
  return layers * (projections + scores + feedForward) + 2 * T * D * V;
}

function sizeOf({shape}: ParameterSetup): number {
  return shape.reduce((product, axis) => product * axis, 1);
}

function deviation(values: Float32Array): number {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
}
