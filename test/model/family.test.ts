import * as fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {openModelFolder} from '../../src/format/model-folder.js';
import {countParameters} from '../../src/model/architecture.js';
import {FAMILIES} from '../../src/model/family/registry.js';
import {type DiskTensor, diskTensors, parametersIn} from '../../src/model/names.js';
import {leavesOf, type ParameterSpec, parameterSpecs} from '../../src/model/parameters.js';
import {moeLayer} from '../export/random-mixture.js';
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
          const tensors = diskTensors(spec, names);
          const back = tensors.map(({name}) => parametersIn(name, names).find(({path}) => path === spec.path));
          const isStacked = names[spec.path.replace(/^layers\.\d+/, 'layers.{l}')]!.includes('[{e}');
          const placeOf = (i: number): number[] => {
            const [, inside = 1] = stack;
            return [Math.floor(i / inside), i % inside].slice(0, stack.length);
          };
          expect(back).toEqual(back.map((_, i) => ({path: spec.path, place: isStacked ? [] : placeOf(i)})));
          expect(back).toHaveLength(stack.reduce((a, b) => a * b, 1));
        }
      }),
    );
  });

  it('give every parameter elements of its own that hold it whole, and leave none', () => {
    fc.assert(
      fc.property(architecturesOf(modelType), (architecture) => {
        const parts = leavesOf(parameterSpecs(architecture)).flatMap((spec) => diskTensors(spec, names));
        const byName = new Map<string, DiskTensor[]>();
        for (const part of parts) byName.set(part.name, [...(byName.get(part.name) ?? []), part]);
        for (const [name, [first, ...others]] of byName) {
          for (const {shape} of others) expect(shape, name).toEqual(first!.shape);
          const spans = [first!, ...others].map(({offset, begin, end}) => [offset, offset + end - begin] as const);
          const sorted = spans.sort(([a], [b]) => a - b);
          const size = first!.shape.reduce((a, b) => a * b, 1);
          expect([0, ...sorted.map(([, end]) => end)], name).toEqual([...sorted.map(([offset]) => offset), size]);
        }
        const total = parts.reduce((sum, {begin, end}) => sum + end - begin, 0);
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
    for (const name of strangers) expect(parametersIn(name, names)).toEqual([]);
  });
});

describe('names of dbrx', () => {
  const {names} = FAMILIES.dbrx;
  const stem = 'transformer.blocks.1';
  const specs = parameterSpecs({
    ...tinyArchitecture,
    ...{heads: 4, kvHeads: 1, headDim: 4},
    ffn: Array.from({length: 2}, () => moeLayer({experts: 3, topK: 1, sharedWidth: 0})),
  });
  const listed = (spec: ParameterSpec) =>
    diskTensors(spec, names).map(({name, shape, offset, isTransposed}) => [name, shape, offset, isTransposed]);

  it('say where queries, keys and values are in one tensor, of which queries are more', () => {
    const {q, k, v} = specs.layers[1]!.attention;
    const fused = `${stem}.norm_attn_norm.attn.Wqkv.weight`;
    expect(listed(q)).toEqual([[fused, [24, 16], 0, true]]);
    expect(listed(k)).toEqual([[fused, [24, 16], 16 * 16, true]]);
    expect(listed(v)).toEqual([[fused, [24, 16], 20 * 16, true]]);
    expect(parametersIn(fused, names).map(({path}) => path)).toEqual(
      ['q', 'k', 'v'].map((which) => `layers.1.attention.${which}`),
    );
  });

  it('have the neurons of all experts as rows, also of what goes down', () => {
    const {ffn} = specs.layers[1]!;
    if (ffn.kind !== 'moe') throw new Error('not a mixture');
    const rows = (name: string, isTransposed: boolean) =>
      [0, 1, 2].map((e) => [`${stem}.ffn.experts.mlp.${name}`, [24, 16], e * 8 * 16, isTransposed]);
    expect(listed(ffn.experts.gate)).toEqual(rows('w1', true));
    expect(listed(ffn.experts.up)).toEqual(rows('v1', true));
    expect(listed(ffn.experts.down)).toEqual(rows('w2', false));
  });
});

describe('names of granitemoeshared', () => {
  const {names} = FAMILIES.granitemoeshared;
  const stem = 'model.layers.1';
  const experts = `${stem}.block_sparse_moe.input_linear.weight`;

  it('are those of tensors that several parameters share, and say where in them', () => {
    const layout = {
      kind: 'moe',
      experts: 3,
      topK: 1,
      expertWidth: 8,
      sharedWidth: 4,
      selectionBias: false,
      router: 'linear',
    } as const;
    const {ffn} = parameterSpecs({...tinyArchitecture, ffn: [layout, layout]}).layers[1]!;
    if (ffn.kind !== 'moe') throw new Error('not a mixture');
    const listed = (spec: ParameterSpec) =>
      diskTensors(spec, names).map(({name, shape, offset}) => [name, shape, offset]);
    const size = 8 * 16;
    expect(listed(ffn.experts.gate)).toEqual([0, 1, 2].map((e) => [experts, [3, 16, 16], 2 * e * size]));
    expect(listed(ffn.experts.up)).toEqual([0, 1, 2].map((e) => [experts, [3, 16, 16], (2 * e + 1) * size]));
    const output = `${stem}.block_sparse_moe.output_linear.weight`;
    expect(listed(ffn.experts.down)).toEqual([0, 1, 2].map((e) => [output, [3, 16, 8], e * size]));
    expect(listed(ffn.shared!.up)).toEqual([[`${stem}.shared_mlp.input_linear.weight`, [8, 16], 4 * 16]]);
  });

  it('lead from such a tensor to all parameters that it holds', () => {
    const of = (which: string) => ({path: `layers.1.ffn.experts.${which}`, place: []});
    expect(parametersIn(experts, names)).toEqual([of('gate'), of('up')]);
  });
});
