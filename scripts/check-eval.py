"""Has lm-evaluation-harness answer the multiple choice that `downcycle eval` measured, and compares the right answers.

    npx downcycle eval MODEL --tasks hellaswag.jsonl piqa.jsonl --limit 500 --json > ours.json
    python scripts/check-eval.py MODEL ours.json

The records become tasks of the harness, which builds the requests, runs the model (HFLM, float32) and counts by itself.
Prints a line of JSON for each task, ours before the harness's, and exits with 1 if a count differs by more than one item
or a standard error by more than what such an item is. Needs torch, transformers and lm_eval (tried with 0.4.13); nothing is
downloaded.
"""

import json
import sys

import datasets
from lm_eval import simple_evaluate
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM

# Fields of a record as doc_to_text, doc_to_choice and doc_to_target; where contexts are chosen the text is the right one's place.
QUESTION = {"doc_to_text": "query", "doc_to_choice": "choices", "doc_to_target": "gold"}
SCHEMA = {"doc_to_text": "gold", "doc_to_choice": "context_options", "doc_to_target": "continuation"}


def harness_task(name, shown, asked):
    """A task whose examples are the records that ours showed, in their order."""
    fields = QUESTION if "choices" in asked[0] else SCHEMA
    kept = list(fields.values())
    split = lambda records: datasets.Dataset.from_list([{key: record[key] for key in kept} for record in records])
    return ConfigurableTask(config={
        "task": name,
        "output_type": "multiple_choice",
        "custom_dataset": lambda **_: {"train": split(shown or asked[:1]), "test": split(asked)},
        "training_split": "train",
        "test_split": "test",
        "fewshot_config": {"sampler": "first_n", "split": "train"},
        **fields,
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ["acc", "acc_norm"]],
    })


def check(model, task):
    """Right answers and standard errors of both, and by how many items they differ at most."""
    with open(task["file"], encoding="utf-8") as file:
        records = [json.loads(line) for line in file if line.strip()]
    few, count = task["fewShot"], task["items"]
    harness = harness_task(task["name"], records[:few], records[few : few + count])
    results = simple_evaluate(model=model, tasks=[harness], num_fewshot=few, log_samples=False, bootstrap_iters=0)
    found = results["results"][task["name"]]
    line, worst = {"task": task["name"], "items": count}, 0
    for name, metric in [("acc", "acc"), ("accNorm", "acc_norm")]:
        if task[name] is None:
            continue
        right = [round(task[name]["value"] * count), round(found[f"{metric},none"] * count)]
        errors = [task[name]["stderr"], found[f"{metric}_stderr,none"]]
        line |= {metric: right, f"{metric}_stderr": errors}
        worst = max(worst, abs(right[0] - right[1]))
        if isinstance(errors[1], float) and abs(errors[0] - errors[1]) > 1 / count:
            worst = count
    return line, worst


folder, ours = sys.argv[1:]
lm = HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=8)
worst = 0
with open(ours, encoding="utf-8") as file:
    for measured in json.load(file)["tasks"]:
        line, difference = check(lm, measured)
        worst = max(worst, difference)
        print(json.dumps(line), flush=True)
sys.exit(int(worst > 1))
