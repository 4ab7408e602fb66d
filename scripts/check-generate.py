"""Generates greedily with transformers and with `downcycle generate`, and compares the tokens.

    python scripts/check-generate.py MODEL [PROMPT ...] [--tokens 200] [--ours "node dist/cli/main.js"]

MODEL is a folder that both can read: a dense model, or a mixture that `downcycle export` wrote. Both compute in float32
and keep keys and values. Prints a line of JSON for each prompt. Where texts part, it has the logits that transformers
gives to both tokens after the same text, computed anew without a cache: less than 1e-3 between them is a tie within the
rounding of float32. Exits with 1 if texts part otherwise. Needs torch and transformers; no code of a model is trusted.
"""

import argparse
import json
import shlex
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TIE = 1e-3
PROMPTS = [
    "The capital of France is",
    "In the beginning God created the heaven and the earth. And the earth was",
    "def fibonacci(n):\n    ",
    "Photosynthesis is the process by which",
    "Once upon a time, in a small village by the sea, there lived",
]


def ours(command, model, prompt, tokens):
    """The new tokens of downcycle."""
    run = [*shlex.split(command), "-q", "generate", model, "--prompt", prompt, "--max-tokens", str(tokens), "--json"]
    return json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)


def theirs(model, ids, tokens):
    """The new tokens of transformers, without an end token."""
    with torch.no_grad():
        found = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens)
    new = found[0, ids.shape[1] :].tolist()
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return new[:-1] if new and new[-1] in ends else new


def check(model, ids, mine, other):
    """How far two texts agree, and how near the tokens are where they part."""
    same = next((i for i, (a, b) in enumerate(zip(mine, other)) if a != b), min(len(mine), len(other)))
    line = {"same": same, "ours": len(mine), "transformers": len(other)}
    if same == len(mine) == len(other):
        return line, True
    if same == min(len(mine), len(other)):
        return line, False  # one of them ended
    text = torch.cat([ids[0], torch.tensor(other[:same], dtype=ids.dtype)])[None]
    with torch.no_grad():
        logits = model(text).logits[0, -1]
    pair = [logits[mine[same]].item(), logits[other[same]].item()]
    line |= {"parted": [mine[same], other[same]], "logits": pair, "margin": abs(pair[1] - pair[0])}
    return line, line["margin"] < TIE


parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("prompts", nargs="*", default=PROMPTS)
parser.add_argument("--tokens", type=int, default=200)
parser.add_argument("--ours", default="node dist/cli/main.js")
args = parser.parse_args()
tokenizer = AutoTokenizer.from_pretrained(args.model)
network = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
worst = True
for prompt in args.prompts or PROMPTS:
    generated = ours(args.ours, args.model, prompt, args.tokens)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    is_same = ids[0].tolist() == generated["promptTokens"]
    line, is_good = check(network, ids, generated["tokens"], theirs(network, ids, args.tokens))
    print(json.dumps({"prompt": prompt[:40], "samePrompt": is_same, **line}), flush=True)
    worst = worst and is_good and is_same
sys.exit(int(not worst))
