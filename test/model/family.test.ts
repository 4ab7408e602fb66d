import * as fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {openModelFolder} from '../../src/format/model-folder.js';
import {countParameters} from '../../src/model/architecture.js';
import {FAMILIES} from '../../src/model/family/registry.js';
import {diskTensors, parameterName} from '../../src/model/names.js';
import {leavesOf, type ParameterSpec, parameterSpecs} from '../../src/model/parameters.js';
import {architecturesOf, TINY_LLAMA, tinyArchitecture} from './tiny-llama.js';

/** Axes of a parameter that are numbers in its names on disk. */
function depthOf({path, role}: ParameterSpec): number {
  if (path.includes('.inner.')) return role === 'expert' ? 2 : 1;
  return role === 'expert' || role === 'expert-bias' ? 1 : 0;
}

describe.each(Object.values(FAMILIES))('names of $modelType', ({modelType, names}) => {
  it('lead from every parameter to disk and back', () => {
    fc.assert(
      fc.property(architecturesOf(modelType), (architecture) => {
        for (const spec of leavesOf(parameterSpecs(architecture))) {
          const stack = spec.shape.slice(0, depthOf(spec));
          const back = diskTensors(spec, names).map(({name}) => parameterName(name, names));
          const placeOf = (i: number): number[] => {
            const [, inside = 1] = stack;
            return [Math.floor(i / inside), i % inside].slice(0, stack.length);
          };
          expect(back).toEqual(back.map((_, i) => ({path: spec.path, place: placeOf(i)})));
          expect(back).toHaveLength(stack.reduce((a, b) => a * b, 1));
        }
      }),
    );
  });

  it('give every parameter tensors of its own that hold it whole', () => {
    fc.assert(
      fc.property(architecturesOf(modelType), (architecture) => {
        const tensors = leavesOf(parameterSpecs(architecture)).flatMap((spec) => diskTensors(spec, names));
        expect(new Set(tensors.map(({name}) => name)).size).toBe(tensors.length);
        const total = tensors.reduce((sum, {shape}) => sum + shape.reduce((a, b) => a * b, 1), 0);
        expect(total).toBe(countParameters(architecture).total);
      }),
    );
  });

  it('are no two of them the same on disk', () => {
    expect(new Set(Object.values(names)).size).toBe(Object.keys(names).length);
  });
});

describe('names of llama', () => {
  const {names} = FAMILIES.llama;

  it('are those of transformers for a dense model, with linear weights [out, in]', async () => {
    const folder = await openModelFolder(TINY_LLAMA);
    const {tensors} = folder;
    const ours = leavesOf(parameterSpecs(tinyArchitecture)).flatMap((spec) => diskTensors(spec, names));
    expect(ours.map(({name}) => name).sort()).toEqual(tensors.names.toSorted());
    for (const {name, shape} of ours) expect(shape).toEqual(tensors.info(name).shape);
    await folder.close();
  });

  it('name each expert by itself, with a router [E, D]', () => {
    const layout = {
      kind: 'moe',
      experts: 3,
      topK: 1,
      expertWidth: 8,
      sharedWidth: 4,
      selectionBias: true,
      router: 'linear',
    } as const;
    const {layers} = parameterSpecs({...tinyArchitecture, ffn: [{kind: 'dense', width: 24}, layout]});
    const {ffn} = layers[1]!;
    if (ffn.kind !== 'moe') throw new Error('not a mixture');
    const listed = (spec: ParameterSpec) => diskTensors(spec, names).map(({name, shape}) => [name, shape]);
    expect(listed(ffn.router)).toEqual([['model.layers.1.mlp.gate.weight', [3, 16]]]);
    expect(listed(ffn.bias!)).toEqual([['model.layers.1.mlp.gate.e_score_correction_bias', [3]]]);
    expect(listed(ffn.shared!.up)).toEqual([['model.layers.1.mlp.shared_expert.up_proj.weight', [4, 16]]]);
    expect(listed(ffn.experts.down)).toEqual(
      [0, 1, 2].map((e) => [`model.layers.1.mlp.experts.${e}.down_proj.weight`, [16, 8]]),
    );
  });

  it('do not claim tensors of other models', () => {
    const strangers = [
      'model.layers.0.self_attn.q_norm.weight',
      'transformer.wte.weight',
      'model.layers.x.mlp.gate.weight',
    ];
    for (const name of strangers) expect(parameterName(name, names)).toBeNull();
  });
});
