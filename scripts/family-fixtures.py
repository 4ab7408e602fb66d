"""Writes test/fixtures/family/<model_type>/: tiny random models and what transformers computes with them.

    python scripts/family-fixtures.py

Needs torch and transformers 5. Each folder is what save_pretrained writes, and beside it golden.safetensors (ids,
logits) and golden.json (mean next-token loss, norm of its gradient for every parameter).
"""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save
from torch.nn import functional as F

OUT = Path(__file__).resolve().parent.parent / "test" / "fixtures" / "family"
COMMON = dict(vocab_size=64, hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=64, rope_theta=5000.0, bos_token_id=None,
              eos_token_id=None, pad_token_id=None)
# Keys that each family has beyond COMMON, with values that matter: a window shorter than the rows, a clip that clips.
FAMILIES = {
    "llama": dict(attention_bias=True),
    "mistral": dict(sliding_window=5, head_dim=8),
    "qwen2": dict(tie_word_embeddings=True),
    "qwen3": dict(head_dim=8),
    "olmo": dict(clip_qkv=1.5),
    "olmo2": dict(rms_norm_eps=1e-6),
    "granite": dict(embedding_multiplier=3.0, attention_multiplier=0.3, residual_multiplier=0.4, logits_scaling=3.0,
                    tie_word_embeddings=True),
}
DROPPED = {"transformers_version", "_name_or_path"}  # would change with every release


def make_model(model_type, keys):
    config = transformers.AutoConfig.for_model(model_type, **COMMON, **keys)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.normal_(0, 0.5)
            elif parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
    return model


def measure(model, ids):
    logits = model(input_ids=ids).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    norms = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()}
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
    torch.manual_seed(20261127 + seed)
    write(OUT / model_type, make_model(model_type, keys), torch.randint(0, COMMON["vocab_size"], (2, 12)))
