"""Times greedy generation with transformers and its cache: transformers_generate.py <model> <prompt file> <tokens> <threads> -> JSON.

As downcycle counts: from the prompt to the first token, and from the first token to the last. A few tokens are generated
beforehand, so that neither is timed on what happens once.
"""

import json
import sys
import time

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, file, tokens, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
with open(file, encoding="utf8", newline="") as text:
    ids = tokenizer(text.read(), return_tensors="pt").input_ids


class Clock:
    """A streamer that notes when tokens come; the first thing it is given is the prompt."""

    def __init__(self):
        self.times = []

    def put(self, _):
        self.times.append(time.perf_counter())

    def end(self):
        pass


def generate(count):
    clock = Clock()
    begin = time.perf_counter()
    with torch.no_grad():
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=count,
            streamer=clock,
        )
    first, last = clock.times[1], clock.times[-1]
    return {
        "promptTokens": ids.shape[1],
        "tokens": len(clock.times) - 1,
        "seconds": {"prompt": first - begin, "tokens": last - first},
    }


generate(4)
print(json.dumps({"version": transformers.__version__, **generate(int(tokens))}))
