"""Writes test/fixtures/gguf/: a tiny random model packed by the Python package gguf, and what it makes of each tensor.

    python scripts/gguf-fixtures.py

Needs numpy, safetensors and gguf. packed.gguf has a tensor of every type that downcycle reads, among them blocks of zeros,
of tiny and of large numbers; unpacked.safetensors has the same tensors in float32 by the names and in the order of rows of
a Hugging Face folder.
"""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants
from safetensors.numpy import save_file

OUT = Path(__file__).resolve().parent.parent / "test" / "fixtures" / "gguf"
WIDTH, HEADS, KV_HEADS, FFN, VOCAB = 32, 4, 2, 64, 40
# Name in the file, name in a folder, shape, type, and heads where llama.cpp turns rows.
TENSORS = [
    ("token_embd.weight", "model.embed_tokens.weight", (VOCAB, WIDTH), "Q8_0", 0),
    ("blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight", (WIDTH,), "F32", 0),
    ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", (WIDTH, WIDTH), "Q4_0", HEADS),
    ("blk.0.attn_k.weight", "model.layers.0.self_attn.k_proj.weight", (WIDTH // 2, WIDTH), "BF16", KV_HEADS),
    ("blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight", (WIDTH // 2, WIDTH), "F16", 0),
    ("blk.0.attn_output.weight", "model.layers.0.self_attn.o_proj.weight", (WIDTH, WIDTH), "Q4_1", 0),
    ("blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight", (WIDTH,), "F32", 0),
    ("blk.0.ffn_gate.weight", "model.layers.0.mlp.gate_proj.weight", (FFN, WIDTH), "Q4_0", 0),
    ("blk.0.ffn_up.weight", "model.layers.0.mlp.up_proj.weight", (FFN, WIDTH), "Q4_1", 0),
    ("blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight", (WIDTH, FFN), "Q8_0", 0),
    ("output_norm.weight", "model.norm.weight", (WIDTH,), "F32", 0),
]


def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random numbers, a row of zeros, one that float16 has only subnormal numbers for, one of large numbers."""
    values = rng.standard_normal(shape).astype(np.float32)
    if len(shape) == 2:
        values[1] = 0
        values[2] *= 1e-6
        values[3] *= 1000
    return values


def unturn(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys in the order of a folder: neighbours of a head come to lie half a head apart."""
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(OUT / "packed.gguf", "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(5000.0)
    rng = np.random.default_rng(7)
    unpacked = {}
    for name, folder_name, shape, kind, heads in TENSORS:
        packing = GGMLQuantizationType[kind]
        packed = quants.quantize(draw(rng, shape), packing)
        writer.add_tensor(name, packed, raw_dtype=packing)
        values = quants.dequantize(packed, packing).astype(np.float32).reshape(shape)
        unpacked[folder_name] = np.ascontiguousarray(unturn(values, heads) if heads else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(unpacked, OUT / "unpacked.safetensors")


if __name__ == "__main__":
    main()
