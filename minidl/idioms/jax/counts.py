"""How many elements lie where: jax.numpy's histograms."""

from __future__ import annotations

import builtins
from typing import Any

import minidl as md
from minidl.idioms.jax.arrays import beside, inexact


def histogram(a: Any, bins: Any = 10, range: Any = None, weights: Any = None, density: Any = None) -> tuple[md.Tensor, md.Tensor]:
    """md.histogram, whose counts are floats as the bounds are.

    >>> histogram(md.tensor([0.0, 1.0, 1.5, 2.0]), 2)[0].tolist()
    [1.0, 3.0]
    """
    x = inexact(a)
    return md.histogram(x, bins, range, weights=md.ones_like(x) if weights is None else inexact(weights), density=bool(density))


def histogram_bin_edges(a: Any, bins: Any = 10, range: Any = None, weights: Any = None) -> md.Tensor:
    """The bounds of the intervals of md.histogram."""
    return md.histogram(a, bins, range)[1]


def histogramdd(sample: Any, bins: Any = 10, range: Any = None, weights: Any = None, density: Any = None) -> tuple[md.Tensor, list[md.Tensor]]:
    """How many points, in rows, lie in each box of intervals along their coordinates, and the bounds along each.

    >>> histogramdd(md.tensor([[0.0, 0.0], [1.0, 1.0]]), 2)[0].tolist()
    [[1, 0], [0, 1]]
    """
    x = inexact(sample)
    n, d = x.shape
    each = list(bins) if isinstance(bins, (list, tuple)) and len(bins) == d else [bins] * d
    edges = [histogram_bin_edges(x[:, i], b, None if range is None else range[i]).to(x.dtype) for i, b in enumerate(each)]
    places = []
    for i, e in enumerate(edges):
        at = md.searchsorted(e, x[:, i], side="right") - 1
        at = md.where(x[:, i] == e[-1], e.shape[0] - 2, at)
        places.append(md.where(at < 0, e.shape[0] - 1, at))  # dropped, like what is beyond
    w = md.ones(n, dtype=md.int64, **beside(x)) if weights is None else inexact(weights)
    counts = md.zeros(tuple(e.shape[0] - 1 for e in edges), dtype=w.dtype, **beside(x)).at[tuple(places)].add(w, mode="drop")
    if density:
        counts = counts / md.sum(counts)
        for i, e in enumerate(edges):
            counts = counts / md.reshape(md.diff(e), tuple(-1 if j == i else 1 for j in builtins.range(d)))
    return counts, edges


def histogram2d(x: Any, y: Any, bins: Any = 10, range: Any = None, weights: Any = None, density: Any = None) -> tuple[md.Tensor, ...]:
    """histogramdd of two coordinates."""
    counts, (a, b) = histogramdd(md.stack([inexact(x), inexact(y)], axis=-1), bins, range, weights, density)
    return counts, a, b


#: Name -> what it is in jax.numpy.
NAMES: dict[str, Any] = {f.__name__: f for f in (histogram, histogram2d, histogram_bin_edges, histogramdd)}
