import {describe, expect, it} from 'vitest';
import {countParameters, type FfnLayout, flopsPerToken} from '../../src/model/architecture.js';
import {tinyArchitecture} from './tiny-llama.js';

const layout = {
  kind: 'moe',
  experts: 6,
  topK: 2,
  expertWidth: 8,
  sharedWidth: 4,
  selectionBias: false,
  router: 'linear',
} as const satisfies FfnLayout;

describe('experts inside experts', () => {
  const width = tinyArchitecture.width;
  const inner = {experts: 5, topK: 2, expertWidth: 3, weight: 'one'} as const;
  const [plain, nested] = [layout, {...layout, inner}].map((ffn) =>
    countParameters({...tinyArchitecture, ffn: [ffn, ffn]}),
  );

  it('count as parameters, those chosen in chosen experts as active, with the routers of these', () => {
    const router = 2 * width * inner.experts;
    const one = 3 * width * inner.expertWidth;
    expect(nested!.total - plain!.total).toBe(2 * 6 * (router + 5 * one));
    expect(nested!.active - plain!.active).toBe(2 * 2 * (router + 2 * one));
  });
});

describe('the gate of a shared expert', () => {
  const gated = {...layout, sharedGate: true as const};
  const [without, within] = [layout, gated].map((ffn) => ({...tinyArchitecture, ffn: [ffn]}));

  it('counts as a parameter that every token uses, in a matmul', () => {
    const {width} = tinyArchitecture;
    expect(countParameters(within!).total - countParameters(without!).total).toBe(width);
    expect(countParameters(within!).active - countParameters(without!).active).toBe(width);
    expect(flopsPerToken(within!, 32) - flopsPerToken(without!, 32)).toBe(6 * width);
  });
});

describe('biases of experts', () => {
  const plain = {...tinyArchitecture, ffn: [layout, layout]};
  const biased = {...plain, ffn: [layout, {...layout, expertBias: true as const}]};

  it('count as parameters, those of the chosen experts as active', () => {
    const [without, within] = [countParameters(plain), countParameters(biased)];
    expect(within.total - without.total).toBe(6 * tinyArchitecture.width);
    expect(within.active - without.active).toBe(2 * tinyArchitecture.width);
  });

  it('are in no matmul', () => {
    expect(flopsPerToken(biased, 32)).toBe(flopsPerToken(plain, 32));
  });
});
