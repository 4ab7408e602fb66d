// What families call their tensors on disk: the parts that tables of names are put together from.
import type {FamilyDefinition} from './definition.js';

type Names = FamilyDefinition['names'];

/** Embedding, head, projections and feed-forward part, which every family calls alike. */
export const COMMON_NAMES: Names = {
  embed: 'model.embed_tokens.weight',
  'layers.{l}.attention.q': 'model.layers.{l}.self_attn.q_proj.weight',
  'layers.{l}.attention.k': 'model.layers.{l}.self_attn.k_proj.weight',
  'layers.{l}.attention.v': 'model.layers.{l}.self_attn.v_proj.weight',
  'layers.{l}.attention.o': 'model.layers.{l}.self_attn.o_proj.weight',
  'layers.{l}.ffn.gate': 'model.layers.{l}.mlp.gate_proj.weight',
  'layers.{l}.ffn.up': 'model.layers.{l}.mlp.up_proj.weight',
  'layers.{l}.ffn.down': 'model.layers.{l}.mlp.down_proj.weight',
  'layers.{l}.ffn.router': 'model.layers.{l}.mlp.gate.weight',
  'layers.{l}.ffn.routerUp': 'model.layers.{l}.mlp.gate_up.weight',
  'layers.{l}.ffn.routerOut': 'model.layers.{l}.mlp.gate_out.weight',
  'layers.{l}.ffn.bias': 'model.layers.{l}.mlp.gate.e_score_correction_bias',
  'layers.{l}.ffn.scale': 'model.layers.{l}.mlp.gate.expert_scale',
  'layers.{l}.ffn.shared.gate': 'model.layers.{l}.mlp.shared_expert.gate_proj.weight',
  'layers.{l}.ffn.shared.up': 'model.layers.{l}.mlp.shared_expert.up_proj.weight',
  'layers.{l}.ffn.shared.down': 'model.layers.{l}.mlp.shared_expert.down_proj.weight',
  'layers.{l}.ffn.sharedGate': 'model.layers.{l}.mlp.shared_expert_gate.weight',
  'layers.{l}.ffn.experts.gate': 'model.layers.{l}.mlp.experts.{e}.gate_proj.weight',
  'layers.{l}.ffn.experts.up': 'model.layers.{l}.mlp.experts.{e}.up_proj.weight',
  'layers.{l}.ffn.experts.down': 'model.layers.{l}.mlp.experts.{e}.down_proj.weight',
  'layers.{l}.ffn.expertBias': 'model.layers.{l}.mlp.experts.{e}.down_proj.bias',
  'layers.{l}.ffn.inner.router': 'model.layers.{l}.mlp.experts.{e}.gate.weight',
  'layers.{l}.ffn.inner.routerUp': 'model.layers.{l}.mlp.experts.{e}.gate_up.weight',
  'layers.{l}.ffn.inner.experts.gate': 'model.layers.{l}.mlp.experts.{e}.experts.{i}.gate_proj.weight',
  'layers.{l}.ffn.inner.experts.up': 'model.layers.{l}.mlp.experts.{e}.experts.{i}.up_proj.weight',
  'layers.{l}.ffn.inner.experts.down': 'model.layers.{l}.mlp.experts.{e}.experts.{i}.down_proj.weight',
  head: 'lm_head.weight',
};

/** Weights of norms before attention, before the feed-forward part and at the end. */
export const NORM_NAMES: Names = {
  'layers.{l}.attentionNorm': 'model.layers.{l}.input_layernorm.weight',
  'layers.{l}.ffnNorm': 'model.layers.{l}.post_attention_layernorm.weight',
  norm: 'model.norm.weight',
};

/** Weights of norms after attention, after the feed-forward part and at the end. */
export const POST_NORM_NAMES: Names = {
  'layers.{l}.attentionNorm': 'model.layers.{l}.post_attention_layernorm.weight',
  'layers.{l}.ffnNorm': 'model.layers.{l}.post_feedforward_layernorm.weight',
  norm: 'model.norm.weight',
};

/** Biases of queries, keys and values. */
export const QKV_BIAS_NAMES: Names = {
  'layers.{l}.attention.qBias': 'model.layers.{l}.self_attn.q_proj.bias',
  'layers.{l}.attention.kBias': 'model.layers.{l}.self_attn.k_proj.bias',
  'layers.{l}.attention.vBias': 'model.layers.{l}.self_attn.v_proj.bias',
};

/** Biases of all four projections of attention. */
export const ATTENTION_BIAS_NAMES: Names = {
  ...QKV_BIAS_NAMES,
  'layers.{l}.attention.oBias': 'model.layers.{l}.self_attn.o_proj.bias',
};

/** Weights of the norms of queries and keys. */
export const QK_NORM_NAMES: Names = {
  'layers.{l}.attention.qNorm': 'model.layers.{l}.self_attn.q_norm.weight',
  'layers.{l}.attention.kNorm': 'model.layers.{l}.self_attn.k_norm.weight',
};

/** Routers and experts as Mixtral calls them. */
export const MIXTRAL_NAMES: Names = {
  'layers.{l}.ffn.router': 'model.layers.{l}.block_sparse_moe.gate.weight',
  'layers.{l}.ffn.experts.gate': 'model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight',
  'layers.{l}.ffn.experts.up': 'model.layers.{l}.block_sparse_moe.experts.{e}.w3.weight',
  'layers.{l}.ffn.experts.down': 'model.layers.{l}.block_sparse_moe.experts.{e}.w2.weight',
};

/** Shared experts as GLM-4 calls them. */
export const GLM_SHARED_NAMES: Names = {
  'layers.{l}.ffn.shared.gate': 'model.layers.{l}.mlp.shared_experts.gate_proj.weight',
  'layers.{l}.ffn.shared.up': 'model.layers.{l}.mlp.shared_experts.up_proj.weight',
  'layers.{l}.ffn.shared.down': 'model.layers.{l}.mlp.shared_experts.down_proj.weight',
};

/** Routers and experts as Granite calls them: gate and up are one tensor, those of all experts too. */
export const GRANITE_MOE_NAMES: Names = {
  'layers.{l}.ffn.router': 'model.layers.{l}.block_sparse_moe.router.layer.weight',
  'layers.{l}.ffn.shared.gate': 'model.layers.{l}.shared_mlp.input_linear.weight[0/2]',
  'layers.{l}.ffn.shared.up': 'model.layers.{l}.shared_mlp.input_linear.weight[1/2]',
  'layers.{l}.ffn.shared.down': 'model.layers.{l}.shared_mlp.output_linear.weight',
  'layers.{l}.ffn.experts.gate': 'model.layers.{l}.block_sparse_moe.input_linear.weight[{e}][0/2]',
  'layers.{l}.ffn.experts.up': 'model.layers.{l}.block_sparse_moe.input_linear.weight[{e}][1/2]',
  'layers.{l}.ffn.experts.down': 'model.layers.{l}.block_sparse_moe.output_linear.weight[{e}]',
};

/**
 * What DBRX calls its tensors: queries, keys and values are one, and those of all experts. What only mixtures of ours have is
 * called as everywhere.
 */
export const DBRX_NAMES: Names = {
  ...Object.fromEntries(
    Object.entries(COMMON_NAMES).map(([path, name]) => [
      path,
      name.replace('model.layers.{l}.mlp.', 'transformer.blocks.{l}.ffn.'),
    ]),
  ),
  embed: 'transformer.wte.weight',
  'layers.{l}.attention.q': 'transformer.blocks.{l}.norm_attn_norm.attn.Wqkv.weight[q/qkv]',
  'layers.{l}.attention.k': 'transformer.blocks.{l}.norm_attn_norm.attn.Wqkv.weight[k/qkv]',
  'layers.{l}.attention.v': 'transformer.blocks.{l}.norm_attn_norm.attn.Wqkv.weight[v/qkv]',
  'layers.{l}.attention.o': 'transformer.blocks.{l}.norm_attn_norm.attn.out_proj.weight',
  'layers.{l}.ffn.router': 'transformer.blocks.{l}.ffn.router.layer.weight',
  'layers.{l}.ffn.experts.gate': 'transformer.blocks.{l}.ffn.experts.mlp.w1[{e}:]',
  'layers.{l}.ffn.experts.up': 'transformer.blocks.{l}.ffn.experts.mlp.v1[{e}:]',
  'layers.{l}.ffn.experts.down': 'transformer.blocks.{l}.ffn.experts.mlp.w2[{e}:]',
};

/** Weights of the norms of DBRX: before attention, before the feed-forward part and at the end. */
export const DBRX_NORMS: readonly string[] = [
  'transformer.blocks.{l}.norm_attn_norm.norm_1.weight',
  'transformer.blocks.{l}.norm_attn_norm.norm_2.weight',
  'transformer.norm_f.weight',
];

/** Whether old versions of transformers saved a tensor that can be computed. */
export function isRotaryTable(name: string): boolean {
  return name.endsWith('.rotary_emb.inv_freq');
}
