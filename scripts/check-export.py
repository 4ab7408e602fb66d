"""Runs exported models in transformers, and compares them with what downcycle computes.

    python scripts/check-export.py MODEL EXPECTED [MODEL EXPECTED ...]

EXPECTED is a safetensors file with `ids` and `logits` of downcycle, and `generated`, the tokens that greedily go on after
the first row of ids. Prints a line of JSON for each model. Needs torch and transformers; no code of a model is trusted.
"""

import json
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def check(folder, expected):
    golden = load_file(expected)
    ids = golden["ids"].long()
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        length = golden["generated"].numel()
        generated = model.generate(ids[:1], attention_mask=torch.ones_like(ids[:1]), max_new_tokens=length,
                                   min_new_tokens=length, do_sample=False, pad_token_id=0)[0, ids.shape[1]:]
    difference = (logits - golden["logits"]).abs().amax(-1)
    return {
        "model": folder,
        "class": type(model).__name__,
        "maxLogitDifference": difference.max().item(),
        "medianLogitDifference": difference.median().item(),
        "largestLogit": golden["logits"].abs().max().item(),
        "sameText": generated.tolist() == golden["generated"].tolist(),
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(info["unexpected_keys"]),
    }


for folder, expected in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    print(json.dumps(check(folder, expected)), flush=True)
