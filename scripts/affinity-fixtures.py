"""Writes test/fixtures/downcycle/affinity.json: what NumPy and SciPy make of matrices of perplexities.

    python scripts/affinity-fixtures.py

Needs numpy and scipy. Each case has perplexities [n, n], the Pearson correlation of the rows of
min over rows / perplexity, and for every number of clusters the labels of average linkage on 1 - correlation.
"""

import json
from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

OUT = Path(__file__).resolve().parent.parent / "test" / "fixtures" / "downcycle" / "affinity.json"


def case(n: int, groups: int, seed: int) -> dict:
    """Tasks of some groups, by lot: a model pruned on a task is better on its group than elsewhere."""
    rng = np.random.default_rng(seed)
    group = rng.integers(groups, size=n)
    same = group[:, None] == group[None, :]
    perplexity = np.exp(rng.normal(3, 0.5, size=n)[None, :] + rng.normal(0, 0.3, size=(n, n)) - 0.4 * same)
    correlation = np.corrcoef(perplexity.min(axis=0)[None, :] / perplexity)
    distance = 1 - correlation
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), method="average")
    labels = {str(count): fcluster(tree, count, criterion="maxclust").tolist() for count in range(1, n + 1)}
    return {"perplexity": perplexity.tolist(), "correlation": correlation.tolist(), "labels": labels}


if __name__ == "__main__":
    cases = [case(4, 2, 1), case(8, 3, 2), case(24, 8, 3)]
    OUT.write_text(json.dumps(cases) + "\n")
