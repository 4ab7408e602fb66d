"""PyTorch's and SciPy's side of the conversion benchmark: profile a dense Llama, split every FFN, write the mixture.

usage: torch_convert.py MODEL TOKENS SAMPLES METHOD OUT
TOKENS is a file of little-endian int32, SAMPLES rows of equal length. METHOD is expertweaver (62 experts + 2 shared of 64 chunks) or
cmoe (S3A3E8). Steps as in `src/downcycle`: balanced clusters by an optimal assignment (scipy.optimize.linear_sum_assignment).
Prints one JSON line: the shared neurons of every layer.
Shapes: J samples, T tokens, F neurons, E experts, D width.
"""
import json
import os
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from transformers import AutoModelForCausalLM

CHUNKS = {"expertweaver": (62, 2), "cmoe": (5, 3)}
MARKERS = 10
ROUNDS = 20


def watch(model, tokens_JS):
    """Signed gate means [J, F] and marked neurons [T, 10] of every layer, sample by sample."""
    layers = model.model.layers
    means = [[] for _ in layers]
    marks = [[] for _ in layers]

    def hook(layer):
        mlp = layers[layer].mlp
        gate = torch.nn.functional.normalize(mlp.gate_proj.weight, dim=1)
        up = torch.nn.functional.normalize(mlp.up_proj.weight, dim=1)

        def look(module, inputs):
            (x_1TD,) = inputs
            means[layer].append(torch.nn.functional.silu(x_1TD @ mlp.gate_proj.weight.T).mean((0, 1)))
            unit = torch.nn.functional.normalize(x_1TD[0], dim=1)
            hidden_TF = torch.nn.functional.silu(unit @ gate.T) * (unit @ up.T)
            marks[layer].append(hidden_TF.abs().topk(MARKERS, 1).indices)

        return mlp.register_forward_pre_hook(look)

    hooks = [hook(layer) for layer in range(len(layers))]
    for sample in tokens_JS:
        model.model(sample[None], use_cache=False)
    for one in hooks:
        one.remove()
    return [torch.stack(m).numpy() for m in means], [torch.cat(m).numpy() for m in marks]


def assign(cost_NE):
    """Optimal assignment of N points to E clusters of N/E."""
    width = len(cost_NE) // cost_NE.shape[1]
    _, slots = linear_sum_assignment(np.repeat(cost_NE, width, axis=1))
    return slots // width


def expertweaver(mean_JF, experts, shared_width, generator):
    """Shared: largest |mean|; experts: balanced k-means of standardised profiles."""
    mean_F = np.abs(mean_JF.mean(0))
    order = np.argsort(-mean_F, kind="stable")
    shared, routed = np.sort(order[:shared_width]), np.sort(order[shared_width:])
    points = mean_JF[:, routed].T
    points = (points - points.mean(1, keepdims=True)) / (points.std(1, keepdims=True) + 1e-8)
    centres = points[generator.choice(len(points), experts, replace=False)]
    before = None
    for _ in range(ROUNDS):
        found = assign(cdist(points, centres, "sqeuclidean"))
        if before is not None and (found == before).all():
            break
        before = found
        centres = np.stack([points[found == e].mean(0) for e in range(experts)])
    return shared, [routed[found == e] for e in range(experts)], None


def cmoe(mark_TM, num_neurons, experts, shared_width):
    """Shared: highest marker rate; experts: one round of assignment by L1 distance of marker columns."""
    columns_FT = np.zeros((num_neurons, len(mark_TM)), np.float32)
    columns_FT[mark_TM.T, np.arange(len(mark_TM))] = 1
    order = np.argsort(-columns_FT.sum(1), kind="stable")
    shared, routed = np.sort(order[:shared_width]), np.sort(order[shared_width:])
    points = columns_FT[routed]
    centres = columns_FT[order[shared_width : shared_width + experts]]
    found = assign(cdist(points, centres, "cityblock"))
    groups = [np.flatnonzero(found == e) for e in range(experts)]
    centres = [points[ids].mean(0) for ids in groups]
    nearest = [ids[np.abs(points[ids] - centre).sum(1).argmin()] for ids, centre in zip(groups, centres)]
    return shared, [routed[ids] for ids in groups], routed[nearest]


def split(mlp, shared, experts, nearest, name, tensors):
    """The tensors of one mixture, in bfloat16."""
    gate, up, down = (getattr(mlp, f"{part}_proj").weight for part in ("gate", "up", "down"))
    if nearest is None:
        tensors[f"{name}.router.weight"] = torch.stack([gate[ids].mean(0) for ids in experts])
    else:
        tensors[f"{name}.router.weight"], tensors[f"{name}.router.up"] = gate[nearest], up[nearest]
    for part, ids in [("shared", shared), *((f"experts.{e}", ids) for e, ids in enumerate(experts))]:
        tensors[f"{name}.{part}.gate_proj.weight"] = gate[ids]
        tensors[f"{name}.{part}.up_proj.weight"] = up[ids]
        tensors[f"{name}.{part}.down_proj.weight"] = down[:, ids]


@torch.no_grad()
def main(folder, tokens_path, samples, method, out):
    tokens_JS = torch.from_numpy(np.fromfile(tokens_path, "<i4").reshape(int(samples), -1)).long()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    means, marks = watch(model, tokens_JS)
    experts, shared_chunks = CHUNKS[method]
    num_neurons = model.config.intermediate_size
    shared_width = shared_chunks * num_neurons // (experts + shared_chunks)
    generator = np.random.default_rng(0)
    mlps = {f"layers.{i}.mlp": layer.mlp for i, layer in enumerate(model.model.layers)}
    tensors = {name: value for name, value in model.named_parameters() if ".mlp." not in name}
    kept = []
    for mean_JF, mark_TM, (name, mlp) in zip(means, marks, mlps.items()):
        if method == "expertweaver":
            plan = expertweaver(mean_JF, experts, shared_width, generator)
        else:
            plan = cmoe(mark_TM, num_neurons, experts, shared_width)
        kept.append(plan[0].tolist())
        split(mlp, *plan, name, tensors)
    os.makedirs(out)
    save_file({name: value.to(torch.bfloat16).contiguous() for name, value in tensors.items()}, f"{out}/model.safetensors")
    print(json.dumps({"shared": kept}))


main(*sys.argv[1:])
