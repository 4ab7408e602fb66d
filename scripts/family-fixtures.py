"""Writes test/fixtures/family/<model_type>/: tiny random models and what transformers computes with them.

    python scripts/family-fixtures.py [model_type ... | rope]      all of them if none is named

Also test/fixtures/model/rope.json: how fast the pairs of a head turn, for settings of published models.

Needs torch and transformers 5. Each folder is what save_pretrained writes, and beside it golden.safetensors (ids,
logits) and golden.json (mean next-token loss, norm of its gradient for every parameter, a list where a tensor holds several).
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save
from torch.nn import functional as F
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

OUT = Path(__file__).resolve().parent.parent / "test" / "fixtures" / "family"
COMMON = dict(vocab_size=64, hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=64, rope_theta=5000.0, bos_token_id=None,
              eos_token_id=None, pad_token_id=None)
# Keys that each family has beyond COMMON, with values that matter: a window shorter than the rows, a clip that clips,
# rotations slowed down.
FAMILIES = {
    "llama": dict(attention_bias=True, rope_parameters=dict(rope_type="llama3", rope_theta=5000.0, factor=8.0,
                  low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)),
    "mistral": dict(sliding_window=5, head_dim=8),
    "qwen2": dict(tie_word_embeddings=True, rope_parameters=dict(rope_type="yarn", rope_theta=5000.0, factor=4.0,
                  beta_fast=2.0, original_max_position_embeddings=16)),
    "qwen3": dict(head_dim=8),
    "olmo": dict(clip_qkv=1.5),
    "olmo2": dict(rms_norm_eps=1e-6),
    "granite": dict(embedding_multiplier=3.0, attention_multiplier=0.3, residual_multiplier=0.4, logits_scaling=3.0,
                    tie_word_embeddings=True, rope_parameters=dict(rope_type="linear", rope_theta=5000.0, factor=2.5)),
    "mixtral": dict(intermediate_size=12, num_local_experts=4, num_experts_per_tok=2, sliding_window=5, head_dim=8),
    "qwen3_moe": dict(head_dim=8, num_hidden_layers=3, mlp_only_layers=[1], moe_intermediate_size=12, num_experts=4,
                      num_experts_per_tok=2, norm_topk_prob=False),
    "olmoe": dict(intermediate_size=12, num_experts=4, num_experts_per_tok=3, norm_topk_prob=True),
    "flex_olmo": dict(intermediate_size=12, num_experts=4, num_experts_per_tok=2, norm_topk_prob=False),
    "glm4_moe": dict(moe_intermediate_size=12, n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=2,
                     first_k_dense_replace=1, attention_bias=True, use_qk_norm=True, routed_scaling_factor=1.5,
                     partial_rotary_factor=1.0, head_dim=6),
    "qwen2_moe": dict(mlp_only_layers=[0], moe_intermediate_size=12, num_experts=4, num_experts_per_tok=2,
                      shared_expert_intermediate_size=20, norm_topk_prob=True),
    "granitemoeshared": dict(intermediate_size=16, num_local_experts=4, num_experts_per_tok=2, attention_bias=True,
                             shared_intermediate_size=20, embedding_multiplier=3.0, attention_multiplier=0.3,
                             residual_multiplier=0.4, logits_scaling=3.0),
    "dbrx": dict(d_model=24, n_heads=4, n_layers=2, max_seq_len=64, vocab_size=64, rope_theta=5000.0,
                 attn_config=dict(kv_n_heads=2, clip_qkv=1.5, rope_theta=5000.0),
                 ffn_config=dict(ffn_hidden_size=12, moe_num_experts=4, moe_top_k=2)),
}
# Those that have the keys of COMMON under other names.
STRANGERS = {"dbrx"}
# What experts are called in files, by model type: gate, up and down; transformers has gate and up of all as one tensor.
EXPERTS = {"mixtral": ("w1", "w3", "w2")}
# What Granite's parameters are called in files, where gate and up are one tensor, too: by the end of their names.
GRANITE = {"router.weight": "router.layer.weight", "experts.gate_up_proj": "input_linear.weight",
           "experts.down_proj": "output_linear.weight"}
# Llama 3.1 and 3.2, LongChat, Qwen2.5, and words that YaRN has besides.
ROPE = [
    dict(rope_type="default", rope_theta=10000.0),
    dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
         original_max_position_embeddings=8192),
    dict(rope_type="llama3", rope_theta=500000.0, factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
         original_max_position_embeddings=8192),
    dict(rope_type="linear", rope_theta=10000.0, factor=8.0),
    dict(rope_type="yarn", rope_theta=1000000.0, factor=4.0, original_max_position_embeddings=32768),
    dict(rope_type="yarn", rope_theta=10000.0, factor=16.0, original_max_position_embeddings=4096, beta_fast=24.0,
         beta_slow=2.0, attention_factor=1.1, truncate=False),
]
DROPPED = {"transformers_version", "_name_or_path"}  # would change with every release


def make_model(model_type, keys):
    common = {} if model_type in STRANGERS else COMMON
    config = transformers.AutoConfig.for_model(model_type, **{**common, **keys})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.normal_(0, 0.5)
            elif parameter.dim() == 1 and model_type == "dbrx":
                parameter.fill_(1)  # all that is supported, since layer norms have no weights there
            elif parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.normal_(0, 0.2)
    return model


def gradients(model, name, parameter):
    """Names in files and gradients of a parameter: of each expert, where one parameter holds all."""
    stem, _, which = name.rpartition(".")
    if model.config.model_type == "dbrx" and parameter.dim() == 1:
        return
    if model.config.model_type == "granitemoeshared":
        for end, disk in GRANITE.items():
            name = name.replace(f"block_sparse_moe.{end}", f"block_sparse_moe.{disk}")
        yield name, parameter.grad
        return
    if not stem.endswith(".experts"):
        yield disk_name(model, name), parameter.grad
        return
    gate, up, down = EXPERTS.get(model.config.model_type, ("gate_proj", "up_proj", "down_proj"))
    for e, grad in enumerate(parameter.grad):
        names = [gate, up] if which == "gate_up_proj" else [down]
        for part, of in zip(grad.chunk(len(names)), names):
            yield disk_name(model, f"{stem}.{e}.{of}.weight"), part


def disk_name(model, name):
    return name.replace(".mlp.", ".block_sparse_moe.") if model.config.model_type == "mixtral" else name


def norm_of(name, grad):
    """Of a tensor of gate and up the norms of both, of one of queries, keys and values those of all three."""
    if name.endswith("Wqkv.weight"):
        keys = (grad.shape[0] - grad.shape[1]) // 2
        return [part.norm().item() for part in grad.split([grad.shape[1], keys, keys])]
    if name.endswith("input_linear.weight"):
        return [part.norm().item() for part in grad.chunk(2, dim=-2)]
    return grad.norm().item()


def measure(model, ids):
    logits = model(input_ids=ids).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    norms = {name: norm_of(name, grad) for parameter in model.named_parameters() for name, grad in gradients(model, *parameter)}
    norms.update({name: 0.0 for name, _ in model.named_buffers() if name.endswith("e_score_correction_bias")})
    return logits.detach(), {"loss": loss.item(), "gradient_norms": norms}


def write(folder, model, ids):
    logits, golden = measure(model, ids)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in config.items() if key not in DROPPED}
    (folder / "config.json").write_text(json.dumps(kept, indent=1) + "\n")
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "golden.safetensors").write_bytes(save({"ids": ids.int(), "logits": logits.contiguous()}))
    (folder / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
    (folder / "model.safetensors").chmod(0o644)


for seed, (model_type, keys) in enumerate(FAMILIES.items()):
    if sys.argv[1:] and model_type not in sys.argv[1:]:
        continue
    torch.manual_seed(20261127 + seed)
    write(OUT / model_type, make_model(model_type, keys), torch.randint(0, COMMON["vocab_size"], (2, 12)))


def rope_frequencies(parameters):
    config = transformers.LlamaConfig(hidden_size=256, num_attention_heads=2, rope_parameters=dict(parameters))
    if parameters["rope_type"] == "default":
        frequencies, amplitude = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
    else:
        frequencies, amplitude = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config)
    return dict(parameters=parameters, amplitude=amplitude, frequencies=frequencies.tolist())


if not sys.argv[1:] or "rope" in sys.argv[1:]:
    lines = ",\n".join(json.dumps(rope_frequencies(parameters)) for parameters in ROPE)
    (OUT.parent / "model" / "rope.json").write_text(f"[\n{lines}\n]\n")
