// What GGUF files call the tensors and keys of dense models, and what Hugging Face folders call them.

/** A `general.architecture` that is read. */
export interface GgufFamily {
  /** The `model_type` of a config; none if it is the same word. */
  readonly modelType: string;
  /** Whether the rows of queries and keys lie as llama.cpp turns them: neighbours are a pair, not rows half a head apart. */
  readonly isInterleaved: boolean;
  /** Tensors of a layer, without `blk.{l}.` and `.weight`; values without `model.layers.{l}.`. */
  readonly blockNames: Readonly<Record<string, string>>;
  /** Blocks that have biases: always, or in some models all of them. */
  readonly biases: {readonly blocks: readonly string[]; readonly isAlways: boolean};
  /** Keys that it has besides the common ones, and those of the config. */
  readonly keys: Readonly<Record<string, string>>;
}

const MATRICES = {
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj',
};
const NORMS = {attn_norm: 'input_layernorm', ffn_norm: 'post_attention_layernorm'};
const HEAD_NORMS = {attn_q_norm: 'self_attn.q_norm', attn_k_norm: 'self_attn.k_norm'};
const POST_NORMS = {post_attention_norm: 'post_attention_layernorm', post_ffw_norm: 'post_feedforward_layernorm'};
const PLAIN = {
  isInterleaved: false,
  blockNames: {...MATRICES, ...NORMS},
  biases: {blocks: ['attn_q', 'attn_k', 'attn_v', 'attn_output'], isAlways: false},
  keys: {},
};

/** The architectures that are read, by what files call them. Mistral is `llama` there. */
export const GGUF_FAMILIES: Readonly<Record<string, GgufFamily>> = {
  llama: {...PLAIN, modelType: 'llama', isInterleaved: true},
  qwen2: {...PLAIN, modelType: 'qwen2', biases: {blocks: ['attn_q', 'attn_k', 'attn_v'], isAlways: true}},
  qwen3: {...PLAIN, modelType: 'qwen3', blockNames: {...MATRICES, ...NORMS, ...HEAD_NORMS}},
  olmo2: {...PLAIN, modelType: 'olmo2', blockNames: {...MATRICES, ...POST_NORMS, ...HEAD_NORMS}},
  granite: {
    ...PLAIN,
    modelType: 'granite',
    isInterleaved: true,
    keys: {
      embedding_scale: 'embedding_multiplier',
      'attention.scale': 'attention_multiplier',
      residual_scale: 'residual_multiplier',
      logit_scale: 'logits_scaling',
    },
  },
};

const OUTER: Readonly<Record<string, string>> = {
  'token_embd.weight': 'model.embed_tokens.weight',
  'output_norm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
};

/** How fast the pairs of a head turn, of models whose config says it by `rope_scaling`. */
export const ROPE_FACTORS = 'rope_freqs.weight';

/** The name of a tensor in a Hugging Face folder; its own if the family has none of that name. */
export function folderName(name: string, {blockNames}: GgufFamily): string {
  const [, layer = '', block = '', end = ''] = /^blk\.(\d+)\.(\w+)\.(weight|bias)$/.exec(name) ?? [];
  const known = Object.hasOwn(blockNames, block) ? blockNames[block] : undefined;
  return OUTER[name] ?? (known === undefined ? name : `model.layers.${layer}.${known}.${end}`);
}
