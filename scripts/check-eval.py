"""Answers the multiple choice that `downcycle eval` measured with lm-evaluation-harness, and compares the counts.

    npx downcycle eval MODEL --tasks hellaswag.jsonl piqa.jsonl --limit 200 --json > ours.json
    python scripts/check-eval.py MODEL ours.json

Contexts and choices of the same records go to the harness's HFLM as requests for log-likelihoods, in float32; what is
right is counted as its process_results does, by the sum of a choice and by that over its characters. Prints a line of
JSON for each task, and exits with 1 if a count differs by more than one item. Needs torch, transformers and lm_eval
(tried with 0.4.13); nothing is downloaded.
"""

import json
import sys

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM


def pairs(record):
    """Contexts, continuations, and lengths of choices, which are None where contexts are chosen."""
    if "choices" not in record:
        contexts = record["context_options"]
        return contexts, [delimited(c, record["continuation"]) for c in contexts], None
    query, choices = record["query"], record["choices"]
    return [query] * len(choices), [delimited(query, c) for c in choices], [len(c) for c in choices]


def delimited(context, choice):
    return choice if choice[0].isspace() or context[-1:].isspace() else " " + choice


def check(model, task):
    with open(task["file"], encoding="utf-8") as file:
        records = [json.loads(line) for line in file if line.strip()]
    few, count = task["fewShot"], task["items"]
    shown = ""
    for record in records[:few]:
        contexts, continuations, _ = pairs(record)
        shown += contexts[record["gold"]] + continuations[record["gold"]] + "\n\n"
    requests, items = [], []
    for record in records[few : few + count]:
        contexts, continuations, lengths = pairs(record)
        items.append((record["gold"], lengths, len(contexts)))
        for context, continuation in zip(contexts, continuations, strict=True):
            requests.append(Instance("loglikelihood", record, (shown + context, continuation), len(requests)))
    sums = np.array([found for found, _ in model.loglikelihood(requests, disable_tqdm=True)])
    right, right_norm, begin = 0, 0, 0
    for gold, lengths, choices in items:
        scores = sums[begin : begin + choices]
        begin += choices
        right += int(np.argmax(scores) == gold)
        right_norm += int(lengths is not None and np.argmax(scores / np.array(lengths)) == gold)
    has_norm = task["accNorm"] is not None
    return {
        "task": task["name"],
        "items": count,
        "acc": [round(task["acc"]["value"] * count), right],
        "accNorm": [round(task["accNorm"]["value"] * count), right_norm] if has_norm else None,
    }


folder, ours = sys.argv[1:]
lm = HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=8)
worst = 0
with open(ours, encoding="utf-8") as file:
    for measured in json.load(file)["tasks"]:
        line = check(lm, measured)
        counts = [line["acc"], line["accNorm"] or [0, 0]]
        worst = max(worst, *(abs(a - b) for a, b in counts))
        print(json.dumps(line), flush=True)
sys.exit(int(worst > 1))
