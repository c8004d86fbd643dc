"""scaling: how the time of a step grows with the operations in the graph, the batch size, the width and the sequence length.

Four families, each measured at several sizes: the tiny100 chain by its number of operations (value and gradients), the mlp step by batch size and
by width, the transformer step by sequence length. Sides: the compiled ways of minidl, and the peers that compile, besides torch eager.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import sides
from benchmarks.workloads import mlp, tiny100, training, transformer

PEERS = ("torch eager", "jax.jit")


def chain(bench: Any, blocks: int) -> sides.Builders:
    """The chain of tiny100, longer or shorter."""
    return sides.functional(bench, partial(tiny100.chain, blocks=blocks), (tiny100.X, tiny100.W), (0, 1), eager=False)


def step(bench: Any, make: Callable[[int], training.Task], n: int) -> sides.Builders:
    """A training step at one size."""
    return training.builders(bench, make(n), eager=False)


def run(bench: Any) -> None:
    """Times by size, and how they grow from the smallest size to the largest: 1 is in proportion."""
    lengths: Callable[[int], training.Task] = lambda n: transformer.task(transformer.Sizes(layers=2, length=n, batch=4))
    families: dict[str, tuple[Callable[[Any, int], sides.Builders], tuple[int, ...], float]] = {
        "operations in the graph": (lambda b, n: chain(b, n // 10), (10, 100, 1000), 1e-4),
        "batch size (mlp)": (lambda b, n: step(b, lambda n: mlp.task(batch=n), n), (8, 32, 128, 512), 1e-4),
        "width (mlp)": (lambda b, n: step(b, lambda n: mlp.task((784, n, n, 10)), n), (64, 256, 1024), 1e-4),
        "sequence length (transformer)": (lambda b, n: step(b, lengths, n), (16, 64, 256), 1e-2),
    }
    for family, (builders, sizes, rtol) in families.items():
        label = f"scaling, {family}"
        curves: dict[str, dict[str, Any]] = {}
        for n in (sizes[0], sizes[-1]) if bench.quick else sizes:
            made = {k: v for k, v in builders(bench, n).items() if k.startswith("minidl") or k in PEERS}
            chosen = {k: v for k, v in made.items() if k.startswith("minidl") or any(k in sides.PEERS[p] for p in bench.peers)}
            bench.measure(f"{label} {n}", chosen, rtol, 6.0, 0.01)
            for side, t in bench.times.pop(f"{label} {n}").items():
                curves.setdefault(side, {})[str(n)] = t
        bench.times[label] = curves
        bench.save()
        for side, points in curves.items():
            (a, first), (b, last) = (list(points.items())[i] for i in (0, -1))
            bench.row(f"{label}: {side}, time per unit at {b} over {a}", last["best_s"] / first["best_s"] / (int(b) / int(a)) if a != b else None)
