// Whatever a plan says is exact computes the same, for any layout and any words of routing.
import * as fc from 'fast-check';
import {describe, expect} from 'vitest';
import {exportModel, exportPlans} from '../../src/export/export.js';
import type {ExportPlan} from '../../src/export/plan.js';
import type {Architecture, MoeLayout} from '../../src/model/architecture.js';
import {useScratch} from '../format/scratch.js';
import {onEngine} from '../support/engines.js';
import {mixture, moeLayer, writeMixture} from './random-mixture.js';

const scratch = useScratch();

const layer: fc.Arbitrary<MoeLayout> = fc
  .record({
    experts: fc.constantFrom(4, 4, 5),
    topK: fc.constantFrom(1, 2, 2),
    expertWidth: fc.constantFrom(8, 8, 5),
    sharedWidth: fc.constantFrom(0, 8, 12),
    selectionBias: fc.boolean(),
  })
  .map((sizes) => moeLayer(sizes));

const architecture: fc.Arbitrary<Architecture> = fc
  .record({
    layers: fc.oneof(
      layer.map((one) => [one, one]),
      fc.tuple(layer, layer),
    ),
    score: fc.constantFrom('softmax' as const, 'sigmoid' as const),
    order: fc.constantFrom('score-then-topk' as const, 'topk-then-score' as const),
    renormalise: fc.boolean(),
    scale: fc.constantFrom(1, 2.5),
    weight: fc.constantFrom('score' as const, 'one' as const),
    words: fc.constantFrom<Partial<Architecture>>(
      {},
      {family: 'qwen2', attentionBias: 'qkv', tied: true},
      {family: 'qwen3', qkNorm: 'head'},
      {family: 'olmo', norm: {kind: 'layer', placement: 'before'}, qkvClip: 0.7, tied: true},
      {family: 'olmo2', norm: {kind: 'rms', placement: 'after'}, qkNorm: 'width'},
    ),
  })
  .map(({layers, words, ...routing}) => mixture({...words, routing}, layers));

describe('a plan that says it is exact', () => {
  onEngine('wasm', 'computes the same', async () => {
    let run = 0;
    let checked = 0;
    await fc.assert(
      fc.asyncProperty(architecture, async (any) => {
        run++;
        const model = await writeMixture(scratch(`source-${run}`), any, {seed: run});
        const exact = (await exportPlans({model})).filter(
          (plan): plan is ExportPlan => plan.kind === 'plan' && plan.fidelity === 'exact',
        );
        for (const {target} of exact.slice(0, 2)) {
          const {fidelity} = await exportModel({model, out: scratch(`${run}-${target}`), to: target});
          expect(fidelity.beyond, `${target} ${JSON.stringify(any)}`).toBeLessThan(0.02);
          checked++;
        }
      }),
      {numRuns: 60, seed: 5},
    );
    expect(checked).toBeGreaterThan(20);
  });
});
