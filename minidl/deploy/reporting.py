"""compare: size, speed and accuracy of a model before and after it was frozen, pruned or quantized."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import minidl as md
from minidl.columns import columns


@dataclass(frozen=True)
class Report:
    """What compare measured. `str` of it is a table.

    nbytes, seconds, metric: pairs (before, after); metric is None where none was given. largest_difference: of the outputs, absolute.

    >>> print(md.deploy.Report((2048, 1024), (0.002, 0.001), 0.0))
                          before     after
    size                 2.0 KiB   1.0 KiB  x 0.50
    time of a call      2.000 ms  1.000 ms  x 0.50
    largest difference                   0
    """

    nbytes: tuple[int, int]
    seconds: tuple[float, float]
    largest_difference: float
    metric: tuple[float, float] | None = None

    def __str__(self) -> str:
        rows = [("size", *(f"{n / 1024:.1f} KiB" for n in self.nbytes), _ratio(*self.nbytes))]
        rows += [("time of a call", *(f"{s * 1e3:.3f} ms" for s in self.seconds), _ratio(*self.seconds))]
        if self.metric is not None:
            rows += [("metric", *(f"{m:.4f}" for m in self.metric), f"{self.metric[1] - self.metric[0]:+.4f}")]
        rows += [("largest difference", "", f"{self.largest_difference:.3g}", "")]
        return "\n".join(columns([("", "before", "after", ""), *rows], left=1))


def _ratio(before: float, after: float) -> str:
    return f"x {after / before:.2f}" if before else ""


def compare(
    before: Callable[..., Any],
    after: Callable[..., Any],
    *args: md.Tensor,
    metric: Callable[[Callable[..., Any]], float] | None = None,
    repeat: int = 10,
) -> Report:
    """Run two models on the same arguments and report size, time and how far the outputs are apart; metric(model), an accuracy say, of both besides.

    Size is the bytes of parameters and buffers (of the constants of a frozen model); time is the best of `repeat` calls taken in turns, after one
    that is not counted, so compiling is left out. Outputs are pytrees of tensors.

    >>> import minidl as md
    >>> from minidl import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)).eval()
    >>> compare(model, md.freeze(model), md.ones((2, 4))).largest_difference < 1e-5
    True
    """
    with md.no_grad():
        outs = [md.tree.leaves(f(*args)) for f in (before, after)]
        apart = float(np.max([_apart(a, b) for a, b in zip(*outs, strict=True)], initial=0.0))  # nan where one is
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeat):
            for f, taken in zip((before, after), times, strict=True):
                start = time.perf_counter()
                for x in md.tree.leaves(f(*args)):
                    x.numpy()
                taken.append(time.perf_counter() - start)
        found = None if metric is None else (float(metric(before)), float(metric(after)))
    return Report((size(before), size(after)), (min(times[0]), min(times[1])), apart, found)


def _apart(a: md.Tensor, b: md.Tensor) -> float:
    """The largest difference of two outputs of any dtypes and backends; 0 where both are the same infinity or nan."""
    wide = np.complex128 if a.dtype.is_complex or b.dtype.is_complex else np.float64
    x, y = (v.numpy().astype(wide) for v in (a, b))
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.where((x == y) | ((x != x) & (y != y)), 0.0, np.abs(x - y)).max(initial=0.0))


def size(f: Any) -> int:
    """Bytes of the tensors that a model carries."""
    if hasattr(f, "nbytes"):
        return int(f.nbytes)
    if hasattr(f, "state_dict"):
        return sum(t.size * t.dtype.itemsize for t in f.state_dict().values() if isinstance(t, md.Tensor))
    return 0
