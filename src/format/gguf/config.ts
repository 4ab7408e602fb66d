// Keys of a GGUF file to those of a config.json.
import {ModelError} from '../../util/errors.js';
import {nearest} from '../../util/nearest.js';
import {DTYPE_WORDS, type FloatDtype, widen} from '../dtype.js';
import type {GgufFile} from './file.js';
import type {Metadata} from './metadata.js';
import {GGUF_FAMILIES, type GgufFamily, ROPE_FACTORS} from './names.js';
import {llama3Scaling, type RopeScalingKeys} from './rope.js';

/** What a file says about its model. */
export interface GgufModel {
  readonly family: GgufFamily;
  readonly headDim: number;
  /** As a config.json would be. */
  readonly config: Readonly<Record<string, unknown>>;
}

/** Keys of an architecture, without its name, that have one meaning each in a config. */
const NEEDED = {
  embedding_length: 'hidden_size',
  feed_forward_length: 'intermediate_size',
  block_count: 'num_hidden_layers',
  'attention.head_count': 'num_attention_heads',
  'attention.layer_norm_rms_epsilon': 'rms_norm_eps',
  context_length: 'max_position_embeddings',
} as const;
/** Keys that are heeded below. */
const HEEDED = [
  'attention.head_count_kv',
  'attention.key_length',
  'attention.value_length',
  'rope.dimension_count',
  'rope.freq_base',
  'rope.scaling.type',
  'rope.scaling.factor',
  'rope.scaling.original_context_length',
  'rope.scaling.yarn_beta_fast',
  'rope.scaling.yarn_beta_slow',
  'rope.scaling.attn_factor',
  'rope.scale_linear',
];
/** Keys that change nothing of what a dense model computes here. */
const HARMLESS = ['vocab_size', 'rope.scaling.finetuned', 'tensor_data_layout'];
const TOKENS = {
  bos_token_id: ['tokenizer.ggml.bos_token_id'],
  // of a text, of a turn, of a message to a tool: each ends what a model says
  eos_token_id: ['tokenizer.ggml.eos_token_id', 'tokenizer.ggml.eot_token_id', 'tokenizer.ggml.eom_token_id'],
  pad_token_id: ['tokenizer.ggml.padding_token_id'],
};

/**
 * The config of a file's model.
 *
 * @throws ModelError naming the key, if the architecture is none of those that are read, the file is a part of a model, a
 * key is missing or of another type, or one changes what the model computes in a way that is not known here.
 */
export async function readGgufModel(file: GgufFile): Promise<GgufModel> {
  const {path, metadata, tensors} = file;
  requireWhole(metadata, path);
  const name = architectureName(metadata, path);
  const family = familyOf(name, path);
  const keys = createKeys(name, metadata, path);
  keys.refuseUnknown([...Object.keys(NEEDED), ...Object.keys(family.keys), ...HEEDED]);
  const heads = keys.number('attention.head_count');
  const headDim = headDimOf(keys, keys.number('embedding_length') / heads);
  const embedding = tensors.get('token_embd.weight');
  if (!embedding) throw new ModelError(`${path}: tensor "token_embd.weight" is missing.`);
  const config = {
    model_type: family.modelType,
    vocab_size: embedding.shape[0],
    ...keys.numbers(NEEDED),
    num_key_value_heads: keys.number('attention.head_count_kv', heads),
    head_dim: headDim,
    ...keys.numbers(family.keys),
    rope_theta: keys.number('rope.freq_base', 10_000),
    rope_scaling: await scalingOf(keys, file, headDim),
    ...(!family.biases.isAlways && hasBiases(file, family) && {attention_bias: true}),
    tie_word_embeddings: !tensors.has('output.weight'),
    torch_dtype: DTYPE_WORDS[matrixDtype(file)],
    ...tokenIds(metadata),
  };
  return {family, headDim, config};
}

/** Whether there are biases where models of the family have them, or may. */
export function hasBiases({tensors}: GgufFile, {biases}: GgufFamily): boolean {
  return biases.isAlways || biases.blocks.some((block) => tensors.has(`blk.0.${block}.bias`));
}

/** @throws ModelError if a file is one of several, or no model. */
function requireWhole(metadata: Metadata, path: string): void {
  const parts = metadata.get('split.count');
  if (typeof parts === 'number' && parts > 1) {
    const part = Number(metadata.get('split.no')) + 1;
    throw new ModelError(`${path}: this is part ${part} of ${parts} of a model.`, {
      hint: 'Join them: `llama-gguf-split --merge <first part> <new>` of llama.cpp.',
    });
  }
  const type = metadata.get('general.type') ?? 'model';
  if (type !== 'model') throw new ModelError(`${path}: general.type is ${JSON.stringify(type)}; a model is needed.`);
}

function architectureName(metadata: Metadata, path: string): string {
  const name = metadata.get('general.architecture');
  if (typeof name === 'string') return name;
  throw new ModelError(`${path}: ${name === undefined ? 'there is no' : 'no text is'} general.architecture.`);
}

function familyOf(name: string, path: string): GgufFamily {
  const family = Object.hasOwn(GGUF_FAMILIES, name) ? GGUF_FAMILIES[name] : undefined;
  if (family) return family;
  const known = Object.keys(GGUF_FAMILIES);
  // `qwen2moe` and the like are variants of the family that their name begins with
  const closest = known.find((one) => name.startsWith(one)) ?? nearest(name, known);
  const near = closest ? `; nearest is ${closest}` : '';
  throw new ModelError(`${path}: general.architecture is "${name}"; known are ${known.join(', ')}${near}.`, {
    hint: 'Give the model as a Hugging Face folder, which may be of more families.',
  });
}

/** The keys of one architecture. */
interface Keys {
  readonly path: string;
  /** The number of a key. @throws ModelError if it is another thing, or missing and without a default. */
  number(key: string, otherwise?: number): number;
  numbers(names: Readonly<Record<string, string>>): Record<string, number>;
  text(key: string, otherwise: string): string;
  /** The whole name of a key, and what the file says. */
  describe(key: string): string;
  refuseUnknown(known: readonly string[]): void;
}

function createKeys(name: string, metadata: Metadata, path: string): Keys {
  const value = (key: string) => metadata.get(`${name}.${key}`);
  const describe = (key: string): string => {
    const found = value(key);
    return `${name}.${key} is ${typeof found === 'object' ? 'a list' : (JSON.stringify(found) ?? 'missing')}`;
  };
  const number = (key: string, otherwise?: number): number => {
    const found = value(key) ?? otherwise;
    if (typeof found === 'number') return found;
    const why = typeof found === 'object' ? '; layers that differ are not read' : '';
    throw new ModelError(`${path}: ${describe(key)}; a number is needed${why}.`);
  };
  return {
    path,
    describe,
    number,
    numbers: (names) => Object.fromEntries(Object.entries(names).map(([key, to]) => [to, number(key)])),
    text: (key, otherwise) => {
      const found = value(key) ?? otherwise;
      if (typeof found === 'string') return found;
      throw new ModelError(`${path}: ${describe(key)}; a text is needed.`);
    },
    refuseUnknown: (known) => {
      for (const [key, said] of metadata) {
        const own = key.startsWith(`${name}.`) ? key.slice(name.length + 1) : null;
        if (own === null || known.includes(own) || HARMLESS.includes(own)) continue;
        const isNothing = own === 'attention.causal' ? said === true : said === 0 || said === false;
        if (isNothing) continue;
        throw new ModelError(`${path}: ${describe(own)}; what it changes is not computed here.`, {
          hint: 'Dense models without a window, caps or experts are read.',
        });
      }
    },
  };
}

function headDimOf(keys: Keys, otherwise: number): number {
  const headDim = keys.number('attention.key_length', otherwise);
  for (const key of ['attention.value_length', 'rope.dimension_count']) {
    if (keys.number(key, headDim) === headDim) continue;
    throw new ModelError(`${keys.path}: ${keys.describe(key)}, and a head has ${headDim}; only the same is supported.`);
  }
  if (Number.isInteger(headDim / 2) && headDim > 0) return headDim;
  throw new ModelError(`${keys.path}: heads of ${headDim} numbers cannot be; positions need an even number.`);
}

/** `rope_scaling`: as the keys say, or such that its factors are those of the file. Null if there is none. */
async function scalingOf(keys: Keys, file: GgufFile, headDim: number): Promise<RopeScalingKeys | null> {
  const factors = file.tensors.get(ROPE_FACTORS);
  const first = keys.number('rope.scaling.original_context_length', 0);
  if (factors) {
    if (keys.text('rope.scaling.type', 'none') !== 'none') {
      throw new ModelError(
        `${keys.path}: ${keys.describe('rope.scaling.type')}, and tensor "${ROPE_FACTORS}" is there, too.`,
        {
          hint: 'Positions scaled in two ways are not read.',
        },
      );
    }
    const bytes = await file.read(factors, `tensor "${ROPE_FACTORS}"`);
    const rotation = {theta: keys.number('rope.freq_base', 10_000), headDim, firstContext: first === 0 ? null : first};
    return llama3Scaling(widen(bytes, factors.packing.dtype), rotation, keys.path);
  }
  const oldFactor = keys.number('rope.scale_linear', 1);
  const kind = keys.text('rope.scaling.type', oldFactor === 1 ? 'none' : 'linear');
  if (kind === 'none') return null;
  if (keys.number('rope.scaling.attn_factor', 1) !== 1) {
    throw new ModelError(`${keys.path}: ${keys.describe('rope.scaling.attn_factor')}; only 1 is supported.`);
  }
  return {
    rope_type: kind,
    factor: keys.number('rope.scaling.factor', oldFactor),
    ...(first > 0 && {original_max_position_embeddings: first}),
    ...(kind === 'yarn' && {
      beta_fast: keys.number('rope.scaling.yarn_beta_fast', 32),
      beta_slow: keys.number('rope.scaling.yarn_beta_slow', 1),
    }),
  };
}

/** The dtype of the matrices; float32, which holds all others, if they have several. */
function matrixDtype({tensors}: GgufFile): FloatDtype {
  const matrices = [...tensors.values()].filter(({shape}) => shape.length > 1);
  const [dtype = 'F32', ...others] = new Set(matrices.map(({packing}) => packing.dtype));
  return others.length === 0 ? dtype : 'F32';
}

/** A number for one id, a list for several, as in a config. */
function tokenIds(metadata: Metadata): Record<string, number | readonly number[]> {
  const said = Object.entries(TOKENS).map(([to, keys]) => {
    const ids = keys.map((key) => metadata.get(key)).filter((id) => typeof id === 'number');
    return [to, [...new Set(ids)]] as const;
  });
  return Object.fromEntries(
    said.flatMap(([to, ids]) => {
      const [only] = ids;
      return only === undefined ? [] : [[to, ids.length === 1 ? only : ids]];
    }),
  );
}
