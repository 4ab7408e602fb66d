import * as fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {architectureFromConfig, architectureToConfig, withDtype} from '../../src/model/config.js';
import {ModelError} from '../../src/util/errors.js';
import {anyArchitecture, tinyArchitecture, tinyConfig} from './tiny-llama.js';

const FILE = 'model/config.json';
const read = (config: Record<string, unknown>) => architectureFromConfig(config, FILE);
const KNOWN =
  'known are llama, mistral, qwen2, qwen3, olmo, olmo2, granite, mixtral, qwen2_moe, qwen3_moe, olmoe, flex_olmo, glm4_moe, granitemoeshared, dbrx';
const newKeys = ['rope_parameters', 'dtype'];
const withoutRope = Object.fromEntries(Object.entries(tinyConfig).filter(([key]) => !newKeys.includes(key)));
const equal = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

describe('architectureFromConfig', () => {
  it('reads what transformers 5 writes', () => {
    expect(read(tinyConfig)).toEqual(tinyArchitecture);
  });

  it('reads the keys of transformers 4 alike', () => {
    const old = {...withoutRope, rope_theta: 5000, rope_scaling: null, torch_dtype: 'float32'};
    expect(read(old)).toEqual(tinyArchitecture);
  });

  it.each([
    ['num_key_value_heads', {kvHeads: 4}],
    ['head_dim', {headDim: 4}],
    ['max_position_embeddings', {contextLength: 2048}],
    ['rms_norm_eps', {normEps: 1e-6}],
    ['rope_parameters', {ropeTheta: 10_000}],
    ['tie_word_embeddings', {tied: false}],
    ['hidden_act', {}],
    ['attention_bias', {}],
  ])('takes %s of null for its default', (key, changed) => {
    expect(read({...tinyConfig, [key]: null})).toEqual({...tinyArchitecture, ...changed});
  });

  it('takes rotations of the kind "default" under either name', () => {
    expect(read({...withoutRope, rope_theta: 5000, rope_scaling: {type: 'default'}})).toEqual(tinyArchitecture);
    expect(read({...withoutRope, rope_theta: 5000, rope_scaling: {rope_type: 'default'}})).toEqual(tinyArchitecture);
  });

  it.each([
    [
      {rope_parameters: null, rope_scaling: {type: 'dynamic', factor: 2}},
      'rope_scaling.type is "dynamic": only "default", "linear", "llama3", "yarn" are supported',
    ],
    [{rope_parameters: {rope_type: 'longrope'}}, 'rope_parameters.rope_type is "longrope": only "default", "linear"'],
    [{rope_parameters: {rope_type: 'linear'}}, 'rope_parameters.factor is missing: this kind of scaling needs it'],
    [
      {rope_scaling: {rope_type: 'llama3', factor: 8, high_freq_factor: 4}},
      'rope_scaling.low_freq_factor is missing: this kind of scaling needs it',
    ],
    [
      {rope_parameters: {rope_type: 'yarn', factor: 4}},
      'rope_parameters.original_max_position_embeddings is missing: this kind',
    ],
    [
      {rope_parameters: {rope_type: 'yarn', factor: 4, original_max_position_embeddings: 9, mscale: 1}},
      'rope_parameters.mscale is 1: it is not supported, only attention_factor',
    ],
    [{rope_parameters: {partial_rotary_factor: 0.5}}, 'rope_parameters.partial_rotary_factor is 0.5: only 1'],
    [{attention_bias: 1}, 'attention_bias is 1: true or false is needed'],
    [{mlp_bias: true}, 'mlp_bias is true: a bias of the feed-forward part is not supported, only false'],
    [{hidden_act: 'gelu'}, 'hidden_act is "gelu": only "silu"'],
    [{quantization_config: {bits: 4}}, 'quantization_config is {"bits":4}: quantised weights are not supported'],
    [{hidden_size: null}, 'hidden_size is missing: a whole number above 0 is needed'],
    [{num_hidden_layers: 1e12}, 'num_hidden_layers is 1000000000000: at most 10000 are supported'],
    [{num_hidden_layers: 1.5}, 'num_hidden_layers is 1.5: a whole number above 0 is needed'],
    [{vocab_size: '32'}, 'vocab_size is "32": a whole number above 0 is needed'],
    [{rms_norm_eps: 0}, 'rms_norm_eps is 0: a number above 0 is needed'],
    [{num_key_value_heads: 3}, 'num_key_value_heads is 3: it must divide num_attention_heads'],
    [{head_dim: 3}, 'head_dim is 3: positions need an even number'],
    [{head_dim: null, num_attention_heads: 6}, 'num_attention_heads is 6: it must divide hidden_size'],
    [{model_type: 'gpt2'}, `model_type is "gpt2"; ${KNOWN}, downcycle_moe.`],
    [{model_type: undefined}, `model_type is missing; ${KNOWN}, downcycle_moe.`],
    [
      {auto_map: {AutoConfig: 'c.C', AutoModelForCausalLM: 'modeling_x.X'}},
      'the model brings code of its own (auto_map: AutoModelForCausalLM is modeling_x.X), which is not run.',
    ],
    [{model_type: 'ministral'}, `model_type is "ministral"; ${KNOWN}, downcycle_moe; nearest is mistral.`],
    [{model_type: 'qwen3_next'}, `model_type is "qwen3_next"; ${KNOWN}, downcycle_moe; nearest is qwen3.`],
  ])('refuses %j, naming file and key', (change, message) => {
    expect(() => read({...tinyConfig, ...change})).toThrow(ModelError);
    expect(() => read({...tinyConfig, ...change})).toThrow(`${FILE}: ${message}`);
  });
});

describe('a config of a mixture of experts', () => {
  const layer = {experts: 4, top_k: 2, expert_width: 4, shared_width: 8, selection_bias: false};
  const inner = {experts: 3, top_k: 1, expert_width: 2, weight: 'one'};
  const routing = {score: 'softmax', order: 'score-then-topk', renormalise: false, scale: 1, weight: 'score'};
  const moe = {source_model_type: 'llama', routing, layers: [layer, {width: 24}]};
  const config = {...tinyConfig, model_type: 'downcycle_moe', moe};

  it('is ours, whatever code its parent brought', () => {
    expect(read({...config, auto_map: {AutoModelForCausalLM: 'modeling_x.X'}}).ffn).toHaveLength(2);
    const written = architectureToConfig(read(config), {auto_map: {AutoConfig: 'c.C'}, bos_token_id: 7});
    expect(written).toMatchObject({bos_token_id: 7});
    expect(written).not.toHaveProperty('auto_map');
  });

  it('lays out each layer on its own', () => {
    expect(read(config).ffn).toEqual([
      {kind: 'moe', experts: 4, topK: 2, expertWidth: 4, sharedWidth: 8, selectionBias: false, router: 'linear'},
      {kind: 'dense', width: 24},
    ]);
    expect(read(config).routing).toEqual(SOFTMAX_ROUTING);
  });

  it('has a top p and kinds of routers where it says so, there and back', () => {
    const routers = [
      {...layer, router: 'cosine', temperature: 0.3},
      {...layer, router: 'autonomy', rank: 2},
    ];
    const said = {...config, moe: {...moe, routing: {...routing, top_p: 0.6}, layers: routers}};
    const near = {...config, moe: {...moe, routing: {...routing, reach: 0.02}}};
    expect(read(architectureToConfig(read(near))).routing).toEqual({...SOFTMAX_ROUTING, reach: 0.02});
    const architecture = read(said);
    expect(architecture.routing).toEqual({...SOFTMAX_ROUTING, topP: 0.6});
    expect(architecture.ffn).toMatchObject([
      {router: 'cosine', temperature: 0.3},
      {router: 'autonomy', rank: 2},
    ]);
    expect(read(architectureToConfig(architecture))).toEqual(architecture);
    expect(JSON.stringify(architectureToConfig(read(config)))).not.toMatch(/top_p|temperature|rank/);
  });

  it('says that experts have biases only where they do', () => {
    const biased = {
      ...config,
      moe: {
        ...moe,
        layers: [
          {...layer, expert_bias: true},
          {...layer, expert_bias: false},
        ],
      },
    };
    const {ffn} = read(biased);
    expect(ffn[0]).toMatchObject({expertBias: true});
    expect(ffn[1]).not.toHaveProperty('expertBias');
    expect(architectureToConfig(read(biased))).toMatchObject({moe: {layers: [{expert_bias: true}, {}]}});
    expect(JSON.stringify(architectureToConfig(read(config)))).not.toContain('expert_bias');
  });

  it('says that the shared expert has a gate only where it does', () => {
    const said = {...config, moe: {...moe, layers: [{...layer, shared_gate: true}, layer]}};
    const {ffn} = read(said);
    expect(ffn[0]).toMatchObject({sharedGate: true});
    expect(ffn[1]).not.toHaveProperty('sharedGate');
    const written = architectureToConfig(read(said));
    expect(written).toMatchObject({moe: {layers: [{shared_gate: true}, {}]}});
    expect(read(written)).toEqual(read(said));
    expect(JSON.stringify(architectureToConfig(read(config)))).not.toContain('shared_gate');
  });

  it.each([
    [{layers: [{...layer, expert_bias: 1}, layer]}, 'moe.layers.0'],
    [{layers: [{...layer, shared_width: 0, shared_gate: true}, layer]}, 'moe.layers.0'],
    [{layers: [layer]}, 'moe.layers has 1 entries, num_hidden_layers is 2.'],
    [{layers: [layer, {...layer, top_k: 5}]}, 'moe.layers.1'],
    [{layers: [layer, {...layer, inner: {...inner, top_k: 4}}]}, 'moe.layers.1'],
    [{layers: [layer, {...layer, inner: {...inner, weight: 'two'}}]}, 'moe.layers.1'],
    [{layers: [layer, {...layer, kind: 'moe'}]}, 'moe.layers.1'],
    [{routing: {...routing, top_p: 0}}, 'moe.routing.top_p is 0: a number above 0 is needed'],
    [{routing: {...routing, top_p: 0.5, score: 'sigmoid'}}, 'moe.routing.top_p'],
    [{routing: {...routing, top_p: 0.5}, layers: [layer, {...layer, inner}]}, 'moe.routing.top_p'],
    [{routing: {...routing, reach: 0}}, 'moe.routing.reach is 0: a number above 0 is needed'],
    [{routing: {...routing, reach: 0.1, renormalise: true}}, 'moe.routing.reach'],
    [{routing: {...routing, reach: 0.1}, layers: [layer, {...layer, selection_bias: true}]}, 'moe.routing.reach'],
    [{layers: [layer, {...layer, router: 'cosine'}]}, 'moe.layers.1'],
    [{layers: [layer, {...layer, router: 'cosine', temperature: 0}]}, 'moe.layers.1'],
    [{layers: [layer, {...layer, temperature: 1}]}, 'moe.layers.1'],
    [{layers: [layer, {...layer, router: 'autonomy'}]}, 'moe.layers.1'],
    [{layers: [layer, {...layer, rank: 2}]}, 'moe.layers.1'],
    [{source_model_type: 'gpt2'}, `moe.source_model_type is "gpt2": ${KNOWN}.`],
    [{source_model_type: 'qwen'}, `moe.source_model_type is "qwen": ${KNOWN}; nearest is qwen2.`],
    [{routing: {...routing, score: 'relu'}}, 'moe.routing.score is "relu": "softmax" or "sigmoid" is needed'],
    [{routing: {...routing, noise: 1}}, 'moe.routing.noise is unknown'],
    [{layers: undefined}, 'moe.layers is missing: a list with one entry a layer is needed'],
  ])('refuses %j', (change, message) => {
    const broken = {...config, moe: {...moe, ...change}};
    expect(() => read(broken)).toThrow(ModelError);
    expect(() => read(broken)).toThrow(`${FILE}: ${message}`);
  });

  it('refuses a config without its section', () => {
    expect(() => read({...tinyConfig, model_type: 'downcycle_moe'})).toThrow(`${FILE}: moe is missing`);
  });
});

describe('architectureToConfig', () => {
  it('is undone by architectureFromConfig, whatever the shape', () => {
    fc.assert(
      fc.property(anyArchitecture, (architecture) => {
        const written = architectureToConfig(architecture);
        const back = read({...written});
        const isDense = written.model_type === architecture.family && architecture.ffn[0]?.kind === 'dense';
        const isPlain = isDense && architecture.ffn.every((layout) => equal(layout, architecture.ffn[0]));
        expect(back).toEqual(isPlain ? {...architecture, routing: SOFTMAX_ROUTING} : architecture);
      }),
    );
  });

  it('is undone by it through a text too, and keeps the keys it knows nothing of', () => {
    const source = {...tinyConfig, bos_token_id: 1, rope_parameters: {rope_theta: 1, rope_type: 'default'}};
    const config = architectureToConfig(tinyArchitecture, source);
    expect(read(JSON.parse(JSON.stringify(config)) as Record<string, unknown>)).toEqual(tinyArchitecture);
    expect(config).toEqual({...tinyConfig, bos_token_id: 1});
  });

  it('names no class of transformers that could not load a mixture', () => {
    const layout = {
      kind: 'moe',
      experts: 4,
      topK: 1,
      expertWidth: 6,
      sharedWidth: 0,
      selectionBias: true,
      router: 'linear',
    } as const;
    const mixture = {...tinyArchitecture, ffn: [layout, layout]};
    const config = architectureToConfig(mixture, tinyConfig);
    expect(config).toMatchObject({
      model_type: 'downcycle_moe',
      architectures: ['DowncycleMoeForCausalLM'],
      intermediate_size: 24,
    });
    expect(architectureToConfig(tinyArchitecture, config)).toEqual(tinyConfig);
  });
});

describe('withDtype', () => {
  it('says the dtype under the key the config has', () => {
    expect(withDtype({dtype: 'float32'}, 'BF16')).toEqual({dtype: 'bfloat16'});
    expect(withDtype({}, 'F16')).toEqual({torch_dtype: 'float16'});
  });
});
