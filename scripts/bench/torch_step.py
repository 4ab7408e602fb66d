"""PyTorch's side of the benchmark: the same model and step as src/train, written by hand, eager or through torch.compile.

Speaks JSON lines on stdin and stdout as protocol.ts describes. Needs torch and nothing else.
Shapes: B batch, S sequence, T = B*S tokens, D width, H query heads, E experts, K experts active a token.
"""
import json
import sys
import time

import torch
import torch.nn.functional as F


def make_parameters(setup):
    """Given values, or ones for norms, zeros, and a truncated normal for matrices, in the order of the list."""
    torch.manual_seed(setup["seed"])
    trained = trained_paths(setup)
    parameters = {}
    for spec in setup["parameters"]:
        tensor = torch.ones(spec["shape"])
        if setup["weights"] is not None:
            tensor = torch.tensor(setup["weights"][spec["path"]]).reshape(spec["shape"])
        elif spec["std"] == 0:
            tensor.zero_()
        elif spec["std"] is not None:
            torch.nn.init.trunc_normal_(tensor, std=spec["std"], a=-3 * spec["std"], b=3 * spec["std"])
        parameters[spec["path"]] = tensor.requires_grad_(spec["path"] in trained)
    return parameters


def trained_paths(setup):
    """Paths of what has a gradient."""
    return set(setup["trained"]) | {f"{path}.{factor}" for path in setup["adapted"] for factor in "ab"}


class LowRank:
    """A matrix, or a stack of them, with a low-rank term beside it: `x @ self` is `x @ W + scale * (x @ A) @ B`."""

    def __init__(self, base, a, b, scale):
        self.base, self.a, self.b, self.scale = base, a, b, scale
        self.shape = base.shape

    def __getitem__(self, index):
        return LowRank(self.base[index], self.a[index], self.b[index], self.scale)

    def __rmatmul__(self, x):
        return torch.addmm(x @ self.base, x @ self.a, self.b, alpha=self.scale)


def make_weights(setup, parameters):
    """What the model multiplies with, by path: parameters, with low-rank terms where there are some."""
    terms = {
        path: LowRank(parameters[path], parameters[f"{path}.a"], parameters[f"{path}.b"], setup["scale"])
        for path in setup["adapted"]
    }
    return {**parameters, **terms}


def build(setup):
    """The loss of the model written by hand, and what trains: (decays, tensor) each."""
    parameters = make_parameters(setup)
    trained = trained_paths(setup)
    specs = [spec for spec in setup["parameters"] if spec["path"] in trained]
    return make_loss(setup, make_weights(setup, parameters)), [(spec["decays"], parameters[spec["path"]]) for spec in specs]


def make_optimizer(setup, trained):
    """Fused AdamW of what trains, decay on matrices only."""
    groups = [
        {
            "params": [tensor for tensor_decays, tensor in trained if tensor_decays is decays],
            "weight_decay": setup["weightDecay"] if decays else 0.0,
        }
        for decays in (True, False)
    ]
    return torch.optim.AdamW(groups, lr=setup["learningRate"], betas=setup["betas"], eps=setup["eps"], fused=True)


def rope_table(sequence, head_dim, theta):
    frequency = 1 / theta ** (torch.arange(0, head_dim, 2) / head_dim)
    angle = torch.outer(torch.arange(sequence), frequency)
    return torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)


def rotate(x, rope):
    cos, sin = rope
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat([-high, low], -1) * sin


def attention(x, weights, architecture, batch, rope):
    q, k, v, o = weights
    head_dim = architecture["headDim"]

    def project(w):
        return (x @ w).view(batch, -1, w.shape[1] // head_dim, head_dim).transpose(1, 2)

    is_grouped = architecture["heads"] != architecture["kvHeads"]
    mixed = F.scaled_dot_product_attention(
        rotate(project(q), rope), rotate(project(k), rope), project(v), is_causal=True, enable_gqa=is_grouped
    )
    return mixed.transpose(1, 2).reshape(x.shape[0], -1) @ o


def glu(x, gate, up, down):
    return (F.silu(x @ gate) * (x @ up)) @ down


def moe(x, weights, top_k):
    """Each expert computes exactly the tokens sent to it. Returns the result, the load of each expert, the balance loss."""
    router, gate, up, down = weights
    num_experts = router.shape[1]
    score = torch.softmax(x @ router, -1)
    weight, chosen = score.topk(top_k)
    out = torch.zeros_like(x)
    for e in range(num_experts):
        token, slot = torch.where(chosen == e)
        if token.numel() > 0:
            out.index_add_(0, token, glu(x[token], gate[e], up[e], down[e]) * weight[token, slot][:, None])
    load = torch.bincount(chosen.view(-1), minlength=num_experts)
    balance = num_experts * (load / chosen.numel() * score.mean(0)).sum()
    return out, load, balance


def layer_weights(parameters, index, layout):
    def pick(*names):
        return [parameters[f"layers.{index}.{name}"] for name in names]

    names = ["gate", "up", "down"]
    if layout["kind"] == "moe":
        names = ["router", "experts.gate", "experts.up", "experts.down"]
    return {
        "norms": pick("attentionNorm", "ffnNorm"),
        "attention": pick(*(f"attention.{name}" for name in ("q", "k", "v", "o"))),
        "ffn": pick(*(f"ffn.{name}" for name in names)),
    }


def make_loss(setup, parameters):
    """`(ids [B, S], labels [T]) -> cross-entropy, loss with balance term, loads`."""
    architecture = setup["architecture"]
    layouts = architecture["ffn"]
    layers = [layer_weights(parameters, i, layout) for i, layout in enumerate(layouts)]
    rope = rope_table(setup["sequence"], architecture["headDim"], architecture["ropeTheta"])
    embed, norm = parameters["embed"], parameters["norm"]
    head = parameters.get("head", embed)

    def rms(x, w):
        return F.rms_norm(x, (x.shape[-1],), w, architecture["normEps"])

    def loss(ids, labels):
        x = F.embedding(ids.reshape(-1), embed)
        loads, balances = [], []
        for layer, layout in zip(layers, layouts):
            attention_norm, ffn_norm = layer["norms"]
            x = x + attention(rms(x, attention_norm), layer["attention"], architecture, ids.shape[0], rope)
            y = rms(x, ffn_norm)
            if layout["kind"] == "dense":
                x = x + glu(y, *layer["ffn"])
                continue
            out, load, balance = moe(y, layer["ffn"], layout["topK"])
            x = x + out
            loads.append(load)
            balances.append(balance)
        cross_entropy = F.cross_entropy(rms(x, norm) @ head.T, labels)
        extra = setup["balanceWeight"] * torch.stack(balances).mean() if balances else 0
        return cross_entropy, cross_entropy + extra, loads

    return loss


class Training:
    """A model in training; steps go round the given batches."""

    def __init__(self, setup, build):
        torch.set_num_threads(setup["threads"])
        torch.set_default_device(setup["device"])
        loss, trained = build(setup)
        self.loss = torch.compile(loss) if setup["compile"] else loss
        self.optimizer = make_optimizer(setup, trained)
        width = setup["sequence"] + 1
        self.device, self.rounds = setup["device"], setup["precision"] == "bfloat16"
        self.batches = [torch.tensor(batch, device="cpu").view(-1, width) for batch in setup["batches"]]
        self.num_steps = 0
        self.loads = []

    def step(self):
        begin = time.perf_counter()
        batch = self.batches[self.num_steps % len(self.batches)].to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.rounds):
            cross_entropy, loss, self.loads = self.loss(batch[:, :-1], batch[:, 1:].reshape(-1))
        loss.backward()
        self.optimizer.step()
        value = cross_entropy.item()
        self.num_steps += 1
        return {"ms": (time.perf_counter() - begin) * 1e3, "insideMs": None, "loss": value, "overflow": 0}


def matmul_ms(size, repeats, device, rounds):
    """Each product's time, of one square product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=rounds):
            torch.mm(a, b)[0, 0].item()  # waits for a GPU
        times.append((time.perf_counter() - begin) * 1e3)
    return times


def answers(requests, build, version):
    """One answer a request, in order."""
    training = None
    for line in requests:
        request = json.loads(line)
        if request["kind"] == "start":
            training = Training(request["setup"], build)
            yield {"kind": "ready", "version": version}
        elif request["kind"] == "steps":
            steps = [training.step() for _ in range(request["count"])]
            loads = [(load / load.sum()).tolist() for load in training.loads]
            yield {"kind": "steps", "steps": steps, "loads": loads, "notes": []}
        elif request["kind"] == "matmul":
            yield {"kind": "matmul", "ms": {"eager": matmul_ms(request["size"], request["repeats"], training.device, training.rounds)}}
        else:
            raise ValueError(f"unknown request {request['kind']}")


def main(build, version):
    """Answers until stdin ends. `build(setup)` gives `(ids, labels) -> cross-entropy, loss, loads` and what trains."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what a library prints must not get among the answers
    for answer in answers(sys.stdin, build, version):
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main(build, torch.__version__)
