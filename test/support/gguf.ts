// Writes GGUF files: by hand, so that they may lie, and out of Hugging Face folders, as llama.cpp does.
import {writeFile} from 'node:fs/promises';
import {type FloatDtype, narrow} from '../../src/format/dtype.js';
import {type ModelFolder, openModelFolder} from '../../src/format/model-folder.js';

/** A value with its type; a list has the type of what is in it. */
export type GgufValue =
  | {readonly type: 'u32' | 'i32' | 'u64' | 'f32'; readonly value: number}
  | {readonly type: 'bool'; readonly value: boolean}
  | {readonly type: 'text'; readonly value: string}
  | {readonly type: 'texts'; readonly value: readonly string[]}
  | {readonly type: 'i32s'; readonly value: readonly number[]};

/** A tensor; `shape` in our order, rows before columns. */
export interface GgufTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Number of its packing. */
  readonly code: number;
  readonly bytes: Uint8Array;
  /** Where it claims to begin in the data; where it does, unless said. */
  readonly offset?: number;
}

/** A file, and what it claims otherwise than it is. */
export interface GgufContent {
  readonly metadata: Readonly<Record<string, GgufValue>>;
  readonly tensors: readonly GgufTensor[];
  readonly version?: number;
  readonly numTensors?: number;
  readonly numKeys?: number;
  readonly alignment?: number;
}

export const text = (value: string): GgufValue => ({type: 'text', value});
export const u32 = (value: number): GgufValue => ({type: 'u32', value});
export const f32 = (value: number): GgufValue => ({type: 'f32', value});
export const bool = (value: boolean): GgufValue => ({type: 'bool', value});
export const texts = (value: readonly string[]): GgufValue => ({type: 'texts', value});

/** Numbers of the plain packings in files. */
export const CODES = {F32: 0, F16: 1, BF16: 30} as const;

/** The bytes of a file. */
export function renderGguf({metadata, tensors, version = 3, alignment = 32, ...claims}: GgufContent): Buffer {
  const keys = Object.entries(metadata);
  const padded = tensors.map(({bytes}) =>
    Buffer.concat([bytes, Buffer.alloc((alignment - (bytes.length % alignment)) % alignment)]),
  );
  let offset = 0;
  const heads = tensors.map(({name, shape, code, offset: claimed}, i) => {
    const axes = shape.toReversed().map((size) => number(8, size));
    const head = [string(name), number(4, shape.length), ...axes, number(4, code), number(8, claimed ?? offset)];
    offset += padded[i]!.length;
    return Buffer.concat(head);
  });
  const head = Buffer.concat([
    Buffer.from('GGUF'),
    ...[number(4, version), number(8, claims.numTensors ?? tensors.length), number(8, claims.numKeys ?? keys.length)],
    ...keys.map(([key, value]) => Buffer.concat([string(key), renderValue(value)])),
    ...heads,
  ]);
  return Buffer.concat([head, Buffer.alloc((alignment - (head.length % alignment)) % alignment), ...padded]);
}

function renderValue(value: GgufValue): Buffer {
  switch (value.type) {
    case 'u32':
      return Buffer.concat([number(4, 4), number(4, value.value)]);
    case 'i32':
      return Buffer.concat([number(4, 5), number(4, value.value)]);
    case 'u64':
      return Buffer.concat([number(4, 10), number(8, value.value)]);
    case 'f32':
      return Buffer.concat([number(4, 6), Buffer.from(Float32Array.of(value.value).buffer)]);
    case 'bool':
      return Buffer.concat([number(4, 7), Buffer.from([value.value ? 1 : 0])]);
    case 'text':
      return Buffer.concat([number(4, 8), string(value.value)]);
    case 'texts':
      return Buffer.concat([number(4, 9), number(4, 8), number(8, value.value.length), ...value.value.map(string)]);
    case 'i32s':
      return Buffer.concat([
        number(4, 9),
        number(4, 5),
        number(8, value.value.length),
        Buffer.from(Int32Array.from(value.value).buffer),
      ]);
  }
}

function string(value: string): Buffer {
  return Buffer.concat([number(8, Buffer.byteLength(value)), Buffer.from(value)]);
}

function number(bytes: 4 | 8, value: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  if (bytes === 4) buffer.writeUInt32LE(value);
  else buffer.writeBigUInt64LE(BigInt(value));
  return buffer;
}

/** What llama.cpp calls the parts of a layer. */
const BLOCKS: Readonly<Record<string, string>> = {
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
  input_layernorm: 'attn_norm',
  post_attention_layernorm: 'ffn_norm',
};
const POST_BLOCKS = {post_attention_layernorm: 'post_attention_norm', post_feedforward_layernorm: 'post_ffw_norm'};
const OUTER: Readonly<Record<string, string>> = {
  'model.embed_tokens.weight': 'token_embd.weight',
  'model.norm.weight': 'output_norm.weight',
  'lm_head.weight': 'output.weight',
};

/** The content of a file out of an open folder: names, keys, and in llama and granite rows of queries and keys, as llama.cpp has them. */
export async function ggufOf({config, tensors}: ModelFolder, dtype: keyof typeof CODES = 'F32'): Promise<GgufContent> {
  const architecture = String(config.model_type);
  const packed: GgufTensor[] = [];
  for (const name of tensors.names) {
    const [, layer = '', part = '', end = ''] = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) ?? [];
    const blocks = architecture === 'olmo2' ? {...BLOCKS, ...POST_BLOCKS} : BLOCKS;
    const {shape} = tensors.info(name);
    const values = await tensors.read(name);
    const [numRows = 0] = shape;
    const isTurned = ['llama', 'granite'].includes(architecture) && /self_attn\.[qk]_proj/.test(part);
    const heads = Number(config[part.includes('q_proj') ? 'num_attention_heads' : 'num_key_value_heads']);
    const as: FloatDtype = shape.length === 1 ? 'F32' : dtype; // llama.cpp leaves vectors in float32
    packed.push({
      name: OUTER[name] ?? `blk.${layer}.${blocks[part as keyof typeof blocks]}.${end}`,
      shape,
      code: CODES[as],
      bytes: narrow(isTurned ? interleave(values, numRows, heads) : values, as),
    });
  }
  const rope = (config.rope_parameters ?? {}) as Config;
  if (rope.rope_type === 'llama3') packed.push(ropeFactors(rope, Number(config.head_dim)));
  return {metadata: metadataOf(architecture, config), tensors: packed};
}

/** As llama.cpp turns rows of queries and keys: of each head row j of the first half, then row j of the second. */
function interleave(values: Float32Array, numRows: number, heads: number): Float32Array {
  const [columns, headRows] = [values.length / numRows, numRows / heads];
  const turned = new Float32Array(values.length);
  for (let row = 0; row < numRows; row++) {
    const [head, inHead] = [Math.floor(row / headRows), row % headRows];
    const from = head * headRows + (inHead % 2) * (headRows / 2) + Math.floor(inHead / 2);
    turned.set(values.subarray(from * columns, (from + 1) * columns), row * columns);
  }
  return turned;
}

type Config = Readonly<Record<string, unknown>>;

/** Keys of the file for those of the config; the latter as transformers 5 writes them. */
function metadataOf(name: string, config: Config): Record<string, GgufValue> {
  const rope = (config.rope_parameters ?? {rope_theta: config.rope_theta}) as Config;
  const keys: Record<string, GgufValue | null> = {
    context_length: u32(Number(config.max_position_embeddings)),
    embedding_length: u32(Number(config.hidden_size)),
    block_count: u32(Number(config.num_hidden_layers)),
    feed_forward_length: u32(Number(config.intermediate_size)),
    'attention.head_count': u32(Number(config.num_attention_heads)),
    'attention.head_count_kv': u32(Number(config.num_key_value_heads)),
    'attention.layer_norm_rms_epsilon': f32(Number(config.rms_norm_eps)),
    'rope.freq_base': f32(Number(rope.rope_theta)),
    ...(config.head_dim !== undefined && {
      'attention.key_length': u32(Number(config.head_dim)),
      'attention.value_length': u32(Number(config.head_dim)),
    }),
    ...scalingOf(rope),
    ...(name === 'granite' && {
      'attention.scale': f32(Number(config.attention_multiplier)),
      embedding_scale: f32(Number(config.embedding_multiplier)),
      residual_scale: f32(Number(config.residual_multiplier)),
      logit_scale: f32(Number(config.logits_scaling)),
    }),
  };
  const named = Object.entries(keys).flatMap(([key, value]) => (value ? [[`${name}.${key}`, value] as const] : []));
  return {'general.architecture': text(name), ...Object.fromEntries(named)};
}

/** Of Llama 3 it is said by a tensor, with the context here that it was lengthened from; see {@link ropeFactors}. */
function scalingOf(rope: Config): Record<string, GgufValue> {
  const first = rope.original_max_position_embeddings;
  const type = typeof rope.rope_type === 'string' ? rope.rope_type : 'default';
  return {
    ...(first !== undefined && {'rope.scaling.original_context_length': u32(Number(first))}),
    ...(['linear', 'yarn'].includes(type) && {
      'rope.scaling.type': text(type),
      'rope.scaling.factor': f32(Number(rope.factor)),
    }),
    ...(rope.beta_fast !== undefined && {'rope.scaling.yarn_beta_fast': f32(Number(rope.beta_fast))}),
  };
}

/** The tensor that llama.cpp makes of the keys of Llama 3, in its words and in float32. */
export function ropeFactors(rope: Config, headDim: number): GgufTensor {
  const [factor, low, high] = [rope.factor, rope.low_freq_factor, rope.high_freq_factor].map(Number) as [
    number,
    number,
    number,
  ];
  const context = Number(rope.original_max_position_embeddings);
  const factors = Float32Array.from({length: headDim / 2}, (_, i) => {
    const wavelength = 2 * Math.PI * Math.fround(Number(rope.rope_theta) ** ((2 * i) / headDim));
    if (wavelength < context / high) return 1;
    if (wavelength > context / low) return factor;
    const smooth = (context / wavelength - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
  return {name: 'rope_freqs.weight', shape: [headDim / 2], code: 0, bytes: narrow(factors, 'F32')};
}

/** Writes a file out of a folder, with changes. */
export async function writeGguf(
  path: string,
  folder: string,
  change: (content: GgufContent) => GgufContent = (content) => content,
  dtype: keyof typeof CODES = 'F32',
): Promise<string> {
  const open = await openModelFolder(folder);
  const content = await ggufOf(open, dtype);
  await open.close();
  await writeFile(path, renderGguf(change(content)));
  return path;
}
