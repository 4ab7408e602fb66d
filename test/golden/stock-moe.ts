// The stock MoE classes of transformers whose mathematics our architecture can say, read from their golden folders.
import {join} from 'node:path';
import type {Architecture, Routing} from '../../src/model/architecture.js';
import type {ConfigRecord} from '../../src/model/family/definition.js';
import {LLAMA} from '../../src/model/family/llama.js';
import {floats, type Host, sizeOf} from '../support/host.js';
import {readJson, readTensors} from './goldens.js';
import {type HostModel, weightsFromDisk} from './run-model.js';

export type StockName = 'mixtral' | 'glm4_moe' | 'granitemoeshared';

/** What `golden.json` of a stock MoE holds. */
export interface StockGolden {
  readonly cross_entropy: number;
  readonly loss_reported: number;
  /** The pooled balance loss and its weight; Glm4Moe has none. */
  readonly aux_loss?: number;
  readonly aux_coefficient?: number;
  readonly aux_loss_per_layer?: readonly number[];
  /** By the running module's names; one number an expert for stacked tensors. */
  readonly gradient_norms_of_loss_reported: Readonly<Record<string, number | readonly number[]>>;
}

/** A stock MoE as a model of ours, with its golden numbers. */
export interface StockMoe extends HostModel {
  readonly golden: StockGolden;
  readonly tensors: Readonly<Record<string, Host>>;
}

interface StockConfig extends ConfigRecord {
  readonly intermediate_size: number;
  readonly moe_intermediate_size?: number;
  readonly shared_intermediate_size?: number;
  readonly n_shared_experts?: number;
  readonly num_experts_per_tok: number;
  readonly routed_scaling_factor?: number;
}

const NUM_EXPERTS = 8;

export function readStockMoe(name: StockName, folder: string): StockMoe {
  const config = readJson<StockConfig>(join(folder, 'config.json'));
  const architecture = architectureOf(name, config);
  const weights = weightsFromDisk(llamaNames(name, readTensors(join(folder, 'model.safetensors'))), architecture);
  const golden = readJson<StockGolden>(join(folder, 'golden.json'));
  return {architecture, weights, golden, tensors: readTensors(join(folder, 'golden.safetensors'))};
}

/** The parameters of ours that a stock module's parameter holds: one, or two for a fused matrix. */
export function pathsOf(module: string): string[] {
  const [, layer, rest = module] = /^model\.layers\.(\d+)\.(.*)$/.exec(module) ?? [];
  const path = PATHS[rest];
  if (path === undefined) throw new Error(`no parameter is ${module}`);
  return path.split(' ').map((one) => (layer === undefined ? one : `layers.${layer}.${one}`));
}

const PATHS: Readonly<Record<string, string>> = {
  'lm_head.weight': 'head',
  'model.embed_tokens.weight': 'embed',
  'model.norm.weight': 'norm',
  'input_layernorm.weight': 'attentionNorm',
  'post_attention_layernorm.weight': 'ffnNorm',
  'self_attn.q_proj.weight': 'attention.q',
  'self_attn.k_proj.weight': 'attention.k',
  'self_attn.v_proj.weight': 'attention.v',
  'self_attn.o_proj.weight': 'attention.o',
  'mlp.gate.weight': 'ffn.router',
  'mlp.experts.gate_proj': 'ffn.experts.gate',
  'mlp.experts.up_proj': 'ffn.experts.up',
  'mlp.experts.down_proj': 'ffn.experts.down',
  'mlp.shared_experts.gate_proj.weight': 'ffn.shared.gate',
  'mlp.shared_experts.up_proj.weight': 'ffn.shared.up',
  'mlp.shared_experts.down_proj.weight': 'ffn.shared.down',
  'block_sparse_moe.router.weight': 'ffn.router',
  'block_sparse_moe.experts.gate_proj': 'ffn.experts.gate',
  'block_sparse_moe.experts.up_proj': 'ffn.experts.up',
  'block_sparse_moe.experts.down_proj': 'ffn.experts.down',
  'shared_mlp.input_linear.weight': 'ffn.shared.gate ffn.shared.up',
  'shared_mlp.output_linear.weight': 'ffn.shared.down',
};

function architectureOf(name: StockName, config: StockConfig): Architecture {
  const dense = LLAMA.readConfig(config, name);
  const expertWidth = config.moe_intermediate_size ?? config.intermediate_size;
  const layout = {
    kind: 'moe',
    experts: NUM_EXPERTS,
    topK: config.num_experts_per_tok,
    expertWidth,
    sharedWidth: config.shared_intermediate_size ?? (config.n_shared_experts ?? 0) * expertWidth,
    selectionBias: name === 'glm4_moe',
    router: 'linear',
  } as const;
  const routing = {...ROUTING[name], scale: config.routed_scaling_factor ?? 1};
  return {...dense, ffn: dense.ffn.map(() => layout), routing};
}

const ROUTING: Readonly<Record<StockName, Routing>> = {
  mixtral: {score: 'softmax', order: 'score-then-topk', renormalise: true, scale: 1, weight: 'score'},
  glm4_moe: {score: 'sigmoid', order: 'score-then-topk', renormalise: false, scale: 1, weight: 'score'},
  granitemoeshared: {score: 'softmax', order: 'topk-then-score', renormalise: false, scale: 1, weight: 'score'},
};

/** The tensors under the names of our own MoE folders. */
function llamaNames(name: StockName, tensors: Readonly<Record<string, Host>>): Record<string, Host> {
  return Object.fromEntries(Object.entries(tensors).flatMap(([disk, tensor]) => RENAMED[name](disk, tensor)));
}

type Named = [name: string, tensor: Host];

const RENAMED: Readonly<Record<StockName, (name: string, tensor: Host) => Named[]>> = {
  mixtral: (name, tensor) => [[replaceAll(name, MIXTRAL), tensor]],
  glm4_moe: (name, tensor) => [[name.replace('shared_experts', 'shared_expert'), tensor]],
  granitemoeshared: (name, tensor) => {
    const stem = name.replace(/(block_sparse_moe|shared_mlp).*/, 'mlp');
    if (name.includes('shared_mlp.')) return unfuse(name, `${stem}.shared_expert`, tensor);
    if (name.includes('router')) return [[`${stem}.gate.weight`, tensor]];
    if (!name.includes('block_sparse_moe')) return [[name, tensor]];
    return sliceFirst(tensor, NUM_EXPERTS).flatMap((expert, e) => unfuse(name, `${stem}.experts.${e}`, expert));
  },
};

const MIXTRAL = {
  block_sparse_moe: 'mlp',
  'w1.weight': 'gate_proj.weight',
  'w3.weight': 'up_proj.weight',
  'w2.weight': 'down_proj.weight',
};

function replaceAll(text: string, words: Readonly<Record<string, string>>): string {
  return Object.entries(words).reduce((result, [from, to]) => result.replace(from, to), text);
}

/** Granite's input matrix holds gate rows, then up rows. */
function unfuse(name: string, stem: string, tensor: Host): Named[] {
  if (name.includes('output_linear')) return [[`${stem}.down_proj.weight`, tensor]];
  const [rows = 0, columns = 0] = tensor.shape;
  const [gate, up] = sliceFirst({...tensor, shape: [2, rows / 2, columns]}, 2);
  return [
    [`${stem}.gate_proj.weight`, gate!],
    [`${stem}.up_proj.weight`, up!],
  ];
}

/** The parts of a tensor along its first axis. */
function sliceFirst({shape: [, ...shape], values}: Host, count: number): Host[] {
  const size = sizeOf(shape);
  return Array.from({length: count}, (_, i) => floats(shape, Array.from(values).slice(i * size, (i + 1) * size)));
}
