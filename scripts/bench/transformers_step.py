"""PyTorch's side through transformers: Qwen2-MoE of the same shape with the same weights, tokens, loss and optimizer.

Its shared expert, which the model of the benchmark does not have, has width 0. Needs torch and transformers.
"""
import torch
import torch.nn.functional as F
import transformers
from torch_step import main, make_parameters
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM


def make_config(setup):
    """The configuration of a mixture in every layer."""
    architecture = setup["architecture"]
    (layout,) = {tuple(sorted(layout.items())) for layout in architecture["ffn"]}
    layout = dict(layout)
    return Qwen2MoeConfig(
        vocab_size=architecture["vocab"],
        hidden_size=architecture["width"],
        num_hidden_layers=len(architecture["ffn"]),
        num_attention_heads=architecture["heads"],
        num_key_value_heads=architecture["kvHeads"],
        max_position_embeddings=setup["sequence"],
        rms_norm_eps=architecture["normEps"],
        rope_parameters={"rope_type": "default", "rope_theta": architecture["ropeTheta"]},
        moe_intermediate_size=layout["expertWidth"],
        shared_expert_intermediate_size=0,
        num_experts=layout["experts"],
        num_experts_per_tok=layout["topK"],
        norm_topk_prob=False,
        qkv_bias=False,
        tie_word_embeddings=True,
        use_cache=False,
    )


def load(model, values):
    """Copies values by our paths into the model; transformers keeps matrices transposed, gate and up as one."""
    state = {"model.embed_tokens.weight": values["embed"], "model.norm.weight": values["norm"]}
    for i in range(model.config.num_hidden_layers):
        ours, theirs = f"layers.{i}", f"model.layers.{i}"
        state[f"{theirs}.input_layernorm.weight"] = values[f"{ours}.attentionNorm"]
        state[f"{theirs}.post_attention_layernorm.weight"] = values[f"{ours}.ffnNorm"]
        for name in "qkvo":
            state[f"{theirs}.self_attn.{name}_proj.weight"] = values[f"{ours}.attention.{name}"].T
        gate, up, down = (values[f"{ours}.ffn.experts.{name}"].transpose(1, 2) for name in ("gate", "up", "down"))
        state[f"{theirs}.mlp.gate.weight"] = values[f"{ours}.ffn.router"].T
        state[f"{theirs}.mlp.experts.gate_up_proj"] = torch.cat([gate, up], 1)
        state[f"{theirs}.mlp.experts.down_proj"] = down
    missing, unexpected = model.load_state_dict(state, strict=False)
    lost = [name for name in missing if "shared_expert" not in name and name != "lm_head.weight"]
    if lost or unexpected:
        raise ValueError(f"weights that do not fit transformers: {lost} missing, {unexpected} unexpected")


def trains(setup, name, tensor):
    """Whether a parameter trains; the shared expert of width 0 and its gate are not part of the model."""
    if "shared_expert" in name or tensor.numel() == 0:
        return False
    if setup["finetune"]["kind"] == "full":
        return True
    if setup["finetune"]["kind"] == "parts":
        return name.endswith("mlp.gate.weight")
    raise ValueError("low-rank terms are not built for transformers here")


def balance_of(logits, top_k):
    """The balance loss of one layer and its loads, from logits [T, E], as torch_step.moe has them."""
    score = torch.softmax(logits, -1)
    load = torch.bincount(score.topk(top_k).indices.view(-1), minlength=score.shape[-1])
    return score.shape[-1] * (load / load.sum() * score.mean(0)).sum(), load


def build(setup):
    """The loss of Qwen2-MoE, and what trains: (decays, tensor) each."""
    config = make_config(setup)
    model = Qwen2MoeForCausalLM(config)
    with torch.no_grad():
        load(model, make_parameters(setup))
    trained = []
    for name, tensor in model.named_parameters():
        tensor.requires_grad_(trains(setup, name, tensor))
        if tensor.requires_grad:
            trained.append((tensor.dim() > 1, tensor))

    def loss(ids, labels):
        out = model(input_ids=ids, output_router_logits=True)
        cross_entropy = F.cross_entropy(out.logits.view(labels.shape[0], -1), labels)
        balances, loads = zip(*(balance_of(logits, config.num_experts_per_tok) for logits in out.router_logits))
        return cross_entropy, cross_entropy + setup["balanceWeight"] * torch.stack(balances).mean(), list(loads)

    return loss, trained


if __name__ == "__main__":
    main(build, f"{torch.__version__} with transformers {transformers.__version__}")
